//! replicaset-controller and replicationcontroller-controller: keep a number of pods. Follows
//! k8s.io/kubernetes/pkg/controller/replicaset.

mod kind;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};

pub use self::kind::Replicas;
use super::pods::{
    BURST, Outcome, PodControl, Pods, from_template, is_active, is_available, millis_until_next,
    rank_for_deletion, slowly, together,
};
use super::workload::{Unfinished, after_millis, queue_of, wake_owners, write_status};
use crate::client::Context;
use crate::client::events::Recorder;
use crate::client::informer::{Informer, Key};
use crate::client::kinds::Pod;
use crate::client::owners::{Claims, controller_of, controller_reference};
use crate::client::queue::Next;
use crate::client::selector::selects;

const WORKERS: usize = 5;

/// Runs the controller of replica sets.
pub async fn replica_sets(context: Context) {
    run::<ReplicaSet>(context).await;
}

/// Runs the controller of replication controllers.
pub async fn replication_controllers(context: Context) {
    run::<v1::ReplicationController>(context).await;
}

async fn run<K: Replicas + Resource<Scope = NamespaceResourceScope>>(context: Context) {
    let pods = Pods::of(&context.informers);
    let sets = context.informers.of::<K>();
    let queue = queue_of(&sets);
    wake_owners(&pods.cache, &sets, &queue, fits::<K>);
    let recorder = context.recorder(K::COMPONENT);
    let look = |key: Key| {
        let (context, pods, sets, recorder) = (&context, &pods, &sets, &recorder);
        async move { sync::<K>(context, pods, sets, recorder, &key).await }
    };
    context.work(&queue, WORKERS, look).await;
}

fn fits<K: Replicas>(set: &K, pod: &Pod) -> bool {
    selects(&set.selector(), pod.metadata.labels.as_ref()).unwrap_or(false)
}

/// Syncs one set.
async fn sync<K: Replicas + Resource<Scope = NamespaceResourceScope>>(
    context: &Context,
    pods: &Pods,
    sets: &Informer<K>,
    recorder: &Recorder,
    key: &Key,
) -> Result<Next, Unfinished> {
    let Some(set) = sets.get(&key.namespace, &key.name) else {
        return Ok(Next::Done);
    };
    let own = pods.owned(set.meta());
    let claims = Claims::<_, Pod>::of(&context.client, &*set, None);
    let mut candidates = pods.candidates(set.meta());
    candidates.retain(|pod| is_active(pod));
    let active = claims.take(candidates, |pod| fits(&*set, pod)).await?;
    let ending = own
        .iter()
        .filter(|pod| pod.is_deleting() && !pod.is_terminal() && fits(&*set, pod))
        .count();
    let mut failure = None;
    if set.meta().deletion_timestamp.is_none() {
        let control = PodControl {
            client: &context.client,
            recorder,
            owner: &*set,
        };
        let crowds = || related(&*set, sets, pods);
        let outcome = manage(&control, &*set, &mut active.clone(), crowds).await;
        pods.cache.reach(outcome.newest().as_deref()).await;
        failure = outcome.refusal;
    }
    let now = Timestamp::now();
    let status = status(&*set, &active, ending, failure.as_deref(), now);
    if !same(&status, &set.status()) {
        write_status(&context.client, sets, &*set, |set| {
            set.with_status(status.clone())
        })
        .await?;
    }
    if let Some(failure) = failure {
        return Err(Unfinished::Refused(failure));
    }
    let due = millis_until_next(&active, set.min_ready_seconds(), now);
    Ok(after_millis(due))
}

/// Creates missing pods, or deletes surplus ones; `crowds` has the number of related pods on each node.
async fn manage<K: Replicas>(
    control: &PodControl<'_, K>,
    set: &K,
    active: &mut [Arc<Pod>],
    crowds: impl Fn() -> HashMap<String, usize>,
) -> Outcome {
    let wanted = usize::try_from(set.wanted()).unwrap_or(0);
    if active.len() < wanted {
        let Some(template) = set.template() else {
            return Outcome::default();
        };
        let count = (wanted - active.len()).min(BURST);
        let pod = from_template(template, &set.name_any(), controller_reference(set), None);
        return slowly(count, |_| control.create(&pod)).await;
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Outcome::default();
    }
    if surplus < active.len() {
        rank_for_deletion(active, &crowds(), Timestamp::now());
    }
    let names: Vec<String> = active[..surplus].iter().map(|pod| pod.name_any()).collect();
    together(names.iter().map(|name| control.delete(name))).await
}

/// The number of active pods on each node that belong to sets with the same owner.
fn related<K: Replicas>(set: &K, sets: &Informer<K>, pods: &Pods) -> HashMap<String, usize> {
    let owner = controller_of(set.meta()).map(|owner| owner.uid.clone());
    let namespace = set.meta().namespace.as_deref().unwrap_or_default();
    let mut together = HashMap::new();
    for (_, other) in sets.list(namespace) {
        let same = other.meta().uid == set.meta().uid
            || (owner.is_some()
                && controller_of(other.meta()).map(|owner| &owner.uid) == owner.as_ref());
        if !same {
            continue;
        }
        for pod in pods.owned(other.meta()).iter().filter(|pod| is_active(pod)) {
            let node = pod.spec.node_name.clone().unwrap_or_default();
            *together.entry(node).or_insert(0) += 1;
        }
    }
    together
}

/// The new status of a set.
fn status<K: Replicas>(
    set: &K,
    active: &[Arc<Pod>],
    ending: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let count = |is: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|pod| is(pod)).count()).unwrap_or(i32::MAX)
    };
    let labels = set
        .template()
        .and_then(|template| template.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let is_labeled = |pod: &Pod| {
        let own = pod.labels();
        labels
            .iter()
            .all(|(key, value)| own.get(key) == Some(value))
    };
    let had = set.status();
    let mut conditions = had.conditions.clone().unwrap_or_default();
    let failed =
        |condition: &ReplicaSetCondition| condition.type_.as_deref() == Some("ReplicaFailure");
    match failure {
        None => conditions.retain(|condition| !failed(condition)),
        Some(message) if !conditions.iter().any(failed) => {
            let reason = if i32::try_from(active.len()).unwrap_or(i32::MAX) < set.wanted() {
                "FailedCreate"
            } else {
                "FailedDelete"
            };
            conditions.push(ReplicaSetCondition {
                type_: Some("ReplicaFailure".to_owned()),
                status: Some("True".to_owned()),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now)),
            });
        }
        Some(_) => {}
    }
    let seconds = set.min_ready_seconds();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: Some(count(&is_labeled)),
        ready_replicas: Some(count(&|pod| pod.is_ready())),
        available_replicas: Some(count(&|pod| is_available(pod, seconds, now))),
        terminating_replicas: K::COUNTS_TERMINATING
            .then(|| i32::try_from(ending).unwrap_or(i32::MAX)),
        observed_generation: set.meta().generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// Whether two statuses are equal; missing numbers are zero.
fn same(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let numbers = |status: &ReplicaSetStatus| {
        (
            status.replicas,
            status.fully_labeled_replicas.unwrap_or(0),
            status.ready_replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
            status.terminating_replicas,
            status.observed_generation.unwrap_or(0),
        )
    };
    numbers(a) == numbers(b)
        && a.conditions.as_deref().unwrap_or_default()
            == b.conditions.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_counts_what_pods_are() {
        let set: ReplicaSet = serde_json::from_str(
            r#"{"metadata":{"name":"s","generation":3},"spec":{"replicas":3,"minReadySeconds":10,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b","c":"d"}}}}}"#,
        )
        .unwrap();
        let pod = |labels: &str, since: &str| -> Arc<Pod> {
            let ready =
                format!(r#"[{{"type":"Ready","status":"True","lastTransitionTime":"{since}"}}]"#);
            let conditions = if since.is_empty() {
                "[]".to_owned()
            } else {
                ready
            };
            let text = format!(
                r#"{{"metadata":{{"labels":{{{labels}}}}},"status":{{"phase":"Running","conditions":{conditions}}}}}"#
            );
            Arc::new(serde_json::from_str(&text).unwrap())
        };
        let active = [
            pod(r#""a":"b","c":"d""#, "2026-01-01T00:00:00Z"),
            pod(r#""a":"b""#, "2026-01-01T00:00:25Z"),
        ];
        let now: Timestamp = "2026-01-01T00:00:30Z".parse().unwrap();
        let made = status(&set, &active, 1, Some("no"), now);
        assert_eq!(
            (
                made.replicas,
                made.fully_labeled_replicas,
                made.ready_replicas,
                made.available_replicas,
                made.terminating_replicas,
                made.observed_generation
            ),
            (2, Some(1), Some(2), Some(1), Some(1), Some(3))
        );
        let condition = &made.conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        let failed = set.with_status(made.clone());
        assert!(same(
            &status(&failed, &active, 1, Some("still no"), now),
            &made
        ));
        assert_eq!(status(&failed, &active, 1, None, now).conditions, None);
    }
}
