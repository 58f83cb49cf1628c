//! Kinds of the group `node.k8s.io`. Follows k8s.io/kubernetes/pkg/registry/node/runtimeclass/strategy.go and
//! pkg/apis/node.

use std::collections::BTreeSet;

use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::validate::{Before, class_overhead, tolerations};
use crate::resources::groups::core::pods::warnings::old_label;
use crate::resources::{Printing, Rules, metadata};
use crate::schema::Value;

#[cfg(test)]
mod tests;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "runtimeclasses" => RUNTIME_CLASSES,
        _ => Rules::DEFAULT,
    }
}

const RUNTIME_CLASSES: Rules = Rules {
    validate: |class, old, cx, errors| {
        metadata::again(class, old, cx, errors);
        let handler = class.field("handler");
        let before = old.map(|old| old.value.at("handler"));
        let changed = before.is_some_and(|old| old != handler.value);
        if changed {
            handler.checked_if_said(names::dns1123_label, errors);
        }
        let overhead = class.field("overhead");
        class_overhead(
            At {
                value: overhead.value.at("podFixed"),
                path: overhead.path,
            },
            errors,
        );
        let scheduling = class.field("scheduling");
        self::scheduling(scheduling, errors);
        // Upstream reports declarative validation last; for a changed handler only that it is immutable or missing.
        if changed {
            errors.invalid(handler.path, Value::Null, "field is immutable");
        }
        if handler.required("", errors) && !changed {
            handler.checked(names::short_name, errors);
        }
    },
    warnings: |class, _, _| {
        let scheduling = class.at("scheduling");
        scheduling
            .entries("nodeSelector")
            .filter_map(|(key, _)| old_label(key))
            .map(|why| format!("scheduling.nodeSelector: {why}"))
            .collect()
    },
    printing: Printing::of(|class, now| {
        vec![
            class.at("metadata").str("name").into(),
            class.str("handler").into(),
            table::age(class, now),
        ]
    }),
    create_on_update: true,
    unconditional_update: false,
    internal: "node.RuntimeClass",
    ..Rules::DEFAULT
};

fn scheduling(scheduling: At<'_>, errors: &mut Errors) {
    scheduling.field("nodeSelector").labels(errors);
    let list = scheduling.field("tolerations");
    tolerations(list, Before::default(), errors);
    let mut known = BTreeSet::new();
    for toleration in list.items() {
        let key = ["key", "operator", "value", "effect"].map(|field| toleration.value.str(field));
        if !known.insert(key) {
            toleration.duplicate_dump("core.Toleration", errors);
        }
    }
}
