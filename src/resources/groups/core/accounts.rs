//! Service accounts. Follows k8s.io/kubernetes/pkg/registry/core/serviceaccount/strategy.go.

use crate::meta::table;
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Deletion, Printing, Rules, metadata};
use crate::schema::Value;

const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// The rules of service accounts.
pub(super) const RULES: Rules = Rules {
    prepare_create: |object, _| only_names(object),
    prepare_update: |new, _, _| only_names(new),
    validate: |account, old, cx, errors| metadata::again(account, old, cx, errors),
    warnings: |object, old, _| {
        let has = |object: &Value| {
            let annotations = object.at("metadata").at("annotations");
            annotations.get(MOUNTABLE).is_some()
        };
        if has(object) && !old.is_some_and(has) {
            vec![format!(
                "metadata.annotations[{MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
            )]
        } else {
            Vec::new()
        }
    },
    printing: Printing::of(|object, now| {
        vec![
            object.at("metadata").str("name").into(),
            table::age(object, now),
        ]
    }),
    deletion: Deletion::RETURNS_OBJECT,
    keyless_items: true,
    internal: "core.ServiceAccount",
    ..Rules::DEFAULT
};

/// Drops everything but the names of secrets.
fn only_names(object: &mut Value) {
    for secret in defaults::items(object, "secrets") {
        secret.object_mut().retain(|key, _| key == "name");
    }
}
