//! daemonset-controller: runs a pod on every node that a template allows. The scheduler places the pods; each names its
//! node by an affinity. Follows k8s.io/kubernetes/pkg/controller/daemon.

mod backoff;
mod place;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use self::backoff::Backoff;
use self::place::{Place, Places};
use self::plan::{Facts, Plan};
use super::history::{self, POD_HASH, Past};
use super::pods::{Outcome, PodControl, Pods, from_template, millis_until_next, slowly, together};
use super::workload::{Unfinished, queue_of, wake_owners, write_status};
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found, is_terminating};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::{Node, Pod};
use crate::client::owners::controller_reference;
use crate::client::queue::{Next, Queue};
use crate::client::selector::selects;

const WORKERS: usize = 2;
/// The most pods of one set that are created or deleted in one sync, because all nodes pull the image at once.
const BURST: usize = 250;

impl Cached for DaemonSet {}

struct Controller {
    context: Context,
    sets: Informer<DaemonSet>,
    revisions: Informer<ControllerRevision>,
    nodes: Informer<Node>,
    pods: Pods,
    recorder: Recorder,
    backoff: Backoff,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Controller {
        sets: context.informers.of::<DaemonSet>(),
        revisions: context.informers.of::<ControllerRevision>(),
        nodes: context.informers.of::<Node>(),
        pods: Pods::of(&context.informers),
        backoff: Backoff::default(),
        recorder: context.recorder("daemonset-controller"),
        context,
    };
    let queue = queue_of(&controller.sets);
    history::wake::<DaemonSet>(&controller.revisions, &queue);
    wake_owners(&controller.pods.cache, &controller.sets, &queue, fits);
    wake_on_nodes(&controller.nodes, &controller.sets, &queue);
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
}

/// Whether a set's selector matches a pod.
fn fits(set: &DaemonSet, pod: &Pod) -> bool {
    selects(&set.spec.selector, pod.metadata.labels.as_ref()).unwrap_or(false)
}

/// Enqueues the sets for which a change of a node makes a difference.
fn wake_on_nodes(nodes: &Informer<Node>, sets: &Informer<DaemonSet>, queue: &Arc<Queue<Key>>) {
    let sets = sets.clone();
    nodes.enqueue(queue, move |change| {
        let is_concerned = |set: &DaemonSet| {
            let places = Places::of(set);
            let place = |node: Option<&Arc<Node>>| node.map(|node| places.look(node));
            let (before, after) = (place(change.old), place(change.new));
            let misplaced = set
                .status
                .as_ref()
                .is_some_and(|status| status.number_misscheduled > 0);
            let is_other = before.unwrap_or(Place::Barred) != after.unwrap_or(Place::Barred);
            is_other || misplaced
        };
        let is_moved = change.alters(|node| (&node.metadata.labels, &node.spec.taints));
        let sets = is_moved.then(|| sets.all()).into_iter().flatten();
        sets.filter(|(_, set)| is_concerned(set))
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    });
}

/// The hash of a revision; its name if it has none.
fn hash_of(revision: &ControllerRevision) -> String {
    let hash = revision.labels().get(POD_HASH).cloned();
    hash.unwrap_or_else(|| revision.name_any())
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<Next, Unfinished> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        if set.spec.selector == LabelSelector::default() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder
                .tell(&*set, Tone::Warning, "SelectingAll", message);
            return Ok(Next::Done);
        }
        // Its revisions may already be deleted.
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let past = Past {
            client: &self.context.client,
            cache: &self.revisions,
            owner: &*set,
            selector: &set.spec.selector,
            label: POD_HASH,
        };
        let mut revisions = past.revisions().await?;
        let pods = self
            .pods
            .claimed(&self.context.client, &*set, None, fits)
            .await?;
        let had = set.status.clone().unwrap_or_default();
        let mut collisions = had.collision_count.unwrap_or(0);
        let newest = match past
            .update(&mut revisions, &set.spec.template, &mut collisions)
            .await
        {
            Ok(newest) => newest,
            Err(error) if is_terminating(&error) => return Ok(Next::Done),
            Err(error) if is_conflict(&error) => return Ok(Next::Retry),
            Err(error) => return Err(error.into()),
        };
        let hash = hash_of(&newest);
        self.join_doubles(&set, &mut revisions, &pods, &hash)
            .await?;
        let places = Places::of(&set);
        let nodes: Vec<Arc<Node>> = self.nodes.all().into_iter().map(|(_, node)| node).collect();
        let backoff = self.backoff_of(&set);
        let mut facts = Facts {
            set: &set,
            places: &places,
            nodes: &nodes,
            pods: &pods,
            hash: &hash,
            left: &|node| self.backoff.left(&backoff(node), Instant::now()),
            now: Timestamp::now(),
        };
        let plan = plan::plan(&facts);
        for node in &plan.failed {
            self.backoff.fail(backoff(node), Instant::now());
        }
        let outcome = self.carry_out(&set, &plan, &hash).await;
        self.pods.cache.reach(outcome.newest().as_deref()).await;
        let mut now_there = self.pods.owned(&set.metadata);
        now_there.retain(|pod| fits(&set, pod));
        (facts.pods, facts.now) = (&now_there, Timestamp::now());
        let mut status = plan::status(&facts, &had);
        status.collision_count = (collisions > 0).then_some(collisions);
        if !plan::same(&status, &had) {
            write_status(&self.context.client, &self.sets, &set, |set| DaemonSet {
                status: Some(status.clone()),
                ..set.clone()
            })
            .await?;
        }
        if let Some(refusal) = outcome.refusal {
            return Err(Unfinished::Refused(refusal));
        }
        self.forget_old(&past, &set, &revisions, &now_there, &newest)
            .await?;
        let seconds = set.spec.min_ready_seconds.unwrap_or(0);
        let ready = millis_until_next(&now_there, seconds, facts.now);
        let ready = ready.map(|millis| Duration::from_millis(millis.unsigned_abs()));
        let next = ready.into_iter().chain(plan.again).min();
        Ok(next.map_or(Next::Done, Next::After))
    }

    /// Maps a node to the set's place in the back-off.
    fn backoff_of(&self, set: &DaemonSet) -> impl Fn(&str) -> (String, i64, String) {
        let uid = set.uid().unwrap_or_default();
        let status = set.status.as_ref();
        let generation = status.and_then(|status| status.observed_generation);
        move |node| (uid.clone(), generation.unwrap_or(0), node.to_owned())
    }

    /// Deletes revisions that equal the newest one, after relabelling their pods.
    async fn join_doubles(
        &self,
        set: &DaemonSet,
        revisions: &mut Vec<ControllerRevision>,
        pods: &[Arc<Pod>],
        hash: &str,
    ) -> Result<(), kube::Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for double in history::doubles(revisions) {
            let theirs = hash_of(&double);
            let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
            let label = json!({"metadata": {"labels": {POD_HASH: hash}}});
            for pod in pods
                .iter()
                .filter(|pod| pod.labels().get(POD_HASH) == Some(&theirs))
            {
                let params = PatchParams::default();
                api.patch(&pod.name_any(), &params, &Patch::Merge(&label))
                    .await?;
            }
            let api: Api<ControllerRevision> =
                Api::namespaced(self.context.client.clone(), namespace);
            let params = DeleteParams::default();
            match api.delete(&double.name_any(), &params).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the oldest revisions that no pod has. Those that pods have count towards the limit.
    async fn forget_old(
        &self,
        past: &Past<'_, DaemonSet>,
        set: &DaemonSet,
        revisions: &[ControllerRevision],
        pods: &[Arc<Pod>],
        newest: &ControllerRevision,
    ) -> Result<(), kube::Error> {
        let hashes: BTreeSet<&String> = pods
            .iter()
            .filter_map(|pod| pod.labels().get(POD_HASH))
            .collect();
        let old = revisions
            .iter()
            .filter(|revision| revision.metadata.uid != newest.metadata.uid);
        let mut live: BTreeSet<String> = old
            .filter(|revision| hashes.contains(&hash_of(revision)))
            .map(|revision| revision.name_any())
            .collect();
        let limit = set.spec.revision_history_limit.unwrap_or(10);
        let limit = limit.saturating_sub(i32::try_from(live.len()).unwrap_or(i32::MAX));
        live.insert(newest.name_any());
        past.truncate(revisions, &live, limit.max(0)).await
    }

    /// Carries out a plan.
    async fn carry_out(&self, set: &DaemonSet, plan: &Plan, hash: &str) -> Outcome {
        for (tone, reason, message) in &plan.events {
            self.recorder.tell(set, *tone, reason, message.clone());
        }
        let control = PodControl {
            client: &self.context.client,
            recorder: &self.recorder,
            owner: set,
        };
        let owner = controller_reference(set);
        let pod = from_template(&place::template(set, hash), &set.name_any(), owner, None);
        let nodes = &plan.create[..plan.create.len().min(BURST)];
        let mut outcome = slowly(nodes.len(), |i| {
            let mut pod = pod.clone();
            place::bind_to(pod.spec.get_or_insert_default(), &nodes[i]);
            let control = &control;
            async move { control.create(&pod).await }
        })
        .await;
        let deletions = plan.delete.iter().take(BURST);
        outcome.add(together(deletions.map(|name| control.delete(name))).await);
        outcome
    }
}
