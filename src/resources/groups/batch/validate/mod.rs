//! Validation of jobs and cron jobs. Follows k8s.io/kubernetes/pkg/apis/batch/validation/validation.go.

mod indexes;
mod policies;
mod schedule;
mod status;
mod update;

pub(super) use schedule::schedule;
pub(super) use status::status;
pub(super) use update::update;

use crate::meta::checks::selects;
use crate::meta::{At, Errors, names};
use crate::resources::groups::core::pods::validate::{self, Before};
use crate::resources::groups::workloads;
use crate::schema::{Object, Value};

/// The labels of a job's name, without and with a domain.
pub(super) const NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
/// The labels of a job's uid, without and with a domain.
pub(super) const UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Jobs with more completions have other limits.
const MANY: i64 = 100_000;
const MANY_LIMIT: i64 = 10_000;
const MANAGED_BY_MAX: usize = 63;

pub(super) fn is_indexed(spec: &Value) -> bool {
    spec.str("completionMode") == "Indexed"
}

/// ValidateJobCreate, except metadata.
pub(super) fn create(job: At<'_>, errors: &mut Errors) {
    generated_selector(job, errors);
    job_spec(job.field("spec"), Before::default(), false, errors);
    name_allows_completions(job, errors);
}

/// The generated labels and selector must be present and unchanged: validateGeneratedSelector.
fn generated_selector(job: At<'_>, errors: &mut Errors) {
    let spec = job.value.at("spec");
    if spec.bool("manualSelector") || spec.get("selector").is_none() {
        return;
    }
    let meta = job.value.at("metadata");
    let labels = At {
        value: spec.path(&["template", "metadata", "labels"]),
        path: job.path.field("spec.template.metadata.labels"),
    };
    let mut expected = Object::new();
    for i in 0..2 {
        for (key, value) in [(UID[i], meta.str("uid")), (NAME[i], meta.str("name"))] {
            has_label(labels, key, value, errors);
            expected.insert(key, value);
        }
    }
    if selects(spec.at("selector"), &expected.into()) == Some(false) {
        errors.invalid(
            job.path.field("spec.selector"),
            spec.at("selector"),
            "`selector` not auto-generated",
        );
    }
}

/// ValidateHasLabel
fn has_label(labels: At<'_>, key: &str, value: &str, errors: &mut Errors) {
    let at = At {
        value: labels.value.at(key),
        path: labels.path.key(key),
    };
    if at.is_absent() {
        errors.required(at.path, &format!("must be '{value}'"));
    } else if at.str() != value {
        errors.invalid(at.path, labels.value, format!("must be '{value}'"));
    }
}

fn name_allows_completions(job: At<'_>, errors: &mut Errors) {
    let spec = job.value.at("spec");
    let completions = spec.int("completions");
    if !is_indexed(spec) || completions <= 0 {
        return;
    }
    let meta = job.field("metadata");
    let name = meta.field("name");
    let host = format!("{}-{}", name.str(), completions - 1);
    if !names::dns1123_label(&host).is_empty() {
        name.invalid_text(
            format!("will not able to create pod with invalid DNS label: {host}"),
            errors,
        );
    }
}

/// ValidateJobSpec
fn job_spec(spec: At<'_>, before: Before<'_>, any_selector: bool, errors: &mut Errors) {
    nested_spec(spec, before, errors);
    let selector = spec.field("selector");
    if selector.is_absent() {
        errors.required(selector.path, "");
    }
    selector.label_selector(any_selector, errors);
    workloads::matches(spec, errors);
}

/// Rules that also apply to the jobs of cron jobs: validateJobSpec.
fn nested_spec(spec: At<'_>, before: Before<'_>, errors: &mut Errors) {
    workloads::counts(
        spec,
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
        errors,
    );
    let limit = spec.field("backoffLimitPerIndex");
    if spec.value.get("maxFailedIndexes").is_some() && limit.is_absent() {
        errors.required(limit.path, "when maxFailedIndexes is specified");
    }
    managed_by(spec.field("managedBy"), errors);
    completion_mode(spec, errors);
    policies::policies(spec, errors);
    let template = spec.field("template");
    validate::template(template, before, errors);
    let pod = template.field("spec");
    let restart = pod.field("restartPolicy");
    match restart.str() {
        "" | "Always" => {
            errors.required(restart.path, r#"valid values: "OnFailure", "Never""#);
        }
        "OnFailure" if spec.value.get("podFailurePolicy").is_some() => restart.invalid(
            r#"only "Never" is supported when podFailurePolicy is specified"#,
            errors,
        ),
        _ => restart.one_of(&["OnFailure", "Never"], errors),
    }
}

/// IsDomainPrefixedPath, and the length limit.
fn managed_by(manager: At<'_>, errors: &mut Errors) {
    if manager.is_absent() {
        return;
    }
    if manager.required("", errors) {
        match manager.str().split_once('/') {
            Some((host, path)) if !host.is_empty() && !path.is_empty() => {
                for wrong in names::dns1123_subdomain(host) {
                    errors.invalid(manager.path, host, wrong);
                }
                for wrong in names::http_path(path) {
                    errors.invalid(manager.path, path, wrong);
                }
            }
            _ => manager.invalid(
                "must be a domain-prefixed path (such as \"acme.io/foo\")",
                errors,
            ),
        }
    }
    if manager.str().len() > MANAGED_BY_MAX {
        errors.too_long(manager.path, MANAGED_BY_MAX);
    }
}

fn completion_mode(spec: At<'_>, errors: &mut Errors) {
    let mode = spec.field("completionMode");
    mode.one_of_if_there(&["NonIndexed", "Indexed"], errors);
    if is_indexed(spec.value) {
        indexed(spec, errors);
    }
    if mode.is_absent() || mode.str() == "NonIndexed" {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            let at = spec.field(field);
            if !at.is_absent() {
                at.invalid("requires indexed completion mode", errors);
            }
        }
    }
}

fn indexed(spec: At<'_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    let failed = spec.field("maxFailedIndexes");
    if completions.is_absent() {
        errors.required(completions.path, "when completion mode is Indexed");
    }
    let above = |at: At<'_>, limit: i64| at.int().is_some_and(|n| n > limit);
    if above(parallelism, MANY) {
        parallelism.invalid(
            format!("must be less than or equal to {MANY} when completion mode is Indexed"),
            errors,
        );
    }
    if completions.int().is_some_and(|all| above(failed, all)) {
        failed.invalid("must be less than or equal to completions", errors);
    }
    if above(failed, MANY) {
        failed.invalid(format!("must be less than or equal to {MANY}"), errors);
    }
    if !above(completions, MANY) || spec.value.get("backoffLimitPerIndex").is_none() {
        return;
    }
    if failed.is_absent() {
        errors.required(
            failed.path,
            &format!("must be specified when completions is above {MANY}"),
        );
    }
    for at in [parallelism, failed] {
        if above(at, MANY_LIMIT) {
            at.invalid(
                format!(
                    "must be less than or equal to {MANY_LIMIT} when completions are above {MANY} and used with backoff limit per index"
                ),
                errors,
            );
        }
    }
}
