//! statefulset-controller: runs pods with stable names, in order, each with its own claims. Follows
//! k8s.io/kubernetes/pkg/controller/statefulset.

mod acts;
mod claims;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use self::acts::Acts;
use self::claims::{made, pod_name};
use self::plan::{Facts, POD_NAME, split};
use super::history::{self, POD_HASH, Past};
use super::pods::{Pods, from_template, millis_until_next};
use super::workload::{Unfinished, after_millis, queue_of, wake_owners, write_status};
use crate::client::Context;
use crate::client::errors::{is_conflict, is_terminating};
use crate::client::events::Recorder;
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::{Claim, Pod};
use crate::client::owners::controller_reference;
use crate::client::queue::{Next, Queue};
use crate::client::selector::selects;

const WORKERS: usize = 5;

impl Cached for StatefulSet {}

struct Controller {
    context: Context,
    sets: Informer<StatefulSet>,
    revisions: Informer<ControllerRevision>,
    claims: Informer<Claim>,
    pods: Pods,
    recorder: Recorder,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Controller {
        sets: context.informers.of::<StatefulSet>(),
        revisions: context.informers.of::<ControllerRevision>(),
        claims: context.informers.of::<Claim>(),
        pods: Pods::of(&context.informers),
        recorder: context.recorder("statefulset-controller"),
        context,
    };
    let queue = queue_of(&controller.sets);
    history::wake::<StatefulSet>(&controller.revisions, &queue);
    wake_owners(&controller.pods.cache, &controller.sets, &queue, fits);
    wake_claimants(&controller.claims, &controller.sets, &queue);
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
}

/// Enqueues the set whose claim is gone: as long as a pod's claim is still its predecessor's, the pod is not created.
fn wake_claimants(claims: &Informer<Claim>, sets: &Informer<StatefulSet>, queue: &Arc<Queue<Key>>) {
    let sets = sets.clone();
    claims.enqueue(queue, move |change| -> Vec<Key> {
        if change.new.is_some() {
            return Vec::new();
        }
        let sets = sets.list(&change.key.namespace).into_iter();
        sets.filter(|(_, set)| claims::has(set, &change.key.name))
            .map(|(key, _)| key)
            .collect()
    });
}

/// Whether a set's selector and name match a pod.
fn fits(set: &StatefulSet, pod: &Pod) -> bool {
    split(&pod.name_any()).is_some_and(|(parent, _)| parent == set.name_any())
        && selects(&set.spec.selector, pod.metadata.labels.as_ref()).unwrap_or(false)
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<Next, Unfinished> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let past = Past {
            client: &self.context.client,
            cache: &self.revisions,
            owner: &*set,
            selector: &set.spec.selector,
            label: history::HASH,
        };
        let mut revisions = past.revisions().await?;
        let pods = self
            .pods
            .claimed(&self.context.client, &*set, None, fits)
            .await?;
        let status = set.status.as_ref();
        let mut collisions = status
            .and_then(|status| status.collision_count)
            .unwrap_or(0);
        let update = match past
            .update(&mut revisions, &set.spec.template, &mut collisions)
            .await
        {
            Ok(update) => update,
            Err(error) if is_terminating(&error) => return Ok(Next::Done),
            Err(error) if is_conflict(&error) => return Ok(Next::Retry),
            Err(error) => return Err(error.into()),
        };
        let named = status.and_then(|status| status.current_revision.as_deref());
        let current = revisions
            .iter()
            .find(|revision| revision.metadata.name.as_deref() == named);
        let current = current.unwrap_or(&update);
        let (current_name, update_name) = (current.name_any(), update.name_any());
        let now = Timestamp::now();
        let plan = plan::plan(&Facts {
            set: &set,
            pods: &pods,
            current: &current_name,
            update: &update_name,
            collisions,
            claims: &self.claims,
            now,
        });
        let older = history::template(current);
        let acts = Acts {
            controller: self,
            set: &set,
            pods: &pods,
            current: (older.as_ref(), &current_name),
            update: (&set.spec.template, &update_name),
        };
        let done = acts.carry_out(&plan).await;
        let mut status = plan.status;
        if let Some(current) = status.current_replicas.as_mut() {
            *current -= i32::try_from(done.outdated).unwrap_or(0);
        }
        let had = set.status.as_ref();
        if !had.is_some_and(|had| same(&status, had)) {
            write_status(&self.context.client, &self.sets, &set, |set| StatefulSet {
                status: Some(status.clone()),
                ..set.clone()
            })
            .await?;
        }
        let live = pods
            .iter()
            .filter_map(|pod| pod.labels().get(POD_HASH).cloned());
        let live: BTreeSet<String> = live.chain([current_name.clone(), update_name]).collect();
        let limit = set.spec.revision_history_limit.unwrap_or(10);
        past.truncate(&revisions, &live, limit).await?;
        if let Some(failure) = done.failure {
            return Err(Unfinished::Refused(failure));
        }
        let seconds = set.spec.min_ready_seconds.unwrap_or(0);
        Ok(after_millis(millis_until_next(&pods, seconds, now)))
    }
}

/// Whether two statuses are equal; missing numbers are zero.
fn same(a: &StatefulSetStatus, b: &StatefulSetStatus) -> bool {
    let numbers = |status: &StatefulSetStatus| {
        let counts = [
            status.ready_replicas,
            status.available_replicas,
            status.current_replicas,
            status.updated_replicas,
            status.collision_count,
        ];
        (
            status.replicas,
            counts.map(|count| count.unwrap_or(0)),
            status.observed_generation.unwrap_or(0),
            status.current_revision.clone().unwrap_or_default(),
            status.update_revision.clone().unwrap_or_default(),
            status.conditions.clone().unwrap_or_default(),
        )
    };
    numbers(a) == numbers(b)
}

/// The pod for a place.
fn make_pod(
    set: &StatefulSet,
    ordinal: i32,
    template: &PodTemplateSpec,
    revision: &str,
) -> v1::Pod {
    let name = pod_name(set, ordinal);
    let owner = controller_reference(set);
    let mut pod = from_template(template, &set.name_any(), owner, Some(name.clone()));
    let labels = pod.metadata.labels.get_or_insert_default();
    identify(labels, &name, ordinal);
    labels.insert(POD_HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain.clone_from(&set.spec.service_name);
    store(set, ordinal, spec);
    pod
}

/// The labels by which a pod is known.
fn identify(labels: &mut BTreeMap<String, String>, name: &str, ordinal: i32) {
    labels.insert(POD_NAME.to_owned(), name.to_owned());
    labels.insert(
        "apps.kubernetes.io/pod-index".to_owned(),
        ordinal.to_string(),
    );
}

/// Makes a pod use the claims of its ordinal.
fn store(set: &StatefulSet, ordinal: i32, spec: &mut v1::PodSpec) {
    let claims = made(set, ordinal);
    let own = spec.volumes.take().unwrap_or_default();
    let others = own
        .into_iter()
        .filter(|volume| !claims.iter().any(|(name, _)| *name == volume.name));
    let volumes: Vec<v1::Volume> = claims
        .iter()
        .map(|(name, claim)| v1::Volume {
            name: name.clone(),
            persistent_volume_claim: Some(v1::PersistentVolumeClaimVolumeSource {
                claim_name: claim.name_any(),
                read_only: None,
            }),
            ..v1::Volume::default()
        })
        .chain(others)
        .collect();
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
}
