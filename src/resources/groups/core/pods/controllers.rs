//! Replication controllers. Follows k8s.io/kubernetes/pkg/registry/core/replicationcontroller/strategy.go.

use super::{cells, defaults};
use crate::meta::errors::{Path, Reason, shown};
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::workloads::{self, TEMPLATE};
use crate::resources::{
    Cx, Deletion, Dependents, Generation, Naming, Printing, Rules, Selectable, Selection,
    SelectorError, StatusRules,
};
use crate::schema::Value;

/// The prefix of annotations for fields that a version cannot represent.
const NON_CONVERTIBLE: &str = "non-convertible.kubernetes.io";
/// The counters in the status.
const STATUS: &[&str] = &[
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
];

/// The rules of replication controllers.
pub(in crate::resources::groups) const REPLICATIONCONTROLLERS: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    prepare_create: |object, _| workloads::drop_disabled(object, &Value::Null, TEMPLATE),
    prepare_update: |object, old, _| workloads::drop_disabled(object, old, TEMPLATE),
    validate,
    status: StatusRules::validated_by(|object, _, _, errors| {
        workloads::replica_status(object.field("status"), STATUS, errors);
    }),
    warnings: |object, old, _| match old {
        None => workloads::warnings(object, None, TEMPLATE),
        // Upstream checks the old template.
        Some(old) => workloads::template_warnings(old, Some(object), TEMPLATE),
    },
    naming: Naming {
        // Upstream validates the name declaratively, which comes last, and does not validate name prefixes.
        validate: |_, _| Vec::new(),
        ..Naming::DEFAULT
    },
    printing: Printing::of(|object, now| {
        let mut cells = replicas(object, now);
        let spec = object.at("spec");
        cells.extend(cells::containers(spec.at("template").at("spec")));
        cells.push(cells::labels(spec.at("selector")));
        cells
    }),
    selection: Selection {
        fields: &[Selectable {
            name: "status.replicas",
            value: |object| object.at("status").int("replicas").to_string(),
        }],
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    generation: Generation::Spec,
    deletion: Deletion {
        dependents: Dependents::Orphaned,
        ..Deletion::DEFAULT
    },
    internal: "core.ReplicationController",
    ..Rules::DEFAULT
};

fn validate(object: At<'_>, old: Option<At<'_>>, _: &Cx<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let selector = spec.field("selector");
    let template = spec.field("template");
    selector.required("", errors);
    if template.required("", errors) {
        let meta = template.field("metadata");
        let labels = meta.field("labels");
        let selected = selector
            .entries()
            .all(|(key, value)| labels.value.get(key) == Some(value.value));
        if !selected {
            labels.invalid("`selector` does not match template `labels`", errors);
        }
        workloads::template(
            template,
            "ReplicationController",
            workloads::before(old),
            errors,
        );
    }
    if old.is_none() {
        let meta = object.field("metadata");
        meta.field("name").checked_if_said(names::long_name, errors);
    }
    let replicas = spec.field("replicas");
    if replicas.is_absent() {
        errors.required(replicas.path, "");
    }
    workloads::counts(spec, &["replicas", "minReadySeconds"], errors);
    if let Some(old) = old {
        non_convertible(object, old.value, errors);
    }
}

/// Rejects changes of what annotations mark as not representable in this version.
fn non_convertible(object: At<'_>, old: &Value, errors: &mut Errors) {
    let marked = old.at("metadata").entries("annotations");
    let spec = object.field("spec");
    let selector = spec.field("selector");
    for (key, value) in marked.filter(|(key, _)| key.starts_with(NON_CONVERTIBLE)) {
        let mut parts = key.split('/').skip(1);
        let (Some(field), None) = (parts.next(), parts.next()) else {
            continue;
        };
        if !field.contains("selector") {
            errors.push(
                Reason::NotFound,
                Path::ROOT.field(field),
                format!("Not found: {}: unknown non-convertible field", shown(value)),
            );
        } else if selector.value != old.at("spec").at("selector") {
            selector.invalid("cannot update non-convertible selector", errors);
        }
    }
}

/// The first cells of a ReplicationController or ReplicaSet: name, desired, current and ready replicas, age.
pub(in crate::resources::groups) fn replicas(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    vec![
        object.at("metadata").str("name").into(),
        spec.int("replicas").into(),
        status.int("replicas").into(),
        status.int("readyReplicas").into(),
        table::age(object, now),
    ]
}

fn set_defaults(object: &mut Value) {
    let labels = object
        .path(&["spec", "template", "metadata", "labels"])
        .clone();
    if !labels.is_empty() {
        if object.path(&["spec", "selector"]).is_empty() {
            object
                .object_mut()
                .object_mut("spec")
                .insert("selector", &labels);
        }
        if object.path(&["metadata", "labels"]).is_empty() {
            object
                .object_mut()
                .object_mut("metadata")
                .insert("labels", labels);
        }
    }
    if let Some(spec) = object.get_mut("spec") {
        defaults::absent(spec, "replicas", 1);
        if spec.get("template").is_some() {
            defaults::template(spec, "template");
        }
    }
}
