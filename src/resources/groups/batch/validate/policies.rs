//! Pod failure policies and success policies of jobs.

use std::collections::HashSet;

use super::{indexes, is_indexed};
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;
const MAX_INDEXES: usize = 64 << 10;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// `valid values: ["A" "B"]`
fn required(at: At<'_>, values: &[&str], errors: &mut Errors) -> bool {
    let list: Vec<String> = values.iter().map(|v| format!("\"{v}\"")).collect();
    at.required(&format!("valid values: [{}]", list.join(" ")), errors)
}

fn too_many(list: At<'_>, most: usize, errors: &mut Errors) {
    if list.list().len() > most {
        errors.too_many(list.path, list.list().len(), most);
    }
}

/// Validates the policies in a job's spec.
pub(super) fn policies(spec: At<'_>, errors: &mut Errors) {
    let failure = spec.field("podFailurePolicy");
    if !failure.is_absent() {
        let rules = failure.field("rules");
        too_many(rules, MAX_RULES, errors);
        for rule in rules.items() {
            failure_rule(rule, spec.value, errors);
        }
    }
    let success = spec.field("successPolicy");
    if success.is_absent() {
    } else if !is_indexed(spec.value) {
        success.invalid_dump(
            "batch.SuccessPolicy",
            "requires indexed completion mode",
            errors,
        );
    } else {
        let rules = success.field("rules");
        rules.required(
            "at least one rules must be specified when the successPolicy is specified",
            errors,
        );
        too_many(rules, MAX_RULES, errors);
        for rule in rules.items() {
            success_rule(rule, spec.value.int("completions"), errors);
        }
    }
    let supported: &[&str] = match failure.is_absent() {
        true => &["Failed", "TerminatingOrFailed"],
        false => &["Failed"],
    };
    spec.field("podReplacementPolicy")
        .one_of_if_there(supported, errors);
}

fn failure_rule(rule: At<'_>, spec: &Value, errors: &mut Errors) {
    let action = rule.field("action");
    if required(action, ACTIONS, errors) {
        action.one_of(ACTIONS, errors);
        if action.str() == "FailIndex" && spec.get("backoffLimitPerIndex").is_none() {
            action.invalid("requires the backoffLimitPerIndex to be set", errors);
        }
    }
    let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
    if !codes.is_absent() {
        exit_codes(codes, spec, errors);
    }
    too_many(conditions, MAX_RULES, errors);
    for pattern in conditions.items() {
        pattern.field("type").checked(names::qualified_name, errors);
        let status = pattern.field("status");
        if required(status, STATUSES, errors) {
            status.one_of(STATUSES, errors);
        }
    }
    match (codes.is_absent(), conditions.list().is_empty()) {
        (false, false) => errors.invalid_omitted(
            rule.path,
            "specifying both OnExitCodes and OnPodConditions is not supported",
        ),
        (true, true) => errors.invalid_omitted(
            rule.path,
            "specifying one of OnExitCodes and OnPodConditions is required",
        ),
        _ => {}
    }
}

fn exit_codes(codes: At<'_>, spec: &Value, errors: &mut Errors) {
    let operator = codes.field("operator");
    if required(operator, &["In", "NotIn"], errors) {
        operator.one_of(&["In", "NotIn"], errors);
    }
    let container = codes.field("containerName");
    let pod = spec.path(&["template", "spec"]);
    let mut known = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod.list(list));
    if !container.is_absent() && !known.any(|c| c.str("name") == container.str()) {
        container.invalid(
            "must be one of the container or initContainer names in the pod template",
            errors,
        );
    }
    let values = codes.field("values");
    if values.list().is_empty() {
        values.invalid("at least one value is required", errors);
    }
    too_many(values, MAX_CODES, errors);
    let list = values.list();
    let mut seen = HashSet::new();
    for value in values.items() {
        if operator.str() == "In" && value.int() == Some(0) {
            value.invalid("must not be 0 for the In operator", errors);
        }
        if !seen.insert(value.int()) {
            errors.duplicate(value.path, value.value);
        }
    }
    if !list.is_sorted_by_key(|value| value.as_int()) {
        values.invalid("must be ordered", errors);
    }
}

fn success_rule(rule: At<'_>, completions: i64, errors: &mut Errors) {
    let (count, indexes) = (rule.field("succeededCount"), rule.field("succeededIndexes"));
    if count.is_absent() && indexes.is_absent() {
        errors.required(
            rule.path,
            "at least one of succeededCount or succeededIndexes must be specified",
        );
    }
    let mut named = 0;
    if !indexes.is_absent() {
        if indexes.str().len() > MAX_INDEXES {
            errors.too_long(indexes.path, MAX_INDEXES);
        }
        match indexes::count(indexes.str(), completions) {
            Ok(total) => named = total,
            Err(why) => indexes.invalid(format!("error parsing succeededIndexes: {why}"), errors),
        }
    }
    let Some(n) = count.int() else { return };
    count.non_negative(errors);
    if n > completions {
        count.invalid(
            format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            ),
            errors,
        );
    }
    if !indexes.is_absent() && n > named {
        count.invalid(
            format!(
                "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
            ),
            errors,
        );
    }
}
