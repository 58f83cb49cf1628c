//! namespace-controller: deletes the contents of a namespace that is being deleted, and then the namespace. Follows
//! k8s.io/kubernetes/pkg/controller/namespace.

mod conditions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, ListParams, PostParams, PropagationPolicy};
use kube::discovery::ApiResource;

use self::conditions::Findings;
use crate::client::Context;
use crate::client::discovery::{self, Bare, Served};
use crate::client::errors::{is_conflict, is_not_found, is_unsupported, text};
use crate::client::kinds::Namespace;
use crate::client::queue::{Delays, Next, Queue};

/// How long to wait after a namespace was deleted, so that running writes can finish. Upstream, whose servers may see
/// deletions late, waits five seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// The finalizer of this controller.
const FINALIZER: &str = "kubernetes";
/// The assumed time until objects with finalizers are gone, in seconds (they are looked at after half of it plus one).
const FINALIZER_SECONDS: i64 = 15;
const WORKERS: usize = 5;
/// How long failed namespaces are delayed: briefly, because they only wait for a problem to be fixed.
const DELAYS: Delays = Delays {
    first: Duration::from_millis(5),
    longest: Duration::from_secs(60),
};

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<CompactString>::with_delays(DELAYS));
    let namespaces = context.informers.of::<Namespace>();
    let adds = queue.clone();
    namespaces.subscribe(move |change| {
        if change
            .new
            .is_some_and(|new| new.metadata.deletion_timestamp.is_some())
        {
            adds.add_after(change.key.name.clone(), PAUSE);
        }
    });
    let look = |name: CompactString| {
        let context = context.clone();
        async move { end(&context, &name).await }
    };
    context.work(&queue, WORKERS, look).await;
}

/// Why a namespace is not gone yet.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("the namespace cannot be changed: {}", text(.0))]
    Namespace(#[from] kube::Error),
    #[error("its contents cannot be deleted: {0}")]
    Contents(String),
}

/// Does one step of deleting a namespace.
async fn end(context: &Context, name: &str) -> Result<Next, Unfinished> {
    let api: Api<v1::Namespace> = Api::all(context.client.clone());
    let Some(mut namespace) = api.get_opt(name).await? else {
        return Ok(Next::Done);
    };
    let spec = namespace.spec.clone().unwrap_or_default();
    let finalizers = spec.finalizers.unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || finalizers.is_empty() {
        return Ok(Next::Done);
    }
    let status = namespace.status.get_or_insert_default();
    if status.phase.as_deref() != Some("Terminating") {
        status.phase = Some("Terminating".to_owned());
        match api
            .replace_status(name, &PostParams::default(), &namespace)
            .await
        {
            Ok(changed) => namespace = changed,
            Err(error) if is_not_found(&error) => return Ok(Next::Done),
            Err(error) if is_conflict(&error) => return Ok(Next::Retry),
            Err(error) => return Err(error.into()),
        }
    }
    let (findings, estimate) = empty(&context.client, &namespace).await;
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    if findings.apply(namespace.status.get_or_insert_default(), &now) {
        match api
            .replace_status(name, &PostParams::default(), &namespace)
            .await
        {
            Ok(changed) => namespace = changed,
            // Conditions only inform people: failing to write them delays nothing.
            Err(error) => {
                tracing::debug!(name, %error, "cannot update the conditions of a namespace")
            }
        }
    }
    let failures = findings.discovery.iter().chain(&findings.failures);
    let failures: Vec<&str> = failures.map(String::as_str).collect();
    if !failures.is_empty() {
        return Err(Unfinished::Contents(failures.join(", ")));
    }
    if estimate > 0 {
        let seconds = u64::try_from(estimate / 2 + 1).unwrap_or(1);
        return Ok(Next::After(Duration::from_secs(seconds)));
    }
    let kept = finalizers
        .into_iter()
        .filter(|finalizer| finalizer != FINALIZER);
    namespace.spec.get_or_insert_default().finalizers = Some(kept.collect());
    match api
        .replace_subresource("finalize", name, &PostParams::default(), &namespace)
        .await
    {
        Ok(_) => Ok(Next::Done),
        Err(error) if is_not_found(&error) => Ok(Next::Done),
        Err(error) if is_conflict(&error) => Ok(Next::Retry),
        Err(error) => Err(error.into()),
    }
}

/// Deletes the contents of a namespace, pods first. Returns the state, and in about how many seconds the rest may be
/// gone; 0 if nothing remains.
async fn empty(client: &kube::Client, namespace: &v1::Namespace) -> (Findings, i64) {
    let mut findings = Findings::default();
    let mut estimate = 0;
    let mut served = match discovery::resources(client).await {
        Ok(served) => served,
        Err(error) => {
            findings.discovery = Some(text(&error));
            return (findings, estimate);
        }
    };
    served.retain(|served| served.namespaced && served.can(&["delete"]));
    let is_pods =
        |served: &Served| served.resource.group.is_empty() && served.resource.plural == "pods";
    served.sort_by_key(|served| !is_pods(served));
    let mut remaining = BTreeMap::new();
    for served in &served {
        let pods = is_pods(served);
        let left = delete_all(client, served, namespace, pods).await;
        estimate = estimate.max(left.estimate);
        findings.failures.extend(left.failure);
        if left.count == 0 {
            continue;
        }
        if pods {
            // What pods may use stays as long as there are pods.
            return (findings, estimate);
        }
        for (finalizer, count) in left.finalizers {
            *findings.finalizers.entry(finalizer).or_insert(0) += count;
        }
        let Served { resource, .. } = served;
        remaining.insert(
            format!("{}.{}", resource.plural, resource.group),
            left.count,
        );
    }
    findings.remaining = Some(remaining);
    (findings, estimate)
}

/// What remains of one resource.
#[derive(Debug, Default, PartialEq)]
struct Left {
    count: usize,
    finalizers: BTreeMap<String, usize>,
    /// In about how many seconds the rest may be gone; 0 if that is unknown, or nothing remains.
    estimate: i64,
    /// Why it remains, if it should not.
    failure: Option<String>,
}

impl Left {
    /// What remains if `items` do, which may take `grace` seconds to end.
    fn of(items: &[Bare], grace: i64, namespace: &str, resource: &ApiResource) -> Left {
        let mut left = Left {
            count: items.len(),
            ..Left::default()
        };
        if items.is_empty() {
            return left;
        }
        let finalizers = items
            .iter()
            .filter_map(|of| of.metadata.finalizers.as_ref());
        for finalizer in finalizers.flatten() {
            *left.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
        left.estimate = match grace {
            0 if left.finalizers.is_empty() => 0,
            0 => FINALIZER_SECONDS,
            grace => grace,
        };
        if left.estimate == 0 {
            left.failure = Some(format!(
                "unexpected items still remain in namespace: {namespace} for gvr: {}/{}, Resource={}",
                resource.group, resource.version, resource.plural
            ));
        }
        left
    }
}

/// Deletes the objects of a resource in a namespace.
async fn delete_all(
    client: &kube::Client,
    served: &Served,
    namespace: &v1::Namespace,
    pods: bool,
) -> Left {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let emptied = async {
        let grace = match pods {
            true => grace(client, namespace)
                .await
                .map_err(|error| text(&error))?,
            false => 0,
        };
        let items = remove(&served.api(client, name), served).await?;
        Ok(Left::of(&items, grace, name, &served.resource))
    };
    emptied.await.unwrap_or_else(|failure| Left {
        failure: Some(failure),
        ..Left::default()
    })
}

/// Deletes the objects of a resource. Returns those that remain.
async fn remove(api: &Api<Bare>, served: &Served) -> Result<Vec<Bare>, String> {
    let background = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let all = ListParams::default();
    let mut at_once = served.can(&["deletecollection"]);
    if at_once {
        match api.delete_collection(&background, &all).await {
            Err(error) if is_unsupported(&error) => at_once = false,
            Err(error) => return Err(text(&error)),
            Ok(_) => {}
        }
    }
    if !served.can(&["list"]) {
        return Ok(Vec::new());
    }
    let list = || async {
        match api.list(&all).await {
            Err(error) if is_unsupported(&error) => Ok(Vec::new()),
            other => other.map(|list| list.items).map_err(|error| text(&error)),
        }
    };
    let items = list().await?;
    if at_once || items.is_empty() {
        return Ok(items);
    }
    for item in &items {
        let name = item.metadata.name.as_deref().unwrap_or_default();
        match api.delete(name, &background).await {
            Err(error) if !is_unsupported(&error) => return Err(text(&error)),
            _ => {}
        }
    }
    list().await
}

/// The longest grace period of a pod in the namespace, in seconds; 0 once that is over.
async fn grace(client: &kube::Client, namespace: &v1::Namespace) -> Result<i64, kube::Error> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Ending> = Api::namespaced(client.clone(), name);
    let pods = api.list(&ListParams::default()).await?;
    let longest = pods
        .items
        .iter()
        .filter(|pod| !matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")))
        .filter_map(|pod| pod.spec.termination_grace_period_seconds)
        .max()
        .unwrap_or(0);
    let deleted = namespace.metadata.deletion_timestamp.as_ref();
    let since = deleted.map_or(0, |deleted| {
        k8s_openapi::jiff::Timestamp::now().as_second() - deleted.0.as_second()
    });
    Ok(if since >= longest { 0 } else { longest })
}

/// The grace period of a pod.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndingSpec {
    termination_grace_period_seconds: Option<i64>,
}

/// The phase of a pod.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct EndingStatus {
    phase: Option<String>,
}

crate::slim!(
    /// What determines how long a pod takes to end.
    Ending of v1::Pod {
        /// Its grace period.
        spec: EndingSpec,
        /// Its phase.
        status: EndingStatus,
    }
);
