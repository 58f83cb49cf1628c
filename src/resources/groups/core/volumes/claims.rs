//! Persistent volume claims. Follows k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/strategy.go,
//! pkg/apis/core/validation and pkg/api/persistentvolumeclaim.

use super::{CLASS_ANNOTATION, basic_quantity, class, shown_modes};
use crate::meta::quantity::Quantity;
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::validate::claim_spec;
use crate::resources::groups::core::pods::{defaults, warnings};
use crate::resources::{Deletion, Printing, Rules, StatusRules, metadata};
use crate::schema::semantic::same_as;
use crate::schema::{Object, Value, internal};
use crate::value;

/// The rules of persistent volume claims.
pub(in crate::resources::groups::core) const RULES: Rules = Rules {
    defaults: |object, _| {
        let status = object.object_mut().entry("status", || Object::new().into());
        defaults::text(status, "phase", "Pending");
        for list in ["capacity", "allocatedResources"] {
            if let Some(list) = status.get_mut(list) {
                defaults::round_up(list);
            }
        }
        let spec = object.object_mut().entry("spec", || Object::new().into());
        defaults::claim_spec(spec);
    },
    prepare_create: |object, _| {
        object.set("status", value!({"phase": "Pending"}));
        data_sources(object, None);
    },
    // Its phase.
    completed_by_reading: |_| true,
    prepare_update: |new, old, _| data_sources(new, Some(old)),
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let before = old.map(|old| old.value.at("spec"));
        claim_spec(object.field("spec"), before, errors);
        if let Some(old) = old {
            update(object, old.value, errors);
        }
    },
    status: StatusRules {
        // Volume health is a disabled feature: kept only if the old object has it.
        prepare: |new, old, _| {
            if old.at("status").get("healthStatus").is_none()
                && let Some(status) = new.get_mut("status")
            {
                status.remove("healthStatus");
            }
        },
        validate: |object, _, _, errors| status(object, errors),
        ..StatusRules::DEFAULT
    },
    warnings: |object, _, _| told(object),
    printing: Printing::of(cells),
    deletion: Deletion::RETURNS_OBJECT,
    internal: "core.PersistentVolumeClaim",
    ..Rules::DEFAULT
};

/// Makes dataSource and dataSourceRef agree, and drops kinds that dataSource does not support.
fn data_sources(object: &mut Value, old: Option<&Value>) {
    let before = old.map(|old| old.at("spec"));
    let had = |key: &str| before.is_some_and(|before| before.get(key).is_some());
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    // References to other namespaces are a disabled feature.
    let elsewhere = !spec.at("dataSourceRef").str("namespace").is_empty();
    if elsewhere && !had("dataSourceRef") {
        spec.remove("dataSourceRef");
    }
    let reference = spec.get("dataSourceRef").cloned();
    let source = spec.get("dataSource").cloned();
    match (source, reference) {
        (Some(source), None) => {
            let known = matches!(
                (source.str("apiGroup"), source.str("kind")),
                ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
            );
            if known || had("dataSource") || had("dataSourceRef") {
                spec.set("dataSourceRef", source);
            } else {
                spec.remove("dataSource");
            }
        }
        (None, Some(mut reference)) if reference.str("namespace").is_empty() => {
            reference.remove("namespace");
            spec.set("dataSource", reference);
        }
        _ => {}
    }
}

fn update(object: At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, before) = (object.field("spec"), old.at("spec"));
    let bound = object.value.at("status").str("phase") == "Bound";
    let (mut now, mut was) = (spec.value.clone(), before.clone());
    if was.str("volumeName").is_empty() {
        was.set("volumeName", now.at("volumeName"));
    }
    storage_class(object, old, &mut now, errors);
    let requests = now
        .get_mut("resources")
        .and_then(|resources| resources.get_mut("requests"))
        .filter(|_| bound);
    if let Some(requests) = requests {
        requests.set(
            "storage",
            before.path(&["resources", "requests", "storage"]),
        );
    }
    if bound {
        now.set(
            "volumeAttributesClassName",
            was.at("volumeAttributesClassName"),
        );
    }
    for side in [&mut now, &mut was] {
        side.object_mut().retain(|_, value| !value.is_null());
    }
    if !same_as("core.PersistentVolumeClaimSpec", &now, &was) {
        let diff = internal::diff(&was, &now, "core.PersistentVolumeClaimSpec");
        errors.forbidden(spec.path, format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"));
    }
    let amount = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        Quantity::parse(text).unwrap_or_default()
    };
    let size = |spec: &Value| amount(spec.path(&["resources", "requests", "storage"]));
    let held = amount(old.path(&["status", "capacity", "storage"]));
    if size(spec.value) < size(before) && size(spec.value) <= held {
        let path = spec.path.field("resources.requests.storage");
        errors.forbidden(path, "field can not be less than status.capacity");
    }
    let mode = spec.field("volumeMode");
    if mode.value != before.at("volumeMode") {
        let path = object.path.field("volumeMode");
        errors.invalid(path, mode.value, "field is immutable");
    }
    let class = spec.field("volumeAttributesClassName");
    let current = old.at("status").get("currentVolumeAttributesClassName");
    if class.value != before.at("volumeAttributesClassName") && current.is_some() {
        let to = match class.value.as_str() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        errors.forbidden(class.path, format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"));
    }
}

/// The field may be set once: to the value of the annotation, or if neither was set.
fn storage_class(object: At<'_>, old: &Value, now: &mut Value, errors: &mut Errors) {
    let annotation = |object: &Value| -> Option<String> {
        let annotations = object.at("metadata").at("annotations");
        annotations.at(CLASS_ANNOTATION).as_str().map(str::to_owned)
    };
    let (said, before) = (annotation(object.value), annotation(old));
    let class = object.value.at("spec").at("storageClassName").as_str();
    let had = old.at("spec").at("storageClassName").as_str();
    let moves = had.is_none()
        && before.is_some()
        && class == before.as_deref()
        && (said.is_none() || said == before);
    if moves {
        now.remove("storageClassName");
        return;
    }
    if said.as_deref().unwrap_or_default() != before.as_deref().unwrap_or_default() {
        let meta = object.field("metadata");
        let annotations = meta.field("annotations");
        errors.invalid(
            annotations.path.field(CLASS_ANNOTATION),
            said.unwrap_or_default(),
            "field is immutable",
        );
    }
    if had.is_none() && class.is_some() && (before.is_none() || class == before.as_deref()) {
        now.remove("storageClassName");
    }
}

fn status(object: At<'_>, errors: &mut Errors) {
    const STATUSES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    if object.value.at("spec").list("accessModes").is_empty() {
        errors.required(object.path.field("Spec.accessModes"), "");
    }
    let status = object.field("status");
    for (_, amount) in status.field("capacity").entries() {
        basic_quantity(amount, errors);
    }
    let statuses = status.field("allocatedResourceStatuses");
    for (key, state) in statuses.entries() {
        resource_key(key, statuses, errors);
        if !STATUSES.contains(&state.str()) {
            errors.not_supported(statuses.path, key, &STATUSES);
        }
    }
    let allocated = status.field("allocatedResources");
    for (key, amount) in allocated.entries() {
        if resource_key(key, allocated, errors) {
            if amount.quantity().is_some_and(|amount| amount.value() < 0) {
                basic_quantity(amount, errors);
            } else {
                amount.non_negative_quantity(errors);
            }
        }
    }
}

/// validatePersistentVolumeClaimResourceKey: `storage`, or a resource of another domain. Returns whether it is valid.
fn resource_key(key: &str, at: At<'_>, errors: &mut Errors) -> bool {
    let wrong = names::qualified_name(key);
    if wrong.is_empty() {
        let native = !key.contains('/') || key.contains("kubernetes.io/");
        if native && key != "storage" {
            errors.not_supported(at.path, key, &["storage"]);
            return false;
        }
        return true;
    }
    for wrong in wrong {
        errors.invalid(at.path, key, wrong);
    }
    false
}

fn told(object: &Value) -> Vec<String> {
    let mut told = Vec::new();
    let annotations = object.at("metadata").at("annotations");
    if annotations.get(CLASS_ANNOTATION).is_some() {
        told.push(format!("metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    told.extend(warnings::claim_spec(At::root(object).field("spec")));
    told
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (meta, spec, status) = (
        object.at("metadata"),
        object.at("spec"),
        object.at("status"),
    );
    let phase = if meta.get("deletionTimestamp").is_some() {
        "Terminating"
    } else {
        status.str("phase")
    };
    let bound = !spec.str("volumeName").is_empty();
    let (capacity, modes) = if bound {
        let capacity = status.at("capacity").at("storage").as_str();
        (
            capacity.unwrap_or("0"),
            shown_modes(status.list("accessModes")),
        )
    } else {
        ("", String::new())
    };
    let or_unset = |key: &str| Value::from(spec.at(key).as_str().unwrap_or("<unset>"));
    vec![
        meta.str("name").into(),
        phase.into(),
        spec.str("volumeName").into(),
        capacity.into(),
        modes.into(),
        class(object).into(),
        or_unset("volumeAttributesClassName"),
        table::age(object, now),
        or_unset("volumeMode"),
    ]
}
