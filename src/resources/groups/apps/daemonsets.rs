//! Daemon sets. Follows k8s.io/kubernetes/pkg/registry/apps/daemonset/strategy.go and pkg/apis/apps.

use crate::meta::strconv::parse_int;
use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::groups::workloads::{self, TEMPLATE};
use crate::resources::{Cx, Generation, Printing, Rules, StatusRules, metadata};
use crate::schema::semantic::same_as;
use crate::schema::{Object, Value};

/// The annotation for the template generation, a field of upstream's internal type.
const TEMPLATES: &str = "deprecated.daemonset.template.generation";
/// The counters in the status.
const STATUS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

/// The rules of daemon sets.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    convert: |object| {
        let said = object.path(&["metadata", "annotations", TEMPLATES]);
        if let Some(said) = said.as_str() {
            let templates = parse_int(said)?;
            let meta = object.object_mut().object_mut("metadata");
            let annotations = meta.object_mut("annotations");
            annotations.insert(TEMPLATES, templates.to_string());
        }
        Ok(())
    },
    prepare_create: |object, _| {
        workloads::drop_disabled(object, &Value::Null, TEMPLATE);
        let templates = template_generation(object).max(1);
        set_generations(object, 1, templates);
    },
    prepare_update,
    status: StatusRules {
        prepare: |object, old, _| {
            let generation = old.at("metadata").int("generation");
            set_generations(object, generation, template_generation(old));
        },
        validate: |object, old, _, errors| {
            let status = object.field("status");
            workloads::counts(status, STATUS, errors);
            workloads::collisions(status, old.value.at("status"), errors);
        },
        ..StatusRules::DEFAULT
    },
    validate,
    warnings: |object, old, _| {
        if old.is_some_and(|old| template_generation(old) == template_generation(object)) {
            return Vec::new();
        }
        workloads::template_warnings(object, None, TEMPLATE)
    },
    nothing: |object| {
        let meta = object.object_mut().object_mut("metadata");
        meta.object_mut("annotations").insert_first(TEMPLATES, "0");
    },
    printing: Printing {
        drop_shown_annotations: |object| metadata::drop_annotations(object, &[TEMPLATES]),
        cells,
        ..Printing::DEFAULT
    },
    generation: Generation::Own,
    internal: "apps.DaemonSet",
    ..Rules::DEFAULT
};

fn set_defaults(object: &mut Value) {
    // This is a field of upstream's internal type, which v1 always shows.
    let meta = object.object_mut().object_mut("metadata");
    meta.object_mut("annotations").set_default(TEMPLATES, "0");
    let spec = object.object_mut().entry("spec", || Object::new().into());
    let strategy = spec
        .object_mut()
        .entry("updateStrategy", || Object::new().into());
    defaults::text(strategy, "type", "RollingUpdate");
    let rolls = strategy.str("type") == "RollingUpdate";
    if rolls || strategy.get("rollingUpdate").is_some() {
        // Both fields are always present in upstream's internal type, even if they are not used.
        let rolling = strategy.object_mut().object_mut("rollingUpdate");
        rolling.set_default("maxUnavailable", i64::from(rolls));
        rolling.set_default("maxSurge", 0);
    }
    defaults::absent(spec, "revisionHistoryLimit", 10);
    defaults::template(spec, "template");
}

fn template_generation(object: &Value) -> i64 {
    let annotations = object.at("metadata").at("annotations");
    annotations.str(TEMPLATES).parse().unwrap_or(0)
}

fn set_generations(object: &mut Value, generation: i64, templates: i64) {
    let meta = object.object_mut().object_mut("metadata");
    meta.insert("generation", generation);
    meta.object_mut("annotations")
        .insert(TEMPLATES, templates.to_string());
}

fn prepare_update(object: &mut Value, old: &Value, _: &Cx<'_>) {
    workloads::drop_disabled(object, old, TEMPLATE);
    let (mut generation, mut templates) = (
        old.at("metadata").int("generation"),
        template_generation(old),
    );
    let template = object.path(TEMPLATE);
    templates += i64::from(!same_as(
        "core.PodTemplateSpec",
        template,
        old.path(TEMPLATE),
    ));
    generation += i64::from(!same_as(
        "apps.DaemonSetSpec",
        object.at("spec"),
        old.at("spec"),
    ));
    set_generations(object, generation, templates);
}

fn validate(object: At<'_>, old: Option<At<'_>>, _: &Cx<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let selector = spec.field("selector");
    if let Some(old) = old {
        let was = old.value.at("spec").at("selector");
        workloads::immutable(selector, was, "", errors);
    }
    selector.label_selector(false, errors);
    workloads::matches(spec, errors);
    workloads::not_empty(selector, "daemonset", errors);
    let template = spec.field("template");
    workloads::template(template, "DaemonSet", workloads::before(old), errors);
    workloads::counts(spec, &["minReadySeconds"], errors);
    strategy(spec.field("updateStrategy"), errors);
    workloads::counts(spec, &["revisionHistoryLimit"], errors);
}

fn strategy(strategy: At<'_>, errors: &mut Errors) {
    match strategy.value.str("type") {
        "OnDelete" => {}
        "RollingUpdate" => rolling(strategy.field("rollingUpdate"), errors),
        _ => workloads::unsupported(
            strategy,
            "apps.DaemonSetUpdateStrategy",
            &["RollingUpdate", "OnDelete"],
            errors,
        ),
    }
}

fn rolling(rolling: At<'_>, errors: &mut Errors) {
    if rolling.is_absent() {
        return errors.required(rolling.path, "");
    }
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for at in [unavailable, surge] {
        at.int_or_percent(errors);
    }
    for at in [unavailable, surge] {
        at.at_most_all(errors);
    }
    let is_some = |at: At<'_>| workloads::number(at.value) != 0;
    match (is_some(unavailable), is_some(surge)) {
        (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero", errors),
        (false, false) => errors.required(unavailable.path, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let template = spec.at("template").at("spec");
    let mut cells = vec![object.at("metadata").str("name").into()];
    cells.extend(
        [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ]
        .map(|key| Value::Int(status.int(key))),
    );
    cells.push(cells::labels(template.at("nodeSelector")));
    cells.push(table::age(object, now));
    cells.extend(cells::containers(template));
    cells.push(cells::selector(spec.at("selector")));
    cells
}
