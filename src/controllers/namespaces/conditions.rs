//! The conditions of a terminating namespace about its contents. Follows
//! k8s.io/kubernetes/pkg/controller/namespace/deletion/status_condition_utils.go.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The state of the contents.
#[derive(Debug, Default)]
pub struct Findings {
    /// The error of discovery, if it failed.
    pub discovery: Option<String>,
    /// The errors of deletions.
    pub failures: Vec<String>,
    /// How many objects remain, by `PLURAL.GROUP`; None if unknown.
    pub remaining: Option<BTreeMap<String, usize>>,
    /// How many of them are blocked by each finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

struct Known {
    kind: &'static str,
    reason: &'static str,
    message: &'static str,
}

/// The conditions in their order, with the message if there is no problem.
const CONDITIONS: [Known; 5] = [
    Known {
        kind: "NamespaceDeletionDiscoveryFailure",
        reason: "ResourcesDiscovered",
        message: "All resources successfully discovered",
    },
    Known {
        kind: "NamespaceDeletionGroupVersionParsingFailure",
        reason: "ParsedGroupVersions",
        message: "All legacy kube types successfully parsed",
    },
    Known {
        kind: "NamespaceDeletionContentFailure",
        reason: "ContentDeleted",
        message: "All content successfully deleted, may be waiting on finalization",
    },
    Known {
        kind: "NamespaceContentRemaining",
        reason: "ContentRemoved",
        message: "All content successfully removed",
    },
    Known {
        kind: "NamespaceFinalizersRemaining",
        reason: "ContentHasNoFinalizers",
        message: "All content-preserving finalizers finished",
    },
];

impl Findings {
    /// Reason and message of a condition that has a problem.
    fn trouble(&self, kind: &str) -> Option<(&'static str, String)> {
        match kind {
            "NamespaceDeletionDiscoveryFailure" => {
                Some(("DiscoveryFailed", self.discovery.clone()?))
            }
            "NamespaceDeletionContentFailure" if !self.failures.is_empty() => {
                let mut failures = self.failures.clone();
                failures.sort();
                let message = format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    failures.len(),
                    failures.join(", ")
                );
                Some(("ContentDeletionFailed", message))
            }
            "NamespaceContentRemaining" => {
                let remaining = self.remaining.as_ref().filter(|left| !left.is_empty())?;
                let each: Vec<String> = remaining
                    .iter()
                    .map(|(resource, count)| format!("{resource} has {count} resource instances"))
                    .collect();
                let message = format!("Some resources are remaining: {}", each.join(", "));
                Some(("SomeResourcesRemain", message))
            }
            "NamespaceFinalizersRemaining"
                if self.remaining.is_some() && !self.finalizers.is_empty() =>
            {
                let each: Vec<String> = self
                    .finalizers
                    .iter()
                    .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
                    .collect();
                let message = format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    each.join(", ")
                );
                Some(("SomeFinalizersRemain", message))
            }
            _ => None,
        }
    }

    /// Updates the conditions of a status; returns whether they changed.
    pub fn apply(&self, status: &mut NamespaceStatus, now: &Time) -> bool {
        let mut changed = false;
        let conditions = status.conditions.get_or_insert_default();
        for known in &CONDITIONS {
            let trouble = self.trouble(known.kind);
            let state = if trouble.is_some() { "True" } else { "False" };
            let (reason, message) =
                trouble.unwrap_or_else(|| (known.reason, known.message.to_owned()));
            let new = NamespaceCondition {
                type_: known.kind.to_owned(),
                status: state.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: Some(now.clone()),
            };
            match conditions.iter_mut().find(|had| had.type_ == new.type_) {
                None => {
                    conditions.push(new);
                    changed = true;
                }
                Some(had) => {
                    let same_state = had.status == new.status;
                    if same_state && had.reason == new.reason && had.message == new.message {
                        continue;
                    }
                    let since = had.last_transition_time.take();
                    *had = new;
                    if same_state {
                        had.last_transition_time = since;
                    }
                    changed = true;
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn told(status: &NamespaceStatus) -> Vec<String> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .filter(|condition| condition.status == "True")
            .map(|condition| {
                format!(
                    "{}: {}: {}",
                    condition.type_,
                    condition.reason.as_deref().unwrap_or_default(),
                    condition.message.as_deref().unwrap_or_default()
                )
            })
            .collect()
    }

    #[test]
    fn what_remains_is_told_and_later_that_nothing_does() {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let mut status = NamespaceStatus::default();
        let held = Findings {
            failures: vec!["b".to_owned(), "a".to_owned()],
            remaining: Some(BTreeMap::from([
                ("pods.".to_owned(), 1),
                ("deployments.apps".to_owned(), 2),
            ])),
            finalizers: BTreeMap::from([("example.com/hold".to_owned(), 3)]),
            ..Findings::default()
        };
        assert!(held.apply(&mut status, &at(1)));
        assert_eq!(
            told(&status),
            [
                "NamespaceDeletionContentFailure: ContentDeletionFailed: Failed to delete all resource types, 2 remaining: a, b",
                "NamespaceContentRemaining: SomeResourcesRemain: Some resources are remaining: deployments.apps has 2 resource instances, pods. has 1 resource instances",
                "NamespaceFinalizersRemaining: SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 3 resource instances",
            ]
        );
        assert!(!held.apply(&mut status, &at(2)), "nothing new");
        assert!(Findings::default().apply(&mut status, &at(3)));
        assert_eq!(told(&status), [""; 0]);
        let times: Vec<i64> = status
            .conditions
            .iter()
            .flatten()
            .filter_map(|condition| Some(condition.last_transition_time.as_ref()?.0.as_second()))
            .collect();
        assert_eq!(times, [1, 1, 3, 3, 3]);
    }
}
