//! statefulset-controller: runs pods with stable names, in order, each with its own claims. Follows
//! k8s.io/kubernetes/pkg/controller/statefulset.

mod claims;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use self::claims::{made, pod_name};
use self::plan::{Facts, POD_NAME, Plan, split};
use super::history::{self, POD_HASH, Past};
use super::pods::{Pods, Versions, from_template, millis_until_next, slowly, together};
use super::workload::{Unfinished, after_millis, queue_of, wake_owners, write_status};
use crate::client::Context;
use crate::client::errors::{is_already_exists, is_conflict, is_not_found, is_terminating, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::{Claim, Pod};
use crate::client::owners::controller_reference;
use crate::client::queue::Next;
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
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
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
        let templates = (history::template(current), &set.spec.template);
        let failure = self
            .carry_out(&set, &pods, &plan, &templates, &current_name, &update_name)
            .await;
        let had = set.status.as_ref();
        if !had.is_some_and(|had| same(&plan.status, had)) {
            write_status(&self.context.client, &self.sets, &set, |set| StatefulSet {
                status: Some(plan.status.clone()),
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
        if let Some(failure) = failure {
            return Err(Unfinished::Refused(failure));
        }
        let seconds = set.spec.min_ready_seconds.unwrap_or(0);
        Ok(after_millis(millis_until_next(&pods, seconds, now)))
    }

    /// Carries out a plan. Returns the first error message.
    async fn carry_out(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        plan: &Plan,
        templates: &(Option<PodTemplateSpec>, &PodTemplateSpec),
        current: &str,
        update: &str,
    ) -> Option<String> {
        let mut outcome = slowly(plan.create.len(), |i| {
            let (ordinal, newer) = plan.create[i];
            let (template, revision) = match (&templates.0, newer) {
                (Some(older), false) => (older, current),
                _ => (templates.1, update),
            };
            self.create(set, ordinal, template, revision)
        })
        .await;
        let pod_at = |ordinal: i32| {
            let name = pod_name(set, ordinal);
            pods.iter().find(|pod| pod.name_any() == name)
        };
        for ordinal in &plan.claims {
            outcome.take(self.ensure_claims(set, *ordinal).await.map(|()| None));
        }
        for ordinal in plan.repair.iter().chain(&plan.claims) {
            if let Some(pod) = pod_at(*ordinal) {
                outcome.take(self.repair(set, pod, *ordinal).await);
            }
        }
        let deletions = plan.delete.iter().map(|name| self.delete(set, name));
        outcome.add(together(deletions).await);
        self.pods.cache.reach(outcome.newest().as_deref()).await;
        outcome.refusal
    }

    fn tell(&self, set: &StatefulSet, verb: &str, what: &str, failure: Option<&str>) {
        let name = set.name_any();
        match failure {
            None => self.recorder.tell(
                set,
                Tone::Normal,
                &format!("Successful{verb}"),
                format!("{verb} {what} in StatefulSet {name} successful"),
            ),
            Some(why) => self.recorder.tell(
                set,
                Tone::Warning,
                &format!("Failed{verb}"),
                format!("{verb} {what} in StatefulSet {name} failed error: {why}"),
            ),
        }
    }

    async fn create(
        &self,
        set: &StatefulSet,
        ordinal: i32,
        template: &PodTemplateSpec,
        revision: &str,
    ) -> Result<Option<String>, String> {
        let name = pod_name(set, ordinal);
        let what = format!("Pod {name}");
        if let Err(why) = self.ensure_claims(set, ordinal).await {
            self.tell(set, "Create", &what, Some(&why));
            return Err(why);
        }
        let pod = make_pod(set, ordinal, template, revision);
        let api = self.api(set);
        match api.create(&PostParams::default(), &pod).await {
            Ok(made) => {
                self.tell(set, "Create", &what, None);
                Ok(made.resource_version())
            }
            Err(error) if is_terminating(&error) => Ok(None),
            Err(error) => {
                // The existing pod is not this set's, or not in the cache yet.
                if !is_already_exists(&error) {
                    self.tell(set, "Create", &what, Some(&text(&error)));
                }
                Err(text(&error))
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, name: &str) -> Result<Option<String>, String> {
        let what = format!("Pod {name}");
        match self.api(set).delete(name, &DeleteParams::default()).await {
            Ok(deleted) => {
                self.tell(set, "Delete", &what, None);
                Ok(deleted.left().and_then(|pod| pod.resource_version()))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => {
                self.tell(set, "Delete", &what, Some(&text(&error)));
                Err(text(&error))
            }
        }
    }

    fn api(&self, set: &StatefulSet) -> Api<v1::Pod> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn claim_api(&self, set: &StatefulSet) -> Api<v1::PersistentVolumeClaim> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// Creates the missing claims of a pod.
    async fn ensure_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), String> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let mut failures = Vec::new();
        let mut versions = Versions::default();
        for (_, claim) in made(set, ordinal) {
            let name = claim.name_any();
            match claims::Claims::get(&self.claims, namespace, &name) {
                Some(found) if found.metadata.deletion_timestamp.is_some() => {
                    failures.push(format!("pvc {name} is being deleted"));
                }
                Some(_) => {}
                None => {
                    let what = format!("Claim {name} Pod {}", pod_name(set, ordinal));
                    match self
                        .claim_api(set)
                        .create(&PostParams::default(), &claim)
                        .await
                    {
                        Ok(made) => {
                            versions.add(made.resource_version());
                            self.recorder.tell(
                                set,
                                Tone::Normal,
                                "SuccessfulCreate",
                                format!("Create {what} in StatefulSet {} success", set.name_any()),
                            );
                        }
                        Err(error) if is_already_exists(&error) => {}
                        Err(error) if is_terminating(&error) => return Ok(()),
                        Err(error) => {
                            let why = text(&error);
                            failures.push(format!("failed to create PVC {name}: {why}"));
                            let message = format!(
                                "Create Claim {name} for Pod {} in StatefulSet {} failed error: {why}",
                                pod_name(set, ordinal),
                                set.name_any()
                            );
                            self.recorder
                                .tell(set, Tone::Warning, "FailedCreate", message);
                        }
                    }
                }
            }
        }
        self.claims.reach(versions.newest().as_deref()).await;
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures.join(", "))
        }
    }

    /// Corrects the labels of a pod, and the owners of its claims.
    async fn repair(
        &self,
        set: &StatefulSet,
        pod: &Pod,
        ordinal: i32,
    ) -> Result<Option<String>, String> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let mut versions = Versions::default();
        for (_, claim) in made(set, ordinal) {
            let name = claim.name_any();
            let Some(found) = claims::Claims::get(&self.claims, namespace, &name) else {
                continue;
            };
            let pod_name = pod_name(set, ordinal);
            if claims::is_managed(&found.metadata, set, Some(pod), &pod_name) {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
                );
                self.recorder
                    .tell(set, Tone::Warning, "ConflictingController", message);
            }
            if claims::owners(&found.metadata, set, Some(pod), ordinal).is_none() {
                continue;
            }
            // The cache has only parts of a claim, and this controller may not patch claims.
            let api = self.claim_api(set);
            let whole = api.get_opt(&name).await.map_err(|error| text(&error))?;
            let Some(mut whole) = whole else { continue };
            let owners = claims::owners(&whole.metadata, set, Some(pod), ordinal);
            if owners.is_none() {
                continue;
            }
            whole.metadata.owner_references = owners;
            let written = api.replace(&name, &PostParams::default(), &whole).await;
            let written = written.map_err(|error| text(&error))?;
            versions.add(written.resource_version());
        }
        self.claims.reach(versions.newest().as_deref()).await;
        let name = pod.name_any();
        if pod.labels().get(POD_NAME) == Some(&name) {
            return Ok(None);
        }
        let labels = json!({POD_NAME: name, "apps.kubernetes.io/pod-index": ordinal.to_string()});
        let patch = json!({"metadata": {"labels": labels, "uid": pod.metadata.uid}});
        let what = format!("Pod {name}");
        match self
            .api(set)
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(written) => {
                self.tell(set, "Update", &what, None);
                Ok(written.resource_version())
            }
            Err(error) => {
                self.tell(set, "Update", &what, Some(&text(&error)));
                Err(text(&error))
            }
        }
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
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(
        "apps.kubernetes.io/pod-index".to_owned(),
        ordinal.to_string(),
    );
    labels.insert(POD_HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain.clone_from(&set.spec.service_name);
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
    pod
}
