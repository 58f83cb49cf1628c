//! Cron jobs.

use super::nested_spec;
use crate::meta::{At, Errors, cron};
use crate::resources::groups::core::pods::validate::Before;
use crate::resources::groups::workloads;
use crate::schema::Value;

/// Leaves room for the eleven characters that are appended to the names of jobs.
const NAME_MAX: usize = 52;

/// ValidateCronJobCreate and ValidateCronJobUpdate, except metadata.
pub(in crate::resources::groups::batch) fn schedule(
    object: At<'_>,
    old: Option<At<'_>>,
    errors: &mut Errors,
) {
    let spec = object.field("spec");
    let was = old.map_or(&Value::Null, |old| old.value.at("spec"));
    times(spec, was, errors);
    spec.field("startingDeadlineSeconds").non_negative(errors);
    if old.is_none() || was.at("timeZone") != spec.value.at("timeZone") {
        time_zone(spec.field("timeZone"), errors);
    }
    spec.field("concurrencyPolicy")
        .required_one_of(&["Allow", "Forbid", "Replace"], errors);
    let template = spec.field("jobTemplate");
    let job = template.field("spec");
    let before = Before::template(was.path(&["jobTemplate", "spec", "template"]));
    nested_spec(job, before, errors);
    let selector = job.field("selector");
    if !selector.is_absent() {
        selector.invalid("`selector` will be auto-generated", errors);
    }
    let manual = job.field("manualSelector");
    if manual.bool() {
        errors.not_supported(manual.path, true, &["nil", "false"]);
    }
    workloads::counts(
        spec,
        &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"],
        errors,
    );
    let meta = object.field("metadata");
    let name = meta.field("name");
    if old.is_none() && name.str().len() > NAME_MAX {
        name.invalid(
            format!("must be no more than {NAME_MAX} characters"),
            errors,
        );
    }
    // Upstream reports declarative validation last.
    spec.field("schedule").required("", errors);
}

fn times(spec: At<'_>, was: &Value, errors: &mut Errors) {
    let schedule = spec.field("schedule");
    if schedule.str().is_empty() {
        return;
    }
    if let Err(why) = cron::parse(schedule.str()) {
        schedule.invalid(why, errors);
    }
    // A schedule that already had a time zone may keep it.
    let had = was.str("schedule").contains("TZ");
    match (schedule.str().contains("TZ"), had) {
        (true, false) => schedule.invalid(
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            errors,
        ),
        (true, true) if spec.value.get("timeZone").is_some() => schedule.invalid(
            "cannot use both timeZone field and TZ or CRON_TZ in schedule",
            errors,
        ),
        _ => {}
    }
}

fn time_zone(zone: At<'_>, errors: &mut Errors) {
    if zone.is_absent() {
        return;
    }
    let name = zone.str();
    if name.is_empty() {
        return zone.invalid("timeZone must be nil or non-empty string", errors);
    }
    let sound = |part: &str| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
    };
    if !name.split('/').all(sound) {
        return zone.invalid(format!("unknown time zone {name}"), errors);
    }
    if name.eq_ignore_ascii_case("Local") {
        zone.invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            errors,
        );
    }
    if let Err(why) = cron::time_zone(name) {
        zone.invalid(why, errors);
    }
}
