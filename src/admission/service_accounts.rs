//! ServiceAccount: every pod gets a service account with an API token, and may only use secrets allowed to that
//! account.
//! Follows k8s.io/kubernetes/plugin/pkg/admission/serviceaccount.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Attributes, Operation, Plugin};
use crate::auth::node;
use crate::meta::{Status, names, strconv};
use crate::schema::Value;
use crate::store::Interest;
use crate::value;

/// The plugin.
pub struct ServiceAccount;

/// The service account of pods that name none.
const DEFAULT: &str = "default";
/// The mount path of the token in containers.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The prefix of token volumes' names.
const VOLUME: &str = "kube-api-access-";
/// The lifetime of a token in seconds.
const TOKEN_SECONDS: i64 = 3607;
/// How long to wait for the default service account of a new namespace.
const PATIENCE: Duration = Duration::from_millis(1500);

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn before<'a>(&'a self, request: &'a Attributes<'_>) -> Option<BoxFuture<'a, ()>> {
        if request.operation != Operation::Create
            || !request.is_of("", "pods")
            || node::is_mirror(&request.object)
            || !["", DEFAULT].contains(&request.object.at("spec").str("serviceAccountName"))
            || account(request, DEFAULT).is_some()
        {
            return None;
        }
        Some(
            tokio::time::timeout(PATIENCE, made(request, DEFAULT))
                .map(|_| ())
                .boxed(),
        )
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_of("", "pods") {
            return Ok(());
        }
        if node::is_mirror(&request.object) {
            return self.validate(request);
        }
        let spec = request.object.object_mut().object_mut("spec");
        let name = match spec.get("serviceAccountName").and_then(Value::as_str) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => {
                spec.insert("serviceAccountName", DEFAULT);
                spec.insert("serviceAccount", DEFAULT);
                DEFAULT.to_owned()
            }
        };
        let account = found(request, &name)?;
        let spec = request.object.object_mut().object_mut("spec");
        let wants = [
            spec.get("automountServiceAccountToken"),
            account.get("automountServiceAccountToken"),
        ];
        if wants
            .into_iter()
            .flatten()
            .find_map(Value::as_bool)
            .unwrap_or(true)
        {
            mount_token(spec);
        }
        if spec.get("imagePullSecrets").is_none_or(Value::is_empty) {
            let secrets: Vec<Value> = account
                .list("imagePullSecrets")
                .iter()
                .map(|secret| value!({"name": (secret.str("name"))}))
                .collect();
            spec.insert("imagePullSecrets", secrets);
        }
        self.validate(request)
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !request.is_about("", "pods") || request.object.is_null() {
            return Ok(());
        }
        match (request.operation, request.subresource) {
            (Operation::Update, "ephemeralcontainers") => {}
            (Operation::Create, "" | "ephemeralcontainers") => {}
            _ => return Ok(()),
        }
        let creating = request.operation == Operation::Create;
        if creating && node::is_mirror(&request.object) {
            return match mirror_breach(&request.object) {
                Some(why) => Err(request.forbidden(why)),
                None => Ok(()),
            };
        }
        let name = request.object.at("spec").str("serviceAccountName");
        if name.is_empty() {
            let why = format!(
                "no service account specified for pod {}/{}",
                request.namespace,
                request.object.at("metadata").str("name")
            );
            return Err(request.forbidden(&why));
        }
        let account = found(request, name)?;
        let annotations = account.at("metadata").at("annotations");
        let enforced = annotations.str("kubernetes.io/enforce-mountable-secrets");
        if strconv::parse_bool(enforced) != Some(true) {
            return Ok(());
        }
        let spec = request.object.at("spec");
        let breach = if creating {
            volume_breach(&account, spec)
                .or_else(|| env_breach(&account, spec, "initContainers", "init container"))
                .or_else(|| env_breach(&account, spec, "containers", "container"))
                .or_else(|| pull_breach(&account, spec))
        } else {
            env_breach(&account, spec, "ephemeralContainers", "ephemeral container")
        };
        match breach {
            Some(why) if creating => Err(request.forbidden(&why)),
            // Upstream does not classify this error.
            Some(why) => Err(Status::unclassified(why)),
            None => Ok(()),
        }
    }
}

fn account(request: &Attributes<'_>, name: &str) -> Option<Arc<Value>> {
    request
        .cluster
        .get("", "serviceaccounts", request.namespace, name)
}

fn found(request: &Attributes<'_>, name: &str) -> Result<Arc<Value>, Status> {
    account(request, name).ok_or_else(|| {
        let why = names::not_asked_for(name)
            .unwrap_or_else(|| format!("serviceaccount \"{name}\" not found"));
        let why = format!(
            "error looking up service account {}/{name}: {why}",
            request.namespace
        );
        request.forbidden(&why)
    })
}

/// Resolves when the service account has been created.
async fn made(request: &Attributes<'_>, name: &str) {
    let Some(accounts) = request.cluster.resource("", "serviceaccounts") else {
        return;
    };
    let store = &request.cluster.store;
    let interest = Interest {
        resource: accounts.prefix.clone(),
        keys: accounts.key(request.namespace, name),
        exact: true,
        field: None,
    };
    let Ok(mut cursor) = store.clone().watch(interest, store.world().rev()) else {
        return;
    };
    while account(request, name).is_none() {
        cursor.changed().await;
        if cursor.next(1).await.is_err() {
            return;
        }
    }
}

/// Adds a volume with the token, and mounts it in containers that do not mount something else there.
fn mount_token(spec: &mut crate::schema::Object) {
    let known = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|volume| volume.str("name"))
        .find(|name| name.starts_with(VOLUME))
        .map(str::to_owned);
    let name = known
        .clone()
        .unwrap_or_else(|| crate::meta::names::generated(VOLUME));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mounts = container.object_mut().array_mut("volumeMounts");
            if !mounts.iter().any(|mount| mount.str("mountPath") == MOUNT) {
                mounts
                    .push(value!({"name": (name.as_str()), "readOnly": true, "mountPath": MOUNT}));
                needed = true;
            }
        }
    }
    if known.is_none() && needed {
        spec.array_mut("volumes").push(token_volume(&name));
    }
}

fn token_volume(name: &str) -> Value {
    value!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                ]}}
            ],
            "defaultMode": 420i64
        }
    })
}

/// Why a mirror pod is rejected.
fn mirror_breach(pod: &Value) -> Option<&'static str> {
    let spec = pod.at("spec");
    if !spec.str("serviceAccountName").is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    let mut referred = node::pod_references(pod).into_iter();
    if referred.any(|(kind, _)| kind == node::Reference::Secret) {
        return Some("a mirror pod may not reference secrets");
    }
    let projected = spec
        .list("volumes")
        .iter()
        .flat_map(|volume| volume.at("projected").list("sources"));
    projected
        .into_iter()
        .any(|source| source.get("serviceAccountToken").is_some())
        .then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

fn has(account: &Value, list: &str, secret: &str) -> bool {
    account
        .list(list)
        .iter()
        .any(|known| known.str("name") == secret)
}

fn tail(account: &Value, what: &str) -> String {
    format!(
        "is not allowed because service account {} does not reference that {what}",
        account.at("metadata").str("name")
    )
}

fn volume_breach(account: &Value, spec: &Value) -> Option<String> {
    let secrets = spec
        .list("volumes")
        .iter()
        .filter_map(|volume| volume.get("secret"));
    let name = secrets
        .map(|secret| secret.str("secretName"))
        .find(|name| !has(account, "secrets", name))?;
    Some(format!(
        "volume with secret.secretName=\"{name}\" {}",
        tail(account, "secret")
    ))
}

fn env_breach(account: &Value, spec: &Value, list: &str, kind: &str) -> Option<String> {
    for container in spec.list(list) {
        let who = container.str("name");
        for env in container.list("env") {
            if let Some(secret) = env.at("valueFrom").get("secretKeyRef")
                && !has(account, "secrets", secret.str("name"))
            {
                return Some(format!(
                    "{kind} {who} with envVar {} referencing secret.secretName=\"{}\" {}",
                    env.str("name"),
                    secret.str("name"),
                    tail(account, "secret")
                ));
            }
        }
        for from in container.list("envFrom") {
            if let Some(secret) = from.get("secretRef")
                && !has(account, "secrets", secret.str("name"))
            {
                return Some(format!(
                    "{kind} {who} with envFrom referencing secret.secretName=\"{}\" {}",
                    secret.str("name"),
                    tail(account, "secret")
                ));
            }
        }
    }
    None
}

fn pull_breach(account: &Value, spec: &Value) -> Option<String> {
    let secrets = spec.list("imagePullSecrets").iter().enumerate();
    let (i, name) = secrets
        .map(|(i, secret)| (i, secret.str("name")))
        .find(|(_, name)| !has(account, "imagePullSecrets", name))?;
    Some(format!(
        "imagePullSecrets[{i}].name=\"{name}\" {}",
        tail(account, "imagePullSecret")
    ))
}
