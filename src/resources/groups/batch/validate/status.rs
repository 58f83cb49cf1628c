//! Validation of a job's status, where each rule applies if its fields change. Follows ValidateJobUpdateStatus and the
//! options from k8s.io/kubernetes/pkg/registry/batch/job/strategy.go.

use std::collections::BTreeSet;

use super::{indexes, is_indexed};
use crate::meta::{At, Errors, time};
use crate::resources::groups::workloads;
use crate::schema::Value;

fn holds(status: &Value, kind: &str, value: &str) -> bool {
    status
        .list("conditions")
        .iter()
        .any(|c| c.str("type") == kind && c.str("status") == value)
}

/// Whether a condition of a job's status is true.
pub(super) fn is(status: &Value, kind: &str) -> bool {
    holds(status, kind, "True")
}

fn finished(status: &Value) -> bool {
    is(status, "Complete") || is(status, "Failed")
}

fn seconds(status: &Value, key: &str) -> Option<i64> {
    time::parse(status.at(key).as_str()?).ok()
}

/// Validates the status of `job`, replacing that of `old`.
pub(in crate::resources::groups::batch) fn status(job: At<'_>, old: At<'_>, errors: &mut Errors) {
    let status = job.field("status");
    let new = Look {
        spec: job.value.at("spec"),
        now: status.value,
        was: old.value.at("status"),
    };
    workloads::counts(
        status,
        &["active", "succeeded", "failed", "ready", "terminating"],
        errors,
    );
    uncounted(status.field("uncountedTerminatedPods"), errors);
    new.conditions(status, errors);
    new.finished(status, errors);
    new.indexes(status, errors);
    new.counters(status, errors);
    new.successes(status, errors);
    new.transitions(status, errors);
}

fn uncounted(pods: At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.value.list(list).iter().enumerate() {
            let at = pods.path.field(list);
            let (i, value) = uid;
            let text = value.as_str().unwrap_or_default();
            if text.is_empty() {
                errors.invalid(at.index(i), text, "must not be empty");
            } else if !known.insert(text) {
                errors.duplicate(at.index(i), text);
            }
        }
    }
}

/// A job's spec with its new and old status.
struct Look<'a> {
    spec: &'a Value,
    now: &'a Value,
    was: &'a Value,
}

impl Look<'_> {
    /// Whether a property of the status has changed.
    fn changed<T: PartialEq>(&self, ask: impl Fn(&Value) -> T) -> bool {
        ask(self.now) != ask(self.was)
    }

    fn condition_changed(&self, kind: &str) -> bool {
        self.changed(|status| is(status, kind))
    }

    fn field_changed(&self, field: &str) -> bool {
        self.now.at(field) != self.was.at(field)
    }

    fn completions(&self) -> Option<i64> {
        self.spec.at("completions").as_int()
    }

    fn conditions(&self, status: At<'_>, errors: &mut Errors) {
        let now = self.now;
        let conditions = status.field("conditions").path;
        let complete = self.condition_changed("Complete");
        let is_complete = is(now, "Complete");
        if (complete || self.condition_changed("Failed")) && is_complete && is(now, "Failed") {
            let text = "cannot set Complete=True and Failed=true conditions";
            errors.invalid_omitted(conditions, text);
        }
        if (complete || self.condition_changed("FailureTarget"))
            && is_complete
            && is(now, "FailureTarget")
        {
            let text = "cannot set Complete=True and FailureTarget=true conditions";
            errors.invalid_omitted(conditions, text);
        }
        let end = status.field("completionTime");
        if complete || self.field_changed("completionTime") {
            if !end.is_absent() && !is_complete {
                end.invalid(
                    "cannot set completionTime when there is no Complete=True condition",
                    errors,
                );
            }
            if end.is_absent() && is_complete {
                errors.required(end.path, "completionTime is required for Complete jobs");
            }
        }
        if (self.field_changed("startTime") || self.field_changed("completionTime"))
            && let (Some(start), Some(end_at)) =
                (seconds(now, "startTime"), seconds(now, "completionTime"))
            && end_at < start
        {
            end.invalid("must be equal to or after `startTime`", errors);
        }
        if (self.condition_changed("Failed") || self.field_changed("failedIndexes"))
            && is(now, "Failed")
            && !is(now, "FailureTarget")
        {
            let text = "cannot set Failed=True condition without the FailureTarget=true condition";
            errors.invalid_omitted(conditions, text);
        }
        if (complete || self.condition_changed("SuccessCriteriaMet"))
            && is_complete
            && !is(now, "SuccessCriteriaMet")
        {
            let text =
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
            errors.invalid_omitted(conditions, text);
        }
    }

    fn finished(&self, status: At<'_>, errors: &mut Errors) {
        if !finished(self.now) {
            return;
        }
        let ends = self.changed(finished);
        let active = status.field("active");
        if (ends || self.changed(|s| s.int("active"))) && active.int().unwrap_or(0) > 0 {
            active.invalid("active>0 is invalid for finished job", errors);
        }
        let start = status.field("startTime");
        let nothing = self.spec.bool("suspend") && self.completions() == Some(0);
        if (ends || self.field_changed("startTime")) && !nothing && start.is_absent() {
            errors.required(start.path, "startTime is required for finished job");
        }
        let pods = status.field("uncountedTerminatedPods");
        if (ends || self.field_changed("uncountedTerminatedPods")) && !pods.value.is_empty() {
            pods.invalid_dump(
                "batch.UncountedTerminatedPods",
                "must be empty for finished job",
                errors,
            );
        }
    }

    fn indexes(&self, status: At<'_>, errors: &mut Errors) {
        let (completed, failed) = (
            status.field("completedIndexes"),
            status.field("failedIndexes"),
        );
        let new_completed = self.changed(|s| s.str("completedIndexes").to_owned());
        let new_failed = self.field_changed("failedIndexes");
        let limited = self.spec.get("backoffLimitPerIndex").is_some();
        if let Some(all) = self.completions() {
            if new_completed && let Err(why) = indexes::count(completed.str(), all) {
                completed.invalid_text(format!("error parsing completedIndexes: {why}"), errors);
            }
            if new_failed
                && limited
                && !failed.is_absent()
                && let Err(why) = indexes::count(failed.str(), all)
            {
                failed.invalid(format!("error parsing failedIndexes: {why}"), errors);
            }
        }
        if new_completed && !completed.str().is_empty() && !is_indexed(self.spec) {
            completed.invalid(
                "cannot set non-empty completedIndexes when non-indexed completion mode",
                errors,
            );
        }
        if new_failed && !limited && !failed.is_absent() {
            failed.invalid(
                "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
                errors,
            );
        }
        if (new_failed || new_completed)
            && let Some(all) = self.completions()
            && let Some(both) = indexes::overlap(completed.str(), failed.str(), all)
        {
            failed.invalid(
                format!("failedIndexes and completedIndexes overlap at index: {both}"),
                errors,
            );
        }
    }

    fn counters(&self, status: At<'_>, errors: &mut Errors) {
        let terminating = status.field("terminating");
        if (self.changed(finished) || self.field_changed("terminating"))
            && finished(self.now)
            && terminating.int().unwrap_or(0) > 0
        {
            terminating.invalid("terminating>0 is invalid for finished job", errors);
        }
        let ready = status.field("ready");
        if (self.field_changed("ready") || self.changed(|s| s.int("active")))
            && ready.int().is_some_and(|n| n > self.now.int("active"))
        {
            ready.invalid("cannot set more ready pods than active", errors);
        }
    }

    fn successes(&self, status: At<'_>, errors: &mut Errors) {
        let conditions = status.field("conditions").path;
        let met = is(self.now, "SuccessCriteriaMet");
        for (other, text) in [
            (
                "Failed",
                "cannot set SuccessCriteriaMet=True and Failed=true conditions",
            ),
            (
                "FailureTarget",
                "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
            ),
        ] {
            if met && is(self.now, other) {
                errors.invalid_omitted(conditions, text);
            }
        }
        if self.spec.get("successPolicy").is_some() && !met && is(self.now, "Complete") {
            let text = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
            errors.invalid_omitted(conditions, text);
        }
    }

    /// ValidateJobStatusUpdate
    fn transitions(&self, status: At<'_>, errors: &mut Errors) {
        let (now, was) = (self.now, self.was);
        let conditions = status.field("conditions").path;
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if is(was, kind) && !is(now, kind) {
                let text = format!("cannot disable the terminal {kind}=True condition");
                errors.invalid_omitted(conditions, &text);
            }
        }
        // Indexed jobs with equal completions and parallelism may be scaled down.
        let shrinks =
            is_indexed(self.spec) && self.spec.at("completions") == self.spec.at("parallelism");
        for counter in ["failed", "succeeded"] {
            let falls = now.int(counter) < was.int(counter);
            if falls && (counter == "failed" || !shrinks) {
                errors.invalid(
                    status.path.field(counter),
                    now.int(counter),
                    format!("cannot decrease the {counter} counter"),
                );
            }
        }
        let (start, end) = (status.field("startTime"), status.field("completionTime"));
        let had_end = was.get("completionTime").is_some();
        if had_end && !end.is_absent() && self.field_changed("completionTime") {
            end.invalid("field is immutable", errors);
        }
        let resumes = is(was, "Suspended") && holds(now, "Suspended", "False");
        if was.get("startTime").is_some()
            && self.field_changed("startTime")
            && !resumes
            && !self.spec.bool("suspend")
        {
            start.invalid("field is immutable for unsuspended job once set", errors);
        }
        let met = |status| is(status, "SuccessCriteriaMet");
        if met(was) && !met(now) {
            let text = "cannot disable the SuccessCriteriaMet=True condition";
            errors.invalid_omitted(conditions, text);
        }
        if is(was, "Complete") && !met(was) && met(now) {
            let text =
                "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            errors.invalid_omitted(conditions, text);
        }
    }
}
