//! Evaluates the policies of a job: which failures count, and which successes are enough. Follows
//! k8s.io/kubernetes/pkg/controller/job (pod_failure_policy, success_policy).

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};
use k8s_openapi::api::core::v1::ContainerStatus;
use kube::ResourceExt as _;

use super::indexes::Indexes;
use crate::client::kinds::Pod;

/// The consequence of a failed pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts.
    Count,
    /// It does not count.
    Ignore,
    /// It counts, and its index is not tried again.
    FailIndex,
    /// It counts and fails the job, with this message.
    FailJob(String),
}

/// Evaluates a policy for a failed pod: the first matching rule decides.
pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.iter().flat_map(|policy| &policy.rules).enumerate();
    for (index, rule) in rules {
        let Some(message) = matches(rule, pod, index) else {
            continue;
        };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "Count" => return Verdict::Count,
            "FailJob" => return Verdict::FailJob(message),
            _ => {}
        }
    }
    Verdict::Count
}

/// Why a rule matches; None if it does not.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod, index: usize) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (name, action) = (pod.name_any(), &rule.action);
    if let Some(codes) = &rule.on_exit_codes {
        let status = &pod.status;
        let statuses = status.container_statuses.iter();
        let mut statuses = statuses.chain(&status.init_container_statuses);
        let (container, code) =
            statuses.find_map(|status| Some((&status.name, matching_code(status, codes)?)))?;
        return Some(format!(
            "Container {container} for pod {namespace}/{name} failed with exit code {code} matching {action} rule at index {index}"
        ));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let condition = pod.status.conditions.iter().find(|condition| {
        patterns.iter().any(|pattern| {
            pattern.type_ == condition.type_
                && pattern.status.as_deref().unwrap_or("True") == condition.status
        })
    })?;
    Some(format!(
        "Pod {namespace}/{name} has condition {} matching {action} rule at index {index}",
        condition.type_
    ))
}

fn matching_code(
    status: &ContainerStatus,
    wanted: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<i32> {
    let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = wanted.container_name.as_ref();
    if code == 0 || named.is_some_and(|name| *name != status.name) {
        return None;
    }
    let listed = wanted.values.contains(&code);
    match wanted.operator.as_str() {
        "In" => listed.then_some(code),
        "NotIn" => (!listed).then_some(code),
        _ => None,
    }
}

/// A message naming the rule of a success policy that the succeeded indexes meet; None if they meet none.
pub(super) fn met(
    policy: Option<&SuccessPolicy>,
    completions: i32,
    succeeded: &Indexes,
) -> Option<String> {
    let mut rules = policy.iter().flat_map(|policy| &policy.rules).enumerate();
    let (index, _) = rules.find(|(_, rule)| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Indexes::parse(text, completions);
            let shared = required.shared(succeeded);
            required.count() > 0
                && (shared == required.count()
                    || rule.succeeded_count.is_some_and(|count| shared >= count))
        }
        None => rule
            .succeeded_count
            .is_some_and(|count| succeeded.count() >= count),
    })?;
    Some(format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides_about_a_failure() {
        let policy: PodFailurePolicy = serde_json::from_str(
            r#"{"rules":[
            {"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget"}]},
            {"action":"FailIndex","onExitCodes":{"containerName":"b","operator":"In","values":[1,3]}},
            {"action":"FailJob","onExitCodes":{"operator":"NotIn","values":[1,2,3]}},
            {"action":"Count","onPodConditions":[{"type":"X","status":"False"}]},
            {"action":"FailJob","onPodConditions":[{"type":"Y","status":"True"}]}]}"#,
        )
        .unwrap();
        let verdict = |conditions: &str, container: &str, code: i32| {
            let pod: Pod = serde_json::from_str(&format!(
                r#"{{"metadata":{{"namespace":"n","name":"p"}},"status":{{"conditions":[{conditions}],
                "containerStatuses":[{{"name":"{container}","image":"","imageID":"","ready":false,"restartCount":0,"state":{{"terminated":{{"exitCode":{code}}}}}}}]}}}}"#
            ))
            .unwrap();
            judge(Some(&policy), &pod)
        };
        let disrupted = r#"{"type":"DisruptionTarget","status":"True"}"#;
        let y = r#"{"type":"Y","status":"True"}"#;
        assert_eq!(verdict(disrupted, "b", 3), Verdict::Ignore);
        assert_eq!(verdict("", "b", 3), Verdict::FailIndex);
        assert_eq!(verdict("", "a", 3), Verdict::Count);
        assert_eq!(
            verdict("", "a", 42),
            Verdict::FailJob(
                "Container a for pod n/p failed with exit code 42 matching FailJob rule at index 2"
                    .to_owned()
            )
        );
        assert_eq!(verdict("", "a", 0), Verdict::Count);
        assert_eq!(
            verdict(y, "a", 1),
            Verdict::FailJob("Pod n/p has condition Y matching FailJob rule at index 4".to_owned())
        );
        let x = r#"{"type":"X","status":"False"}"#;
        assert_eq!(verdict(&format!("{x},{y}"), "a", 1), Verdict::Count);
        assert_eq!(judge(None, &Pod::default()), Verdict::Count);
    }

    #[test]
    fn a_success_policy_is_met_by_indexes_or_their_number() {
        let policy: SuccessPolicy = serde_json::from_str(
            r#"{"rules":[{"succeededIndexes":"0,2-4"},{"succeededIndexes":"5-9","succeededCount":2},{"succeededCount":6}]}"#,
        )
        .unwrap();
        for (succeeded, rule) in [
            ("0,2,3", None),
            ("0-4", Some(0)),
            ("1,5,8", Some(1)),
            ("1,2,5,10-12", Some(2)),
        ] {
            let found = met(Some(&policy), 20, &Indexes::parse(succeeded, 20));
            let wanted = rule.map(|rule| format!("Matched rules at index {rule}"));
            assert_eq!(found, wanted, "{succeeded}");
        }
        assert_eq!(met(None, 20, &Indexes::parse("0-19", 20)), None);
    }
}
