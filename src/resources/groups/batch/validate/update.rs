//! Validation of job updates: mutable fields. Follows ValidateJobUpdate.

use super::status::is;
use super::{is_indexed, job_spec};
use crate::meta::{At, Errors};
use crate::resources::groups::core::pods::validate::Before;
use crate::resources::groups::workloads::{self, immutable};
use crate::schema::Value;

/// Validates an update of `old` to `job`, except metadata.
pub(in crate::resources::groups::batch) fn update(job: At<'_>, old: At<'_>, errors: &mut Errors) {
    let spec = job.field("spec");
    let was = old.value.at("spec");
    let before = Before::template(was.at("template"));
    let any_selector = At::root(was.at("selector")).is_bad_selector();
    job_spec(spec, before, any_selector, errors);
    completions(spec, was, errors);
    immutable(spec.field("selector"), was.at("selector"), "", errors);
    template(spec, old.value, errors);
    for (field, go_type) in [
        ("completionMode", ""),
        ("podFailurePolicy", "batch.PodFailurePolicy"),
        ("backoffLimitPerIndex", ""),
        ("managedBy", ""),
        ("successPolicy", "batch.SuccessPolicy"),
    ] {
        let at = spec.field(field);
        match at.is_absent() {
            true => immutable(at, was.at(field), "", errors),
            false => immutable(at, was.at(field), go_type, errors),
        }
    }
    super::name_allows_completions(job, errors);
}

/// `completions` is mutable only in indexed jobs, together with `parallelism`.
fn completions(spec: At<'_>, was: &Value, errors: &mut Errors) {
    let completions = spec.field("completions");
    if !is_indexed(spec.value) {
        return workloads::immutable(completions, was.at("completions"), "", errors);
    }
    let changed = completions.value != was.at("completions") && !completions.is_absent();
    if changed && completions.value != spec.value.at("parallelism") {
        completions.invalid(
            "can only be modified in tandem with spec.parallelism",
            errors,
        );
    }
}

/// The template is immutable, except scheduling and resources while the job is suspended and has no active pods.
fn template(spec: At<'_>, old: &Value, errors: &mut Errors) {
    let template = spec.field("template");
    let suspended = old.at("spec").bool("suspend");
    let idle = old.at("status").get("startTime").is_none() || is(old.at("status"), "Suspended");
    let free = suspended && idle && old.at("status").int("active") == 0;
    let was = old.at("spec").at("template");
    if !free {
        return immutable(template, was, "core.PodTemplateSpec", errors);
    }
    let mut was = was.clone();
    take_scheduling(&mut was, template.value);
    take_resources(&mut was, template.value);
    // Upstream writes this path as one field.
    let pod = At {
        value: template.value.at("spec"),
        path: spec.path.field("template.spec"),
    };
    immutable(pod, was.at("spec"), "core.PodSpec", errors);
}

/// Copies the mutable scheduling fields of the new template.
fn take_scheduling(was: &mut Value, new: &Value) {
    let pod = new.at("spec");
    let node = pod.at("affinity").at("nodeAffinity");
    let old_pod = was.object_mut().object_mut("spec");
    let had = old_pod.get("affinity").cloned().unwrap_or_default();
    match (pod.get("affinity").is_some(), had.is_null()) {
        (false, true) => {}
        (false, false) => {
            let mut left = had;
            left.remove("nodeAffinity");
            match left.is_empty() {
                true => drop(old_pod.remove("affinity")),
                false => drop(old_pod.insert("affinity", left)),
            }
        }
        (true, _) => {
            let affinity = old_pod.object_mut("affinity");
            match node {
                Value::Null => drop(affinity.remove("nodeAffinity")),
                node => drop(affinity.insert("nodeAffinity", node)),
            }
        }
    }
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        match pod.get(field) {
            Some(value) => drop(old_pod.insert(field, value)),
            None => drop(old_pod.remove(field)),
        }
    }
    let meta = was.object_mut().object_mut("metadata");
    for field in ["annotations", "labels"] {
        match new.at("metadata").get(field) {
            Some(value) => drop(meta.insert(field, value)),
            None => drop(meta.remove(field)),
        }
    }
}

/// Copies the resources of containers if the lists have the same containers.
fn take_resources(was: &mut Value, new: &Value) {
    let Some(pod) = was.get_mut("spec") else {
        return;
    };
    for list in ["containers", "initContainers"] {
        let now = new.at("spec").list(list);
        let had = pod.get_mut(list).and_then(Value::as_array_mut);
        let Some(had) = had.filter(|had| had.len() == now.len()) else {
            continue;
        };
        for (container, now) in had.iter_mut().zip(now) {
            if container.str("name") == now.str("name") {
                container.set("resources", now.at("resources"));
            }
        }
    }
}
