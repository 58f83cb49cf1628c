//! When a pod may use less of a quota than before.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Quotas, SETTLE};
use crate::admission::quota::usage::Evaluator;
use crate::client::informer::Informer;
use crate::client::kinds::Pod;

/// Watches pods. What a pod adds to a quota is charged by admission; what it frees is not. Follows
/// k8s.io/kubernetes/pkg/quota/v1/install/update_filter.go.
pub(super) fn watch(pods: &Informer<Pod>, quotas: &Arc<Quotas>, evaluator: Evaluator) {
    let quotas = Arc::downgrade(quotas);
    pods.subscribe(move |change| {
        let alters = change.old.is_some() && change.alters(Usage::of);
        if alters && let Some(quotas) = quotas.upgrade() {
            let own = quotas.cache.list(&change.key.namespace);
            quotas.add(own, &evaluator, SETTLE);
        }
    });
}

/// What decides, of all that may change in a pod, how much of a quota it uses: see [`Evaluator::usage`] and
/// [`Evaluator::in_scopes`].
#[derive(PartialEq)]
struct Usage<'a> {
    ended: bool,
    terminating: bool,
    /// A resize that its node can never do does not count.
    infeasible: bool,
    whole: Share<'a>,
    containers: Vec<Share<'a>>,
}

impl Usage<'_> {
    fn of(pod: &Pod) -> Usage<'_> {
        let (spec, status) = (&pod.spec, &pod.status);
        let deadline = spec.active_deadline_seconds;
        let mut conditions = status.conditions.iter();
        let pairs = [
            (&spec.containers, &status.container_statuses),
            (&spec.init_containers, &status.init_container_statuses),
        ];
        let containers = pairs.into_iter().flat_map(|(containers, statuses)| {
            containers.iter().map(|container| {
                let status = statuses.iter().find(|status| status.name == container.name);
                Share::of(
                    container.resources.as_ref(),
                    status.and_then(|status| status.allocated_resources.as_ref()),
                    status.and_then(|status| status.resources.as_ref()),
                )
            })
        });
        Usage {
            ended: pod.is_terminal(),
            terminating: deadline.is_some_and(|seconds| seconds >= 0),
            infeasible: conditions.any(|condition| {
                condition.type_ == "PodResizePending"
                    && condition.reason.as_deref() == Some("Infeasible")
            }),
            whole: Share::of(
                spec.resources.as_deref(),
                status.allocated_resources.as_ref(),
                status.resources.as_deref(),
            ),
            containers: containers.collect(),
        }
    }
}

/// What a container, or a pod as a whole, asks for, has been given, and uses.
#[derive(PartialEq)]
struct Share<'a> {
    asked: Option<&'a v1::ResourceRequirements>,
    given: Option<&'a BTreeMap<String, Quantity>>,
    in_use: Option<&'a v1::ResourceRequirements>,
}

impl<'a> Share<'a> {
    /// Until the node reports what is given and in use, that is what is asked for.
    fn of(
        asked: Option<&'a v1::ResourceRequirements>,
        given: Option<&'a BTreeMap<String, Quantity>>,
        in_use: Option<&'a v1::ResourceRequirements>,
    ) -> Self {
        Share {
            asked,
            given: given.or(asked.and_then(|asked| asked.requests.as_ref())),
            in_use: in_use.or(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::client::queue::Queue;

    #[tokio::test(start_paused = true)]
    async fn quotas_are_counted_when_a_pod_may_use_less_of_them() {
        let quotas = Arc::new(Quotas {
            cache: Informer::by_hand(),
            queue: Queue::new(),
            costs: Mutex::default(),
        });
        let text =
            r#"{"metadata":{"name":"q","namespace":"n"},"spec":{"hard":{"requests.cpu":"4"}}}"#;
        quotas
            .cache
            .put(serde_json::from_str(text).expect("a quota"));
        let pods = Informer::<Pod>::by_hand();
        let evaluator = Evaluator::for_names(["pods"]).remove(0);
        watch(&pods, &quotas, evaluator);
        let mut version = 0;
        let mut put = |asked: &str, rest: &str, status: &str| {
            version += 1;
            let text = format!(
                r#"{{"metadata":{{"name":"p","namespace":"n","resourceVersion":"{version}"}},"spec":{{"containers":[{{"name":"c","resources":{{"requests":{{"cpu":"{asked}"}}}}}}]{rest}}},"status":{{{status}}}}}"#
            );
            pods.put(serde_json::from_str(&text).expect("a pod"));
        };
        let runs = |given: &str, in_use: &str| {
            format!(
                r#""containerStatuses":[{{"name":"c","image":"","imageID":"","ready":true,"restartCount":0,"allocatedResources":{{"cpu":"{given}"}},"resources":{{"requests":{{"cpu":"{in_use}"}}}}}}]"#
            )
        };
        let ends = r#","activeDeadlineSeconds":5"#;
        let pending =
            r#""conditions":[{"type":"PodResizePending","status":"True","reason":"Infeasible"}],"#;
        for (asked, rest, status, wanted, why) in [
            ("4", "", String::new(), false, "admission charged it"),
            ("4", "", runs("4", "4"), false, "it runs as asked for"),
            ("1", "", runs("4", "4"), true, "it asks for less"),
            ("1", "", runs("1", "4"), true, "it was given less"),
            ("1", "", runs("1", "1"), true, "it uses less"),
            ("1", "", runs("1", "1"), false, "nothing changed"),
            (
                "1",
                "",
                pending.to_owned() + &runs("1", "1"),
                true,
                "what it asks for cannot be",
            ),
            (
                "1",
                ends,
                pending.to_owned() + &runs("1", "1"),
                true,
                "it left the scope NotTerminating",
            ),
            (
                "1",
                ends,
                r#""phase":"Failed""#.to_owned(),
                true,
                "it ended",
            ),
        ] {
            put(asked, rest, &status);
            tokio::time::advance(SETTLE).await;
            let counted = quotas.queue.next().now_or_never();
            assert_eq!(counted.is_some(), wanted, "{why}");
            if let Some(key) = counted {
                quotas.queue.done(&key);
            }
        }
    }
}
