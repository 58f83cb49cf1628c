//! Token requests of service accounts, and token reviews. Follows k8s.io/kubernetes
//! pkg/registry/core/serviceaccount/storage/token.go and pkg/registry/authentication/tokenreview.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use crate::api::reply::Reply;
use crate::auth::review::user_info;
use crate::auth::tokens::claims::{Bound, Reference, Wanted};
use crate::meta::names::new_uid;
use crate::meta::status::{About, aggregate, key_name};
use crate::meta::{At, Errors, Status, time};
use crate::schema::{Object, Value};

/// The shortest lifetime of a token, in seconds.
const SHORTEST: i64 = 600;
/// The lifetime in seconds that nodes request for the tokens of pods; such tokens are recognized by it.
const OF_PODS: i64 = 3607;
/// The actual lifetime of such a token, in seconds.
const A_YEAR: i64 = 365 * 24 * 60 * 60;
const WEBHOOKS: &str = "admissionregistration.k8s.io/v1";

fn about(name: &str) -> About<'_> {
    About {
        group: "authentication.k8s.io",
        kind: "TokenRequest",
        name,
    }
}

fn defaults(request: &mut Value) {
    let spec = request.object_mut().object_mut("spec");
    spec.set_default("expirationSeconds", 3600i64);
}

fn is_webhook(reference: &Value) -> bool {
    reference.str("apiVersion") == WEBHOOKS
        && matches!(
            reference.str("kind"),
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration"
        )
}

/// Validates a TokenRequest.
fn validate(request: At<'_>) -> Errors {
    let mut errors = Errors::default();
    let spec = request.field("spec");
    let seconds = spec.field("expirationSeconds");
    let asked = seconds.int().unwrap_or(0);
    if asked < SHORTEST {
        let why = "may not specify a duration less than 10 minutes";
        errors.invalid(seconds.path, asked, why);
    }
    if asked > 1 << 32 {
        let why = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(seconds.path, asked, why);
    }
    let attestations = spec.field("attestations");
    let bound = spec.value.at("boundObjectRef");
    if !is_webhook(bound) {
        if !attestations.value.is_empty() {
            errors = Errors::default();
            errors.invalid(
                attestations.path,
                attestations.value,
                "attestations may only be specified with a webhook bound object reference",
            );
        }
        return errors;
    }
    let audiences = spec.field("audiences");
    if audiences.list().len() != 1 {
        let why = "must be length 1 when bound to a webhook config";
        errors.invalid(audiences.path, audiences.value, why);
    }
    if attestations.entries().count() != 1 {
        let why = "webhook bound requests require exactly one admissionReviewAPIGroups attestation";
        errors.invalid(attestations.path, attestations.value, why);
    }
    errors
}

/// The group and version of a reference; both empty if its apiVersion is invalid.
fn group_version(reference: &Value) -> (&str, &str) {
    let said = reference.str("apiVersion");
    match said.split_once('/') {
        None => ("", said),
        Some((_, version)) if version.contains('/') => ("", ""),
        Some(both) => both,
    }
}

/// The type of an object in Go's notation: `/v1, Kind=ConfigMap`.
fn type_of(reference: &Value) -> String {
    let (group, version) = group_version(reference);
    format!("{group}/{version}, Kind={}", reference.str("kind"))
}

/// The object that a token is bound to, and its uid.
fn bound_to(call: &Call<'_>, reference: &Value, account: &str) -> Result<(Bound, String), Status> {
    let cluster = &call.target.cluster;
    let namespace = call.target.namespace();
    let name = reference.str("name");
    let get = |plural: &str, namespace: &str, name: &str| {
        key_name(name)?;
        cluster.get("", plural, namespace, name).ok_or_else(|| {
            Status::not_found(About {
                group: "",
                kind: plural,
                name,
            })
        })
    };
    let core = group_version(reference).0.is_empty();
    let mut bound = Bound::default();
    let found = match reference.str("kind") {
        "Pod" if core => {
            let pod = get("pods", namespace, name)?;
            let spec = pod.at("spec");
            if spec.str("serviceAccountName") != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                    crate::meta::errors::quoted(account)
                )));
            }
            bound.pod = Some(Reference::of(&pod));
            let node = spec.str("nodeName");
            if !node.is_empty() {
                let found = cluster.get("", "nodes", "", node);
                bound.node = Some(found.map_or_else(
                    || Reference {
                        name: node.into(),
                        uid: Default::default(),
                    },
                    |found| Reference::of(&found),
                ));
            }
            pod
        }
        "Node" if core => {
            let node = get("nodes", "", name)?;
            bound.node = Some(Reference::of(&node));
            node
        }
        "Secret" if core => {
            let secret = get("secrets", namespace, name)?;
            bound.secret = Some(Reference::of(&secret));
            secret
        }
        _ if is_webhook(reference) => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {} (feature gate APIServerWebhookAuthenticationToken is disabled)",
                type_of(reference)
            )));
        }
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {}",
                type_of(reference)
            )));
        }
    };
    Ok((bound, found.at("metadata").str("uid").to_owned()))
}

/// Handles a TokenRequest.
pub(super) fn request(mut call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let mut asked = call.asked(true, defaults).await?;
        let target = call.target;
        let (namespace, name) = (target.namespace().to_owned(), target.info.name.clone());
        let said = asked.object.at("metadata").str("name");
        if !said.is_empty() && said != name {
            let mut errors = Errors::default();
            errors.invalid(
                At::root(&asked.object).field("metadata").field("name").path,
                said,
                "must match the service account name if specified",
            );
            return Err(Status::invalid(about(&name), &errors));
        }
        target.check_key(&name)?;
        let account = target
            .cluster
            .get("", "serviceaccounts", &namespace, &name)
            .ok_or_else(|| Status::not_found(target.about(&name)))?;
        let account = Reference::of(&account);
        let uid = asked.object.at("metadata").str("uid");
        if !uid.is_empty() && uid != account.uid {
            let why = format!(
                "the UID in the token request ({uid}) does not match the UID of the service account ({})",
                account.uid
            );
            return Err(Status::conflict(
                About {
                    kind: "TokenRequest",
                    ..about(&name)
                },
                &why,
            ));
        }
        let tokens = call.server.tokens.clone();
        let object = asked.object.object_mut();
        object.remove("status");
        let meta = object.object_mut("metadata");
        meta.insert("name", name.as_str());
        meta.insert("namespace", namespace.as_str());
        meta.insert("uid", &account.uid);
        meta.insert("creationTimestamp", time::print(target.now));
        let spec = object.object_mut("spec");
        if spec.get("audiences").is_none_or(Value::is_empty) {
            let audiences = tokens.settings.audiences.iter().map(Value::from);
            spec.insert("audiences", audiences.collect::<Vec<_>>());
        }
        let errors = validate(At::root(&asked.object));
        if !errors.is_empty() {
            return Err(Status::invalid(about(""), &errors));
        }
        call.admit(&asked)?;
        let spec = asked.object.at("spec");
        let mut bound = Bound::default();
        if let Some(reference) = spec.get("boundObjectRef") {
            let uid;
            (bound, uid) = bound_to(&call, reference, &name)?;
            let said = reference.str("uid");
            if !said.is_empty() && said != uid {
                return Err(Status::conflict(
                    About {
                        group: group_version(reference).0,
                        kind: reference.str("kind"),
                        name: reference.str("name"),
                    },
                    &format!(
                        "the UID in the bound object reference ({said}) does not match the UID in record. The object might have been deleted and then recreated"
                    ),
                ));
            }
        }
        let mut seconds = spec.int("expirationSeconds");
        if let Some(max) = tokens.settings.max_seconds.filter(|max| seconds > *max) {
            call.warnings.push(format!(
                "requested expiration of {seconds} seconds shortened to {max} seconds"
            ));
            seconds = max;
        }
        let audiences: Vec<String> = spec
            .list("audiences")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let own = audiences
            .iter()
            .all(|audience| tokens.settings.audiences.contains(audience));
        let extends = tokens.settings.extend && bound.pod.is_some() && seconds == OF_PODS && own;
        let id = new_uid();
        let wanted = Wanted {
            issuer: tokens.issuer(),
            id: &id,
            audiences: &audiences,
            namespace: &namespace,
            account,
            bound,
            now: target.now,
            seconds: if extends { A_YEAR } else { seconds },
            warn_after: extends.then_some(seconds),
        };
        tokens.ready().await;
        let token = tokens
            .issue(&wanted.claims())
            .map_err(|why| Status::internal(&format!("failed to generate token: {why}")))?;
        asked
            .object
            .object_mut()
            .object_mut("spec")
            .insert("expirationSeconds", seconds);
        let mut status = Object::new();
        status.insert("token", token);
        status.insert(
            "expirationTimestamp",
            time::print(target.now.saturating_add(seconds)),
        );
        asked.object.set("status", status);
        Ok(Reply::Other(201, asked.answer()))
    }
    .boxed()
}

/// Handles a TokenReview.
pub(super) fn review(mut call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let mut asked = call.asked(false, |_| {}).await?;
        let spec = asked.object.at("spec");
        let token = spec.str("token").to_owned();
        if token.is_empty() {
            return Err(Status::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let mut audiences: Vec<String> = spec
            .list("audiences")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        call.admit(&asked)?;
        let authentication = &call.server.authentication;
        if audiences.is_empty() {
            audiences.clone_from(&authentication.tokens.settings.audiences);
        }
        let reviewed = authentication.review(&token, &audiences);
        // Fields that the review does not set keep the client's values.
        let status = asked.object.object_mut().object_mut("status");
        match reviewed {
            Ok(found) => {
                status.insert("authenticated", true);
                status.insert("user", user_info(&found.user));
                let audiences = found.audiences.iter().map(Value::from);
                status.insert("audiences", audiences.collect::<Vec<_>>());
            }
            Err(why) => {
                status.remove("authenticated");
                status.set_default("user", Object::new());
                if !why.is_empty() {
                    status.insert("error", aggregate(&why));
                }
            }
        }
        Ok(Reply::Other(201, asked.answer()))
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    #[test]
    fn requests_are_judged_as_upstream_judges_them() {
        for (spec, told) in [
            (r#"{"expirationSeconds":600}"#, &[][..]),
            (r#"{"expirationSeconds":4294967296}"#, &[]),
            (
                r#"{"expirationSeconds":599}"#,
                &[
                    "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
                ],
            ),
            (
                r#"{"expirationSeconds":4294967297}"#,
                &[
                    "spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
                ],
            ),
            (
                r#"{"expirationSeconds":1,"attestations":{"a":["b"]}}"#,
                &[
                    r#"spec.attestations: Invalid value: {"a":["b"]}: attestations may only be specified with a webhook bound object reference"#,
                ],
            ),
            (
                r#"{"expirationSeconds":600,"audiences":["a","b"],"boundObjectRef":{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration"}}"#,
                &[
                    r#"spec.audiences: Invalid value: ["a","b"]: must be length 1 when bound to a webhook config"#,
                    "spec.attestations: Invalid value: null: webhook bound requests require exactly one admissionReviewAPIGroups attestation",
                ],
            ),
        ] {
            let request = json::parse(format!(r#"{{"spec":{spec}}}"#).as_bytes())
                .unwrap()
                .value;
            let errors: Vec<String> = validate(At::root(&request))
                .0
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(errors, told, "{spec}");
        }
    }

    #[test]
    fn types_are_named_as_go_names_them() {
        for (reference, shown) in [
            (
                r#"{"apiVersion":"v1","kind":"ConfigMap"}"#,
                "/v1, Kind=ConfigMap",
            ),
            (r#"{"apiVersion":"apps/v1","kind":"D"}"#, "apps/v1, Kind=D"),
            (r#"{"kind":"D"}"#, "/, Kind=D"),
            (r#"{"apiVersion":"/v1","kind":"D"}"#, "/v1, Kind=D"),
            (r#"{"apiVersion":"a/b/c","kind":"D"}"#, "/, Kind=D"),
        ] {
            let reference = json::parse(reference.as_bytes()).unwrap().value;
            assert_eq!(type_of(&reference), shown);
        }
    }
}
