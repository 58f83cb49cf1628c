//! What a node may change in its own node object.

use std::collections::BTreeSet;

use super::super::{Attributes, Operation};
use super::{Verdict, refuse};
use crate::schema::{Object, Value};

/// Labels under kubernetes.io and k8s.io that a node may set on itself.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

pub(super) fn own_node(node: &str, request: &Attributes<'_>) -> Verdict {
    let named = request.object.at("metadata").str("name");
    let name = match request.name {
        "" => named,
        name => name,
    };
    if name != node {
        return refuse(format!(
            "node {node:?} is not allowed to modify node {name:?}"
        ));
    }
    let source = |object: &Value| object.at("spec").at("configSource").clone();
    match (request.operation, request.old) {
        (Operation::Create, _) => {
            if !source(&request.object).is_null() {
                return refuse(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(&request.object, &Value::Null);
            if forbidden.is_empty() {
                return Ok(());
            }
            refuse(format!(
                "node {node:?} is not allowed to set the following labels: {}",
                forbidden.join(", ")
            ))
        }
        (Operation::Update, Some(old)) => {
            let new = &request.object;
            if !source(new).is_null() && source(new) != source(old) {
                return refuse(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            let taints = |node: &Value| node.at("spec").list("taints").to_vec();
            let owners = |node: &Value| node.at("metadata").list("ownerReferences").to_vec();
            if taints(new) != taints(old) {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
            if owners(new) != owners(old) {
                return refuse(format!(
                    "node {node:?} is not allowed to modify ownerReferences"
                ));
            }
            let forbidden = forbidden_labels(new, old);
            if forbidden.is_empty() {
                return Ok(());
            }
            refuse(format!(
                "is not allowed to modify labels: {}",
                forbidden.join(", ")
            ))
        }
        _ => Ok(()),
    }
}

/// Changed labels that a node may not set, sorted.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let labels = |object: &Value| -> Object {
        let labels = object.at("metadata").at("labels").as_object();
        labels.cloned().unwrap_or_default()
    };
    let (new, old) = (labels(new), labels(old));
    let changed: BTreeSet<&str> = new
        .iter()
        .chain(old.iter())
        .filter(|(key, _)| new.get(key.as_str()) != old.get(key.as_str()))
        .map(|(key, _)| key.as_str())
        .collect();
    changed
        .into_iter()
        .filter(|label| !may_be_set(label))
        .map(str::to_owned)
        .collect()
}

fn may_be_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else {
        return true;
    };
    let within = |suffix: &str| {
        let front = domain.strip_suffix(suffix);
        front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_labels_itself_with_what_describes_it_only() {
        for (label, may) in [
            ("a", true),
            ("example.com/a", true),
            ("kubernetes.io/hostname", true),
            ("kubelet.kubernetes.io/a", true),
            ("sub.node.kubernetes.io/a", true),
            ("node-role.kubernetes.io/worker", false),
            ("node-restriction.kubernetes.io/a", false),
            ("x.node-restriction.kubernetes.io/a", false),
            ("k8s.io/a", false),
            ("notk8s.io/a", true),
        ] {
            assert_eq!(may_be_set(label), may, "{label}");
        }
    }
}
