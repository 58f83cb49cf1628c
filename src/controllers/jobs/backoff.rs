//! How long a job waits before it replaces a failed pod. Follows k8s.io/kubernetes/pkg/controller/job/backoff_utils.go.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ContainerStatus;
use k8s_openapi::jiff::Timestamp;

use crate::client::kinds::Pod;

/// The delay after the first failure, in milliseconds; each further one doubles it.
const FIRST: i64 = 10_000;
/// The longest delay, in milliseconds.
const LONGEST: i64 = 600_000;

/// The failures of a job since its last success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    /// Their number.
    pub failures: u32,
    /// The time of the last one.
    pub last: Option<Timestamp>,
}

impl Backoff {
    /// The failures after these pods terminated.
    pub fn after(&self, succeeded: &[&Arc<Pod>], failed: &[&Arc<Pod>]) -> Backoff {
        let success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let failures: Vec<Timestamp> = failed.iter().map(|pod| finished_at(pod)).collect();
        let Some(success) = success else {
            return Backoff {
                failures: self.failures + u32::try_from(failures.len()).unwrap_or(u32::MAX),
                last: failures.into_iter().max().or(self.last),
            };
        };
        let later: Vec<Timestamp> = failures.into_iter().filter(|at| *at > success).collect();
        Backoff {
            failures: u32::try_from(later.len()).unwrap_or(u32::MAX),
            last: later.into_iter().max(),
        }
    }

    /// The remaining delay at `now`, in milliseconds.
    pub fn wait(&self, now: Timestamp) -> i64 {
        let Some(last) = self.last.filter(|_| self.failures > 0) else {
            return 0;
        };
        let whole = 1i64.checked_shl(self.failures - 1).filter(|all| *all > 0);
        let whole = whole.and_then(|times| FIRST.checked_mul(times));
        let whole = whole.map_or(LONGEST, |whole| whole.min(LONGEST));
        (whole - (now.as_millisecond() - last.as_millisecond())).max(0)
    }
}

/// When a pod terminated: by its containers, or when it became unready, or when it was deleted.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    let status = &pod.status;
    let goes_on = |name: &str| {
        let mut init = pod.spec.init_containers.iter();
        init.any(|container| {
            container.name == name && container.restart_policy.as_deref() == Some("Always")
        })
    };
    let ends = |statuses: &mut dyn Iterator<Item = &ContainerStatus>| -> Option<Vec<Timestamp>> {
        let end = |status: &ContainerStatus| {
            let ended = status.state.as_ref()?.terminated.as_ref()?;
            Some(ended.finished_at.as_ref()?.0)
        };
        statuses.map(end).collect()
    };
    let main = ends(&mut status.container_statuses.iter());
    let beside = ends(
        &mut status
            .init_container_statuses
            .iter()
            .filter(|status| goes_on(&status.name)),
    );
    let containers = beside.and_then(|beside| main.into_iter().flatten().chain(beside).max());
    let unready = || {
        let mut conditions = status.conditions.iter();
        let ready = conditions.find(|condition| condition.type_ == "Ready")?;
        let since = ready.last_transition_time.as_ref()?;
        (ready.status == "False").then_some(since.0)
    };
    let asked = || {
        let deleted = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let asked = deleted.as_second().checked_sub(grace)?;
        Timestamp::from_second(asked).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    containers
        .or_else(unready)
        .or_else(asked)
        .or_else(created)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> String {
        format!("2026-01-01T00:00:{second:02}Z")
    }

    fn pod(text: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_str(text).unwrap())
    }

    fn ended(second: u32) -> Arc<Pod> {
        pod(&format!(
            r#"{{"status":{{"conditions":[{{"type":"Ready","status":"False","lastTransitionTime":"{}"}}]}}}}"#,
            at(second)
        ))
    }

    #[test]
    fn failures_since_the_last_success_hold_pods_back_ever_longer() {
        let (three, five, seven) = (ended(3), ended(5), ended(7));
        let none = Backoff::default();
        let now: Timestamp = at(10).parse().unwrap();
        let last = |second: u32| Some(at(second).parse::<Timestamp>().unwrap());
        let two = none.after(&[], &[&five, &three]);
        assert_eq!((two.failures, two.last), (2, last(5)));
        assert_eq!(two.wait(now), 15_000);
        let more = two.after(&[], &[&seven]);
        assert_eq!((more.failures, more.wait(now)), (3, 37_000));
        assert_eq!(two.after(&[&seven], &[]), none);
        let since = two.after(&[&three], &[&five, &three, &seven]);
        assert_eq!((since.failures, since.last), (2, last(7)));
        assert_eq!(none.wait(now), 0);
        let many = Backoff {
            failures: 90,
            ..two
        };
        assert_eq!(many.wait(now), 595_000);
    }

    #[test]
    fn a_pod_ended_when_its_last_container_did() {
        let ended = |name: &str, second: u32| {
            format!(
                r#"{{"name":"{name}","image":"","imageID":"","ready":false,"restartCount":0,"state":{{"terminated":{{"exitCode":1,"finishedAt":"{}"}}}}}}"#,
                at(second)
            )
        };
        let runs = r#"{"name":"s","image":"","imageID":"","ready":true,"restartCount":0,"state":{"running":{}}}"#;
        let made = |containers: &str, init: &str| {
            pod(&format!(
                r#"{{"metadata":{{"creationTimestamp":"{}","deletionTimestamp":"{}","deletionGracePeriodSeconds":30}},
                "spec":{{"initContainers":[{{"name":"s","restartPolicy":"Always"}},{{"name":"i"}}]}},
                "status":{{"containerStatuses":[{containers}],"initContainerStatuses":[{init}]}}}}"#,
                at(1),
                at(59)
            ))
        };
        let both = format!("{},{}", ended("a", 4), ended("b", 6));
        for (containers, init, second) in [
            (both.as_str(), String::new(), 6),
            (&both, ended("s", 8), 8),
            (&both, ended("i", 9), 6),
            (&both, runs.to_owned(), 29),
            (runs, String::new(), 29),
            ("", String::new(), 29),
        ] {
            let found = finished_at(&made(containers, &init));
            assert_eq!(found.to_string(), at(second), "{containers} {init}");
        }
    }
}
