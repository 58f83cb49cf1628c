//! The conditions of a job.

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The true condition `Complete` or `Failed` of a finished job; None if it has not finished.
pub(in crate::controllers) fn end_of(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    holds(status, "Complete").or_else(|| holds(status, "Failed"))
}

/// The condition of a type, if it is true.
pub(super) fn holds<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

pub(super) fn condition(
    kind: &str,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The same condition with another type.
pub(super) fn becomes(had: &JobCondition, kind: &str, now: Timestamp) -> JobCondition {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    condition(kind, "True", &text(&had.reason), &text(&had.message), now)
}

/// Sets a condition; a missing one is not added as false. Returns whether something changed.
pub(super) fn set(status: &mut JobStatus, new: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|had| had.type_ == new.type_) {
        Some(had) => {
            let same =
                had.status == new.status && had.reason == new.reason && had.message == new.message;
            if !same {
                *had = new;
            }
            !same
        }
        None if new.status == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    }
}
