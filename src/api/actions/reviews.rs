//! Access and identity reviews. Follows k8s.io/kubernetes pkg/registry/authorization and pkg/registry/authentication.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use crate::api::reply::Reply;
use crate::auth::authorize::Rules;
use crate::auth::review::{self, Kind};
use crate::auth::{Authorizer as _, Decision, User};
use crate::meta::status::About;
use crate::meta::{At, Status, time};
use crate::schema::{Object, Value};

/// Handles a SubjectAccessReview.
pub(super) fn access(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    access_review(call, Kind::Any).boxed()
}

/// Handles a LocalSubjectAccessReview.
pub(super) fn local_access(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    access_review(call, Kind::Local).boxed()
}

/// Handles a SelfSubjectAccessReview.
pub(super) fn own_access(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    access_review(call, Kind::Own).boxed()
}

async fn access_review(mut call: Call<'_>, kind: Kind) -> Result<Reply, Status> {
    let mut asked = call.asked(false, |_| {}).await?;
    let errors = review::validate(kind, At::root(&asked.object));
    if !errors.is_empty() {
        let about = About {
            group: &call.target.resource.group,
            kind: "",
            name: "",
        };
        return Err(Status::invalid(about, &errors));
    }
    if matches!(kind, Kind::Local) && call.target.namespace().is_empty() {
        return Err(Status::bad_request("namespace is required on this type: "));
    }
    call.admit(&asked)?;
    let spec = asked.object.at("spec");
    let user = match kind {
        Kind::Own => User::clone(&call.target.user),
        _ => review::subject(spec),
    };
    let authorizer = &call.server.authorizer;
    let (decision, complaints) = review::ask(spec, |wants| authorizer.authorize(&user, wants));
    let mut status = Object::new();
    status.insert("allowed", matches!(decision, Decision::Allow(_)));
    if matches!(decision, Decision::Deny(_)) {
        status.insert("denied", true);
    }
    let (Decision::Allow(reason) | Decision::NoOpinion(reason) | Decision::Deny(reason)) = decision;
    for (key, text) in [("reason", reason), ("evaluationError", complaints)] {
        if !text.is_empty() {
            status.insert(key, text);
        }
    }
    asked.object.set("status", status);
    Ok(Reply::Other(201, asked.answer()))
}

/// Handles a SelfSubjectRulesReview.
pub(super) fn own_rules(mut call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let mut asked = call.asked(false, |_| {}).await?;
        let namespace = asked.object.at("spec").str("namespace").to_owned();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        call.admit(&asked)?;
        let rules = call.server.authorizer.rules(&call.target.user, &namespace);
        let object = asked.object.object_mut();
        object.insert("metadata", Object::new());
        object.insert("spec", Object::new());
        object.insert("status", rules_status(&rules));
        Ok(Reply::Other(201, asked.answer()))
    }
    .boxed()
}

fn rules_status(rules: &Rules) -> Value {
    let (mut resources, mut urls) = (Vec::new(), Vec::new());
    for rule in &rules.rules {
        let whole = rule.to_value();
        let part = |keys: &[&str]| -> Value {
            let members: Object = keys
                .iter()
                .filter_map(|key| Some((*key, whole.get(key)?)))
                .collect();
            Value::Object(members)
        };
        if !rule.resources.is_empty() {
            resources.push(part(&["verbs", "apiGroups", "resources", "resourceNames"]));
        }
        if !rule.urls.is_empty() {
            urls.push(part(&["verbs", "nonResourceURLs"]));
        }
    }
    let mut status = Object::new();
    status.insert("resourceRules", resources);
    status.insert("nonResourceRules", urls);
    status.insert("incomplete", rules.incomplete);
    if !rules.error.is_empty() {
        status.insert("evaluationError", rules.error.as_str());
    }
    Value::Object(status)
}

/// Handles a SelfSubjectReview.
pub(super) fn own_identity(mut call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let mut asked = call.asked(false, |_| {}).await?;
        call.admit(&asked)?;
        let object = asked.object.object_mut();
        object.insert(
            "metadata",
            crate::value!({"creationTimestamp": (time::print(call.target.now))}),
        );
        object.insert(
            "status",
            crate::value!({"userInfo": (review::user_info(&call.target.user))}),
        );
        Ok(Reply::Other(201, asked.answer()))
    }
    .boxed()
}
