//! Namespaces. Follows k8s.io/kubernetes/pkg/registry/core/namespace and pkg/apis/core/validation.

use crate::meta::{At, Errors, names, table};
use crate::resources::{
    Deletion, Naming, Printing, Rules, Selectable, Selection, SelectorError, StatusRules, metadata,
};
use crate::schema::Value;
use crate::value;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that the namespace controller removes.
const FINALIZER: &str = "kubernetes";

/// The rules of namespaces.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        if !object.at("metadata").str("name").is_empty() {
            name_label(object);
        }
        let status = object.object_mut().object_mut("status");
        if status
            .get("phase")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .is_empty()
        {
            status.insert("phase", "Active");
        }
    },
    prepare_create: |object, _| {
        object.set("status", value!({"phase": "Active"}));
        let spec = object.object_mut().object_mut("spec");
        let finalizers = spec.array_mut("finalizers");
        if !finalizers
            .iter()
            .any(|name| name.as_str() == Some(FINALIZER))
        {
            finalizers.push(FINALIZER.into());
        }
        name_label(object);
    },
    prepare_update: |new, old, _| {
        let finalizers = old.at("spec").at("finalizers");
        new.object_mut()
            .object_mut("spec")
            .insert("finalizers", finalizers);
        name_label(new);
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let spec = object.field("spec");
        let finalizers = spec.field("finalizers");
        for name in finalizers.list() {
            let name = At {
                value: name,
                path: finalizers.path,
            };
            finalizer(name, errors);
        }
    },
    status: StatusRules {
        prepare: |new, old, cx| {
            if cx.subresource == "finalize" {
                match old.get("status") {
                    Some(status) => new.set("status", status),
                    None => drop(new.remove("status")),
                }
            }
            name_label(new);
        },
        validate: |object, _, cx, errors| {
            if cx.subresource == "finalize" {
                let spec = object.field("spec");
                spec.field("finalizers")
                    .items()
                    .for_each(|name| finalizer(name, errors));
            } else {
                phase(object, errors);
            }
        },
        ..StatusRules::DEFAULT
    },
    printing: Printing::of(|object, now| {
        vec![
            object.at("metadata").str("name").into(),
            object.at("status").str("phase").into(),
            table::age(object, now),
        ]
    }),
    selection: Selection {
        fields: &[Selectable {
            name: "status.phase",
            value: |object| object.at("status").str("phase").to_owned(),
        }],
        by_namespace: false,
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    naming: Naming::validated_by(names::label_name),
    deletion: Deletion {
        returns_object: true,
        marked_first: true,
        precondition_failed: Some("Precondition failed"),
        prepare: |object, _| {
            let object = object.object_mut();
            object
                .object_mut("metadata")
                .remove("deletionGracePeriodSeconds");
            object.object_mut("status").insert("phase", "Terminating");
        },
        ..Deletion::DEFAULT
    },
    internal: "core.Namespace",
    ..Rules::DEFAULT
};

fn name_label(object: &mut Value) {
    let meta = object.object_mut().object_mut("metadata");
    let name = meta.get("name").cloned().unwrap_or_default();
    meta.object_mut("labels").insert(NAME_LABEL, name);
}

fn finalizer(name: At<'_>, errors: &mut Errors) {
    name.checked(names::qualified_name, errors);
    metadata::own_finalizer(name, errors);
}

fn phase(object: At<'_>, errors: &mut Errors) {
    let (allowed, when) = if object
        .value
        .at("metadata")
        .get("deletionTimestamp")
        .is_none()
    {
        ("Active", "is empty")
    } else {
        ("Terminating", "is not empty")
    };
    let phase = object.value.at("status").str("phase");
    if phase != allowed {
        errors.invalid(
            object.path.field("status.Phase"),
            phase,
            format!("may only be '{allowed}' if `deletionTimestamp` {when}"),
        );
    }
}
