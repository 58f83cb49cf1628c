//! The initial objects of a cluster: namespaces, roles and bindings, flow control, priority classes, the API's own
//! services. `documents/bootstrap.jsonl` was read from a fresh upstream server: one object per line, with its field
//! manager, without fields filled in by the server. Follows k8s.io/kubernetes
//! plugin/pkg/auth/authorizer/rbac/bootstrappolicy and k8s.io/component-helpers/auth/rbac/reconciliation.

use std::sync::LazyLock;

use super::rbac::{Rule, missing};
use crate::schema::{Key, Object, Value, json};

/// An initial object of a cluster.
#[derive(Debug)]
pub struct Bootstrap {
    /// The field manager that writes it.
    pub manager: Key,
    /// The object, without fields filled in by the server.
    pub object: Value,
}

/// The initial objects in order of creation: namespaces before their content.
pub fn objects() -> &'static [Bootstrap] {
    static OBJECTS: LazyLock<Vec<Bootstrap>> = LazyLock::new(|| {
        let read = |line: &str| {
            let line = json::parse(line.as_bytes()).ok()?.value;
            Some(Bootstrap {
                manager: line.str("manager").into(),
                object: line.at("object").clone(),
            })
        };
        include_str!("documents/bootstrap.jsonl")
            .lines()
            .filter_map(read)
            .collect()
    });
    &OBJECTS
}

/// The rules of every node, for requests that the node authorizer does not check individually.
pub(super) fn node_rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        objects()
            .iter()
            .map(|bootstrap| &bootstrap.object)
            .find(|object| {
                object.str("kind") == "ClusterRole"
                    && object.at("metadata").str("name") == "system:node"
            })
            .map(Rule::all)
            .unwrap_or_default()
    });
    &RULES
}

/// How to reconcile an initial object that exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconcile {
    /// Nothing is missing, or reconciliation is disabled for it.
    Nothing,
    /// Replace the existing object by this one.
    Update(Value),
    /// Delete and create it again, because the difference is in immutable fields.
    Recreate(Value),
}

/// Compares an existing role or binding with the expected one. Additions by others stay. Does nothing if the annotation
/// `rbac.authorization.kubernetes.io/autoupdate` is `"false"`, nor for other kinds.
pub fn reconcile(existing: &Value, expected: &Value) -> Reconcile {
    let kind = existing.str("kind");
    let annotations = existing.at("metadata").at("annotations");
    if !matches!(
        kind,
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding"
    ) || annotations.str("rbac.authorization.kubernetes.io/autoupdate") == "false"
    {
        return Reconcile::Nothing;
    }
    let mut result = existing.clone();
    for key in ["annotations", "labels"] {
        for (name, value) in expected.at("metadata").entries(key) {
            let meta = result.object_mut().object_mut("metadata");
            meta.object_mut(key).set_default(name, value);
        }
    }
    if kind.ends_with("Role") {
        add_rules(&mut result, existing, expected);
        return changed(existing, result);
    }
    add(&mut result, "subjects", expected.list("subjects"));
    if existing.at("roleRef") != expected.at("roleRef") {
        result.set("roleRef", expected.at("roleRef"));
        let kept = ["name", "namespace", "labels", "annotations"];
        let meta: Object = result
            .entries("metadata")
            .filter(|(key, _)| kept.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        result.set("metadata", meta);
        return Reconcile::Recreate(result);
    }
    changed(existing, result)
}

fn changed(existing: &Value, result: Value) -> Reconcile {
    if result == *existing {
        Reconcile::Nothing
    } else {
        Reconcile::Update(result)
    }
}

fn add_rules(result: &mut Value, existing: &Value, expected: &Value) {
    let missing = missing(&Rule::all(existing), &Rule::all(expected));
    let rules = result.object_mut().entry("rules", || Vec::new().into());
    if let Some(rules) = rules.as_array_mut() {
        rules.extend(missing.iter().map(Rule::to_value));
    }
    if existing.list("rules").is_empty() && missing.is_empty() {
        result.set("rules", existing.at("rules"));
    }
    match expected.get("aggregationRule") {
        None => {
            result.remove("aggregationRule");
        }
        Some(expected) => {
            let mut rule = existing.at("aggregationRule").clone();
            add(
                &mut rule,
                "clusterRoleSelectors",
                expected.list("clusterRoleSelectors"),
            );
            result.set("aggregationRule", rule);
        }
    }
}

/// Adds the items of `wanted` missing in the list `key`.
fn add(object: &mut Value, key: &str, wanted: &[Value]) {
    let missing: Vec<Value> = wanted
        .iter()
        .filter(|item| !object.list(key).contains(item))
        .cloned()
        .collect();
    if !missing.is_empty() {
        object.object_mut().array_mut(key).extend(missing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    fn find(kind: &str, name: &str) -> Value {
        objects()
            .iter()
            .map(|bootstrap| &bootstrap.object)
            .find(|object| object.str("kind") == kind && object.at("metadata").str("name") == name)
            .unwrap()
            .clone()
    }

    #[test]
    fn a_new_cluster_has_what_upstream_makes() {
        let mut counts = std::collections::BTreeMap::new();
        for bootstrap in objects() {
            *counts.entry(bootstrap.object.str("kind")).or_insert(0) += 1;
            assert!(!bootstrap.manager.is_empty());
        }
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [
                ("APIService", 22),
                ("ClusterRole", 73),
                ("ClusterRoleBinding", 54),
                ("FlowSchema", 11),
                ("Namespace", 4),
                ("PriorityClass", 2),
                ("PriorityLevelConfiguration", 8),
                ("Role", 7),
                ("RoleBinding", 7),
            ]
        );
        assert!(node_rules().len() > 20);
    }

    #[test]
    fn what_others_added_stays_and_what_is_missing_comes_back() {
        for bootstrap in objects() {
            let object = &bootstrap.object;
            assert_eq!(reconcile(object, object), Reconcile::Nothing, "{object:?}");
        }
        let expected = find("ClusterRole", "system:basic-user");
        let mut existing = expected.clone();
        let own = value!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        existing.set("rules", vec![own.clone()]);
        existing
            .object_mut()
            .object_mut("metadata")
            .remove("labels");
        let Reconcile::Update(updated) = reconcile(&existing, &expected) else {
            panic!("rules are missing");
        };
        assert_eq!(updated.at("metadata"), expected.at("metadata"));
        assert_eq!(updated.list("rules")[0], own);
        assert_eq!(missing(&Rule::all(&updated), &Rule::all(&expected)), []);
        assert_eq!(reconcile(&updated, &expected), Reconcile::Nothing);

        existing.object_mut().object_mut("metadata").insert(
            "annotations",
            value!({"rbac.authorization.kubernetes.io/autoupdate": "false"}),
        );
        assert_eq!(reconcile(&existing, &expected), Reconcile::Nothing);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew_with_the_subjects_of_both() {
        let expected = find("ClusterRoleBinding", "cluster-admin");
        let mut existing = expected.clone();
        let jane =
            value!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"});
        existing.set("subjects", vec![jane.clone()]);
        existing
            .object_mut()
            .object_mut("metadata")
            .insert("uid", "u");
        let Reconcile::Update(updated) = reconcile(&existing, &expected) else {
            panic!("a subject is missing");
        };
        assert_eq!(updated.list("subjects").len(), 2);
        assert_eq!(updated.at("metadata").str("uid"), "u");
        existing
            .object_mut()
            .object_mut("roleRef")
            .insert("name", "other");
        let Reconcile::Recreate(made) = reconcile(&existing, &expected) else {
            panic!("the role differs");
        };
        assert_eq!(made.at("roleRef"), expected.at("roleRef"));
        assert_eq!(made.list("subjects")[0], jane);
        assert!(made.at("metadata").get("uid").is_none());
    }
}
