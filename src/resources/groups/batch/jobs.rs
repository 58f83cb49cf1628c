//! Jobs. Follows k8s.io/kubernetes/pkg/registry/batch/job/strategy.go and pkg/apis/batch.

use super::validate::{self, NAME, UID, is_indexed};
use crate::meta::{conditions, table, time};
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::groups::workloads::{self, TEMPLATE};
use crate::resources::{
    Cx, Deletion, Dependents, Generation, Printing, Rules, Selectable, Selection, SelectorError,
    StatusRules,
};
use crate::schema::{Object, Value};

/// The rules of jobs.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    prepare_create,
    completed_by_reading: |job| {
        let template = job.path(&["spec", "template", "metadata", "labels"]);
        !job.at("spec").bool("manualSelector") && job.path(&["metadata", "labels"]) == template
    },
    prepare_update: |job, old, _| {
        drop_scheduling(job.object_mut().object_mut("spec"), old.at("spec"));
        workloads::drop_disabled(job, old, TEMPLATE);
    },
    status: StatusRules {
        // Upstream applies defaults again when it reads the stored object.
        prepare: |job, _, _| labels_of_template(job),
        validate: |job, old, _, errors| validate::status(job, old, errors),
        ..StatusRules::DEFAULT
    },
    validate: |job, old, _, errors| match old {
        None => validate::create(job, errors),
        Some(old) => validate::update(job, old, errors),
    },
    warnings: |job, old, _| {
        let mut told = workloads::warnings(job, old, TEMPLATE);
        warn_of_indexes(job.at("spec"), "spec", job, old, &mut told);
        told
    },
    printing: Printing::of(cells),
    selection: Selection {
        fields: &[Selectable {
            name: "status.successful",
            value: |object| object.at("status").int("succeeded").to_string(),
        }],
        refusal: SelectorError::NotForKind,
        ..Selection::DEFAULT
    },
    generation: Generation::Spec,
    deletion: Deletion {
        dependents: Dependents::Orphaned,
        orphan_warning: Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
        ),
        ..Deletion::DEFAULT
    },
    internal: "batch.Job",
    ..Rules::DEFAULT
};

/// A job without labels gets those of its template.
fn labels_of_template(job: &mut Value) {
    let labels = job
        .path(&["spec", "template", "metadata", "labels"])
        .clone();
    if !labels.is_empty() && job.path(&["metadata", "labels"]).is_empty() {
        let meta = job.object_mut().object_mut("metadata");
        meta.insert("labels", labels);
    }
}

fn set_defaults(object: &mut Value) {
    labels_of_template(object);
    let spec = object.object_mut().entry("spec", || Object::new().into());
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        spec.set("completions", 1);
    }
    defaults::absent(spec, "parallelism", 1);
    let per_index = spec.get("backoffLimitPerIndex").is_some();
    let limit = if per_index { i32::MAX } else { 6 };
    defaults::absent(spec, "backoffLimit", limit);
    defaults::absent(spec, "completionMode", "NonIndexed");
    defaults::absent(spec, "suspend", false);
    let replacement = match spec.get("podFailurePolicy") {
        Some(_) => "Failed",
        None => "TerminatingOrFailed",
    };
    defaults::absent(spec, "podReplacementPolicy", replacement);
    defaults::absent(spec, "manualSelector", false);
    nested_defaults(spec);
}

/// Defaults within a job's spec, which apply to cron jobs' templates, too.
pub(super) fn nested_defaults(spec: &mut Value) {
    defaults::template(spec, "template");
    let Some(policy) = spec.get_mut("podFailurePolicy") else {
        return;
    };
    for rule in defaults::items(policy, "rules") {
        for condition in defaults::items(rule, "onPodConditions") {
            defaults::text(condition, "status", "True");
        }
    }
}

/// Drops `scheduling`, which belongs to a disabled feature.
pub(super) fn drop_scheduling(spec: &mut Object, old: &Value) {
    if old.get("scheduling").is_none() {
        spec.remove("scheduling");
    }
}

/// Adds the labels and the selector that identify the job's pods.
fn prepare_create(job: &mut Value, cx: &Cx<'_>) {
    drop_scheduling(job.object_mut().object_mut("spec"), &Value::Null);
    workloads::drop_disabled(job, &Value::Null, TEMPLATE);
    if job.at("spec").bool("manualSelector") {
        return;
    }
    let meta = job.at("metadata");
    let (name, uid) = (meta.str("name").to_owned(), meta.str("uid").to_owned());
    let own: Vec<(&str, &str)> = NAME
        .iter()
        .map(|key| (*key, name.as_str()))
        .chain(UID.iter().map(|key| (*key, uid.as_str())))
        .collect();
    let spec = job.object_mut().object_mut("spec");
    let template = spec.object_mut("template");
    add(template.object_mut("metadata"), "labels", &own);
    add(
        spec.object_mut("selector"),
        "matchLabels",
        &[(UID[1], &uid)],
    );
    // A job sent without labels gets those of its template.
    if cx.sent.at("labels").is_empty() {
        let labels = job
            .path(&["spec", "template", "metadata", "labels"])
            .clone();
        job.object_mut()
            .object_mut("metadata")
            .insert("labels", labels);
    }
}

fn add(owner: &mut Object, map: &str, entries: &[(&str, &str)]) {
    let map = owner.object_mut(map);
    for (key, value) in entries {
        map.set_default(key, *value);
    }
    map.sort();
}

/// Warns about large indexed jobs: WarningsForJobSpec. Precedes the warnings of the template.
pub(super) fn warn_of_indexes(
    spec: &Value,
    path: &str,
    object: &Value,
    old: Option<&Value>,
    told: &mut Vec<String>,
) {
    let generation = |object: &Value| object.at("metadata").int("generation");
    let changed = old.is_none_or(|old| generation(old) != generation(object));
    let many = spec.int("completions") > 100_000 && spec.int("parallelism") > 10_000;
    if changed && is_indexed(spec) && many {
        let own = told
            .first()
            .is_some_and(|text| text.starts_with("metadata.name: "));
        told.insert(
            usize::from(own),
            format!(
                "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
            ),
        );
    }
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let [names, images] = cells::containers(spec.at("template").at("spec"));
    vec![
        object.at("metadata").str("name").into(),
        state(object).into(),
        completions(spec, status).into(),
        duration(status, now).into(),
        table::age(object, now),
        names,
        images,
        cells::selector(spec.at("selector")),
    ]
}

fn state(object: &Value) -> &'static str {
    let conditions = object.at("status").list("conditions");
    let holds = |kind: &str| conditions::holds(conditions, kind);
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if object.at("metadata").get("deletionTimestamp").is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(spec: &Value, status: &Value) -> String {
    let done = status.int("succeeded");
    match (spec.get("completions"), spec.int("parallelism")) {
        (Some(all), _) => format!("{done}/{}", all.as_int().unwrap_or(0)),
        (None, workers) if workers > 1 => format!("{done}/1 of {workers}"),
        _ => format!("{done}/1"),
    }
}

fn duration(status: &Value, now: i64) -> String {
    let seconds = |key: &str| {
        let text = status.at(key).as_str()?;
        time::parse(text).ok()
    };
    seconds("startTime").map_or_else(String::new, |start| {
        table::human_duration(seconds("completionTime").unwrap_or(now) - start)
    })
}
