//! CustomResourceDefinitions. Follows k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition and
//! pkg/apis/apiextensions.

mod default;
mod fieldpath;
mod lifted;
mod schema;
mod spec;
mod structural;
#[cfg(test)]
mod tests;

use crate::meta::time;
use crate::resources::custom::{condition, conditions, storage_version};
use crate::resources::{Cx, Deletion, Generation, Printing, Rules, StatusRules};
use crate::schema::Value;

/// The rules of definitions.
pub(super) const RULES: Rules = Rules {
    repeats_causes: true,
    defaults,
    prepare_create: |object, _| {
        let storage = storage_version(object).map(str::to_owned);
        let status = object.object_mut().object_mut("status");
        *status = crate::schema::Object::new();
        if let Some(storage) = storage {
            status.insert("storedVersions", vec![Value::from(storage)]);
        }
    },
    prepare_update: |new, _, _| {
        let Some(storage) = storage_version(new).map(str::to_owned) else {
            return;
        };
        let stored = new
            .object_mut()
            .object_mut("status")
            .array_mut("storedVersions");
        if !stored.iter().any(|name| name.as_str() == Some(&storage)) {
            stored.push(storage.into());
        }
    },
    deletion: Deletion {
        prepare: prepare_delete,
        returns_object: true,
        precondition_failed: Some("precondition failed"),
        ..Deletion::DEFAULT
    },
    validate: spec::validate,
    status: StatusRules::validated_by(spec::validate_status),
    warnings,
    printing: Printing::of(cells),
    generation: Generation::Spec,
    unconditional_update: false,
    internal: "apiextensions.CustomResourceDefinition",
    ..Rules::DEFAULT
};

fn defaults(object: &mut Value, _: &Cx<'_>) {
    let storage = storage_version(object).map(str::to_owned);
    let spec = object.object_mut().object_mut("spec");
    let names = spec.object_mut("names");
    let kind = names
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let absent = |value: Option<&Value>| value.is_none_or(Value::is_empty);
    if absent(names.get("singular")) {
        names.insert("singular", kind.to_lowercase());
    }
    if absent(names.get("listKind")) && !kind.is_empty() {
        names.insert("listKind", format!("{kind}List"));
    }
    spec.set_default("conversion", crate::value!({"strategy": "None"}));
    // The internal type has no `webhook` if it would be empty.
    let conversion = spec.object_mut("conversion");
    let says = |webhook: &Value| {
        let versions = webhook.list("conversionReviewVersions");
        !versions.is_empty() || webhook.get("clientConfig").is_some()
    };
    if conversion
        .get("webhook")
        .is_some_and(|webhook| !says(webhook))
    {
        conversion.remove("webhook");
    }
    if let Some(service) = spec
        .get_mut("conversion")
        .and_then(|conversion| conversion.get_mut("webhook"))
        .and_then(|webhook| webhook.get_mut("clientConfig"))
        .and_then(|config| config.get_mut("service"))
        .and_then(Value::as_object_mut)
    {
        service.set_default("port", 443i64);
    }
    let stored = object
        .object_mut()
        .object_mut("status")
        .array_mut("storedVersions");
    if let Some(storage) = storage.filter(|_| stored.is_empty()) {
        stored.push(storage.into());
    }
}

/// The first deletion marks the definition, which is removed when its instances are gone. Generation and grace period
/// are not set.
fn prepare_delete(object: &mut Value, cx: &Cx<'_>) {
    if condition(object, "Terminating").is_empty() {
        conditions::begin_ending(object, &time::print(cx.now));
        let generation = object.at("metadata").int("generation");
        let meta = object.object_mut().object_mut("metadata");
        meta.remove("deletionGracePeriodSeconds");
        meta.insert("generation", generation - 1);
    }
}

fn warnings(new: &Value, old: Option<&Value>, _: &Cx<'_>) -> Vec<String> {
    let (mut formats, mut sets) = schema::warnings(new.at("spec"));
    if let Some(old) = old {
        let (old_formats, old_sets) = schema::warnings(old.at("spec"));
        formats.retain(|told| !old_formats.contains(told));
        sets.retain(|told| !old_sets.contains(told));
    }
    formats.append(&mut sets);
    formats
}

fn cells(object: &Value, _: i64) -> Vec<Value> {
    let spec = object.at("spec");
    let mut versions: Vec<String> = spec
        .list("versions")
        .iter()
        .filter(|version| version.bool("served"))
        .map(|version| {
            let storage = if version.bool("storage") {
                "(storage)"
            } else {
                ""
            };
            format!("{}{storage}", version.str("name"))
        })
        .collect();
    versions.sort();
    let names = spec.at("names");
    let short: Vec<&str> = names
        .list("shortNames")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![
        object.at("metadata").str("name").into(),
        spec.str("scope").into(),
        versions.join(",").into(),
        object.at("metadata").str("creationTimestamp").into(),
        spec.str("group").into(),
        names.str("kind").into(),
        short.join(",").into(),
        (condition(object, "Established") == "True").into(),
    ]
}
