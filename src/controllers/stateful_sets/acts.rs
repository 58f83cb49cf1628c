//! Carries out plans. Follows k8s.io/kubernetes/pkg/controller/statefulset/stateful_pod_control.go.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{self, PodTemplateSpec};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::claims::{self, are_used, made, pod_name};
use super::plan::{POD_NAME, Plan, is_parallel, start};
use super::{Controller, identify, make_pod, store};
use crate::client::errors::{is_already_exists, is_conflict, is_not_found, is_terminating, text};
use crate::client::events::Tone;
use crate::client::kinds::Pod;
use crate::controllers::pods::{Outcome, Versions, slowly, together};

/// How often a change is tried that conflicts with others.
const TRIES: usize = 5;

/// What a plan is carried out with.
pub(super) struct Acts<'a> {
    pub controller: &'a Controller,
    pub set: &'a StatefulSet,
    /// The pods of the set.
    pub pods: &'a [Arc<Pod>],
    /// The template, if it can be read, and the name of the current revision.
    pub current: (Option<&'a PodTemplateSpec>, &'a str),
    /// Those of the newer one.
    pub update: (&'a PodTemplateSpec, &'a str),
}

/// What became of a plan.
#[derive(Debug, PartialEq)]
pub(super) struct Done {
    /// How many pods of the older revision were deleted.
    pub outdated: usize,
    /// The first error message.
    pub failure: Option<String>,
}

/// The ordinal after the last one of the batch of `ordinal`: upstream looks at one pod of a parallel set, then at two,
/// then at four, and stops after the batch with a failure (`slowStartBatch`).
fn end_of_batch(start: i32, ordinal: i32) -> i32 {
    let position = i64::from(ordinal) - i64::from(start);
    let batch = (position + 1).max(1).ilog2();
    let end = i64::from(start) + (2i64 << batch) - 1;
    i32::try_from(end).unwrap_or(i32::MAX)
}

impl Acts<'_> {
    /// Carries out a plan up to the first step that fails; in a parallel set, up to the end of the batch of a pod that
    /// cannot be corrected.
    pub(super) async fn carry_out(&self, plan: &Plan) -> Done {
        let mut outcome = Outcome::default();
        let outdated = self.steps(plan, &mut outcome).await;
        let pods = &self.controller.pods.cache;
        pods.reach(outcome.newest().as_deref()).await;
        Done {
            outdated,
            failure: outcome.refusal,
        }
    }

    /// Returns how many pods of the older revision were deleted.
    async fn steps(&self, plan: &Plan, outcome: &mut Outcome) -> usize {
        let mut limit = i32::MAX;
        for ordinal in &plan.repair {
            if *ordinal >= limit {
                break;
            }
            let repaired = self.repair(*ordinal).await;
            if repaired.is_err() {
                limit = limit.min(end_of_batch(start(self.set), *ordinal));
            }
            outcome.take(repaired);
        }
        if outcome.refusal.is_some() && !is_parallel(self.set) {
            return 0;
        }
        let mut create = plan.create.clone();
        create.retain(|(ordinal, _)| *ordinal < limit);
        let make = |i: usize| {
            let (ordinal, newer) = create[i];
            self.create(ordinal, newer)
        };
        outcome.add(slowly(create.len(), make).await);
        for ordinal in plan.claims.iter().filter(|ordinal| **ordinal < limit) {
            outcome.take(self.complete(*ordinal).await.map(|()| None));
        }
        outcome.add(self.delete_all(&plan.renew).await);
        if outcome.refusal.is_some() {
            return 0;
        }
        for pod in plan.disown.iter().filter_map(|ordinal| self.pod(*ordinal)) {
            outcome.take(self.own_claims(pod.0, pod.1).await.map(|_| None));
        }
        if outcome.refusal.is_some() {
            return 0;
        }
        outcome.add(self.delete_all(&plan.delete).await);
        if outcome.refusal.is_some() {
            return 0;
        }
        let outdated = self.delete_all(&plan.outdated).await;
        let deleted = outdated.done;
        outcome.add(outdated);
        deleted
    }

    /// The pod of an ordinal, if it exists.
    fn pod(&self, ordinal: i32) -> Option<(&Pod, i32)> {
        let name = pod_name(self.set, ordinal);
        let found = self.pods.iter().find(|pod| pod.name_any() == name);
        found.map(|pod| (&**pod, ordinal))
    }

    fn tell(&self, verb: &str, what: &str, failure: Option<&str>) {
        let name = self.set.name_any();
        match failure {
            None => self.controller.recorder.tell(
                self.set,
                Tone::Normal,
                &format!("Successful{verb}"),
                format!("{verb} {what} in StatefulSet {name} successful"),
            ),
            Some(why) => self.controller.recorder.tell(
                self.set,
                Tone::Warning,
                &format!("Failed{verb}"),
                format!("{verb} {what} in StatefulSet {name} failed error: {why}"),
            ),
        }
    }

    fn namespace(&self) -> &str {
        self.set.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn api(&self) -> Api<v1::Pod> {
        Api::namespaced(self.controller.context.client.clone(), self.namespace())
    }

    fn claim_api(&self) -> Api<v1::PersistentVolumeClaim> {
        Api::namespaced(self.controller.context.client.clone(), self.namespace())
    }

    /// Creates a pod and its claims. Returns the new resourceVersion.
    async fn create(&self, ordinal: i32, newer: bool) -> Result<Option<String>, String> {
        let (template, revision) = match self.current {
            (Some(older), revision) if !newer => (older, revision),
            _ => self.update,
        };
        let what = format!("Pod {}", pod_name(self.set, ordinal));
        if let Err(why) = self.ensure_claims(ordinal).await {
            self.tell("Create", &what, Some(&why));
            return Err(why);
        }
        let pod = make_pod(self.set, ordinal, template, revision);
        match self.api().create(&PostParams::default(), &pod).await {
            Ok(made) => {
                self.tell("Create", &what, None);
                Ok(made.resource_version())
            }
            Err(error) if is_terminating(&error) => Ok(None),
            Err(error) => {
                // The existing pod is not this set's, or not in the cache yet.
                if !is_already_exists(&error) {
                    self.tell("Create", &what, Some(&text(&error)));
                }
                Err(text(&error))
            }
        }
    }

    async fn delete_all(&self, names: &[String]) -> Outcome {
        together(names.iter().map(|name| self.delete(name))).await
    }

    async fn delete(&self, name: &str) -> Result<Option<String>, String> {
        let what = format!("Pod {name}");
        match self.api().delete(name, &DeleteParams::default()).await {
            Ok(deleted) => {
                self.tell("Delete", &what, None);
                Ok(deleted.left().and_then(|pod| pod.resource_version()))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => {
                self.tell("Delete", &what, Some(&text(&error)));
                Err(text(&error))
            }
        }
    }

    /// Creates the missing claims of a pod.
    async fn ensure_claims(&self, ordinal: i32) -> Result<(), String> {
        let (set, known) = (self.set, &self.controller.claims);
        let recorder = &self.controller.recorder;
        let mut failures = Vec::new();
        let mut versions = Versions::default();
        for (_, claim) in made(set, ordinal) {
            let name = claim.name_any();
            match known.get(self.namespace(), &name) {
                Some(found) if found.metadata.deletion_timestamp.is_some() => {
                    failures.push(format!("pvc {name} is being deleted"));
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
            let pod = pod_name(set, ordinal);
            match self
                .claim_api()
                .create(&PostParams::default(), &claim)
                .await
            {
                Ok(made) => {
                    versions.add(made.resource_version());
                    let message = format!(
                        "Create Claim {name} Pod {pod} in StatefulSet {} success",
                        set.name_any()
                    );
                    recorder.tell(set, Tone::Normal, "SuccessfulCreate", message);
                }
                Err(error) if is_already_exists(&error) => {}
                Err(error) if is_terminating(&error) => return Ok(()),
                Err(error) => {
                    let why = text(&error);
                    failures.push(format!("failed to create PVC {name}: {why}"));
                    let message = format!(
                        "Create Claim {name} for Pod {pod} in StatefulSet {} failed error: {why}",
                        set.name_any()
                    );
                    recorder.tell(set, Tone::Warning, "FailedCreate", message);
                }
            }
        }
        known.reach(versions.newest().as_deref()).await;
        match failures.is_empty() {
            true => Ok(()),
            false => Err(failures.join(", ")),
        }
    }

    /// Creates the missing claims of a pod that waits for them.
    async fn complete(&self, ordinal: i32) -> Result<(), String> {
        self.ensure_claims(ordinal).await?;
        let Some((pod, ordinal)) = self.pod(ordinal) else {
            return Ok(());
        };
        let owned = self.own_claims(pod, ordinal).await;
        owned.map(drop).inspect_err(|why| {
            self.tell("Update", &format!("Pod {}", pod.name_any()), Some(why));
        })
    }

    /// Corrects the owners of a pod's claims. Returns whether one of them was changed.
    async fn own_claims(&self, pod: &Pod, ordinal: i32) -> Result<bool, String> {
        let (set, known) = (self.set, &self.controller.claims);
        let mut versions = Versions::default();
        let mut changed = false;
        for (_, claim) in made(set, ordinal) {
            let name = claim.name_any();
            let Some(found) = known.get(self.namespace(), &name) else {
                continue;
            };
            if claims::is_managed(&found.metadata, set, Some(pod), &pod_name(set, ordinal)) {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
                );
                self.controller
                    .recorder
                    .tell(set, Tone::Warning, "ConflictingController", message);
            }
            if claims::owners(&found.metadata, set, Some(pod), ordinal).is_some()
                && let Some(written) = self.own(&name, pod, ordinal).await?
            {
                changed = true;
                versions.add(written.resource_version());
            }
        }
        known.reach(versions.newest().as_deref()).await;
        Ok(changed)
    }

    /// Corrects the owners of a claim. The cache has only parts of it, and this controller may not patch claims. Returns
    /// the claim as written; None if nothing had to change.
    async fn own(
        &self,
        claim: &str,
        pod: &Pod,
        ordinal: i32,
    ) -> Result<Option<v1::PersistentVolumeClaim>, String> {
        let change = |whole: &mut v1::PersistentVolumeClaim| {
            let owners = claims::owners(&whole.metadata, self.set, Some(pod), ordinal);
            let changes = owners.is_some();
            if changes {
                whole.metadata.owner_references = owners;
            }
            changes
        };
        changing(&self.claim_api(), claim, change).await
    }

    /// Corrects labels and volumes of a pod, and the owners of its claims.
    async fn repair(&self, ordinal: i32) -> Result<Option<String>, String> {
        let Some((pod, ordinal)) = self.pod(ordinal) else {
            return Ok(None);
        };
        let what = format!("Pod {}", pod.name_any());
        match self.conform(pod, ordinal).await {
            Ok((changed, version)) => {
                if changed {
                    self.tell("Update", &what, None);
                }
                Ok(version)
            }
            Err(why) => {
                self.tell("Update", &what, Some(&why));
                Err(why)
            }
        }
    }

    /// Returns whether anything was changed, and the new resourceVersion of the pod, if it was.
    async fn conform(&self, pod: &Pod, ordinal: i32) -> Result<(bool, Option<String>), String> {
        let name = pod.name_any();
        let stored = are_used(self.set, pod, ordinal);
        if !stored {
            self.ensure_claims(ordinal).await?;
        }
        let owned = self.own_claims(pod, ordinal).await?;
        if stored && pod.labels().get(POD_NAME) == Some(&name) {
            return Ok((owned, None));
        }
        let change = |whole: &mut v1::Pod| {
            if whole.metadata.uid != pod.metadata.uid {
                return false;
            }
            identify(
                whole.metadata.labels.get_or_insert_default(),
                &name,
                ordinal,
            );
            if !stored {
                // The API refuses that, and whoever reads the event knows what is wrong.
                store(self.set, ordinal, whole.spec.get_or_insert_default());
            }
            true
        };
        let written = changing(&self.api(), &name, change).await?;
        let changed = owned || written.is_some();
        Ok((changed, written.and_then(|pod| pod.resource_version())))
    }
}

/// Changes an object as it is in the API; `change` returns whether it changed it. Returns the object as written; None if
/// it is gone, or nothing had to change.
async fn changing<K>(
    api: &Api<K>,
    name: &str,
    change: impl Fn(&mut K) -> bool,
) -> Result<Option<K>, String>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    let mut conflict = String::new();
    for _ in 0..TRIES {
        let whole = api.get_opt(name).await.map_err(|error| text(&error))?;
        let Some(mut whole) = whole else {
            return Ok(None);
        };
        if !change(&mut whole) {
            return Ok(None);
        }
        match api.replace(name, &PostParams::default(), &whole).await {
            Ok(written) => return Ok(Some(written)),
            Err(error) if is_conflict(&error) => conflict = text(&error),
            Err(error) => return Err(text(&error)),
        }
    }
    Err(conflict)
}

#[cfg(test)]
mod tests;
