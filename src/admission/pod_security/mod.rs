//! PodSecurity: restricts the privileges of pods by labels of their namespace.
//! Follows k8s.io/pod-security-admission.

mod checks;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use std::collections::BTreeMap;

use self::checks::Pod;
use self::policy::{Level, LevelVersion, Policy};
use super::{Attributes, Operation, Plugin};
use crate::meta::status::About;
use crate::meta::{Errors, Status};
use crate::schema::Value;

/// The plugin.
pub struct PodSecurity;

/// Subresources of pods whose requests do not affect these checks.
const IGNORED: [&str; 8] = [
    "exec",
    "attach",
    "binding",
    "eviction",
    "log",
    "portforward",
    "proxy",
    "status",
];
/// How many pods of a namespace are checked when its level is raised.
const MOST_PODS: usize = 3000;

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        match (&*request.resource.group, &*request.resource.plural) {
            ("", "namespaces") => judge_namespace(request),
            ("", "pods") => judge_pod(request),
            ("", "podtemplates") => judge_template(request, &["template"]),
            ("", "replicationcontrollers")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs") => judge_template(request, &["spec", "template"]),
            ("batch", "cronjobs") => {
                judge_template(request, &["spec", "jobTemplate", "spec", "template"])
            }
            _ => Ok(()),
        }
    }
}

fn labels(object: &Value) -> &Value {
    object.at("metadata").at("labels")
}

fn judge_namespace(request: &mut Attributes<'_>) -> Result<(), Status> {
    if !request.subresource.is_empty() {
        return Ok(());
    }
    let mut errors = Errors::default();
    let policy = Policy::read(labels(&request.object), &mut errors);
    let mut old_errors = Errors::default();
    let old = request
        .old
        .map(|old| Policy::read(labels(old), &mut old_errors));
    // Errors that existed before are tolerated.
    if !errors.is_empty() && errors.0 != old_errors.0 {
        let about = About {
            group: "",
            kind: "Namespace",
            name: request.name,
        };
        return Err(Status::invalid(about, &errors));
    }
    let Some(old) = old.filter(|_| request.operation == Operation::Update) else {
        return Ok(());
    };
    let tightened = policy.enforce != old.enforce
        && policy.enforce.level != Level::Privileged
        && (policy.enforce.version != old.enforce.version
            || policy.enforce.level > old.enforce.level);
    if tightened {
        let pods = request.cluster.list("", "pods", request.name);
        let warnings = warn_of_pods(request.name, &pods, policy.enforce);
        request.warnings.extend(warnings);
    }
    Ok(())
}

/// Warnings about existing pods when the level of their namespace is raised: one pod for each kind of violation.
fn warn_of_pods(
    namespace: &str,
    pods: &[impl std::borrow::Borrow<Value>],
    enforce: LevelVersion,
) -> Vec<String> {
    // First one pod of each controller: its other pods are most likely alike.
    let mut seen = HashSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for pod in pods.iter().map(std::borrow::Borrow::borrow) {
        let owners = pod.at("metadata").list("ownerReferences");
        match owners.iter().find(|owner| owner.bool("controller")) {
            Some(owner) if !seen.insert(owner.str("uid")) => rest.push(pod),
            _ => first.push(pod),
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > MOST_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {} existing pods",
            pods.len()
        ));
    }
    let mut breaches: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in first.into_iter().chain(rest).take(MOST_PODS) {
        let found = checks::judge(enforce, Pod::of(pod));
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(|breach| breach.reason.as_str()).collect();
        let name = pod.at("metadata").str("name");
        let (least, count) = breaches.entry(reasons.join(", ")).or_insert((name, 0));
        *least = (*least).min(name);
        *count += 1;
    }
    if breaches.is_empty() {
        return warnings;
    }
    warnings.push(format!(
        "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
    ));
    let mut told: Vec<String> = breaches
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    told.sort();
    warnings.extend(told);
    warnings
}

/// The policy of the request's namespace; `None` if the namespace does not exist.
fn namespace_policy(request: &Attributes<'_>) -> Option<Policy> {
    let namespace = request
        .cluster
        .get("", "namespaces", "", request.namespace)?;
    Some(Policy::read(labels(&namespace), &mut Errors::default()))
}

fn judge_pod(request: &mut Attributes<'_>) -> Result<(), Status> {
    if IGNORED.contains(&request.subresource) {
        return Ok(());
    }
    let Some(policy) = namespace_policy(request) else {
        let why = format!("failed to lookup namespace \"{}\"", request.namespace);
        return Err(Status::internal(&why));
    };
    if request
        .old
        .is_some_and(|old| !matters(request.object.at("spec"), old.at("spec")))
    {
        return Ok(());
    }
    let pod = Pod::of(&request.object);
    let enforced = checks::judge(policy.enforce, pod);
    if !enforced.is_empty() {
        let why = format!(
            "violates PodSecurity \"{}\": {}",
            policy.enforce,
            checks::told(&enforced)
        );
        let about = About {
            group: "",
            kind: "pods",
            name: request.name,
        };
        return Err(Status::forbidden(about, &why));
    }
    let warnings = warning(policy.warn, pod);
    request.warnings.extend(warnings);
    Ok(())
}

fn judge_template(request: &mut Attributes<'_>, path: &[&str]) -> Result<(), Status> {
    if !request.subresource.is_empty() {
        return Ok(());
    }
    let template = request.object.path(path);
    if template.is_null() {
        return Ok(());
    }
    if let Some(policy) = namespace_policy(request) {
        let warnings = warning(policy.warn, Pod::of(template));
        request.warnings.extend(warnings);
    }
    Ok(())
}

fn warning(level: LevelVersion, pod: Pod<'_>) -> Option<String> {
    let found = checks::judge(level, pod);
    (!found.is_empty()).then(|| {
        format!(
            "would violate PodSecurity \"{level}\": {}",
            checks::told(&found)
        )
    })
}

/// Whether an update of a pod changes what is checked.
fn matters(new: &Value, old: &Value) -> bool {
    let images = |spec: &Value, list: &str| -> Vec<String> {
        let containers = spec.list(list).iter();
        containers
            .map(|container| container.str("image").to_owned())
            .collect()
    };
    ["containers", "initContainers"]
        .iter()
        .any(|list| images(new, list) != images(old, list))
        || new.list("ephemeralContainers").iter().any(|container| {
            !old.list("ephemeralContainers").iter().any(|before| {
                before.str("name") == container.str("name")
                    && before.str("image") == container.str("image")
            })
        })
}
