//! persistentvolume-expander-controller: expands volumes whose claims ask for more. Follows
//! k8s.io/kubernetes/pkg/controller/volume/expand.

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::plan::{self, asked, capacity};
use super::provision::PROVISIONER;
use crate::client::Context;
use crate::client::events::Tone;
use crate::client::informer::{Informer, Key};
use crate::client::kinds::Claim;
use crate::client::queue::Next;
use crate::controllers::workload::{queue_of, written};
use crate::meta::quantity::Quantity;

const PENDING: &str = "FileSystemResizePending";

/// The capacity of a claim; None if its status has none.
fn has(claim: &Claim) -> Option<Quantity> {
    let has = claim.status.capacity.as_ref()?.get("storage")?;
    Quantity::parse(&has.0).ok()
}

/// Whether a claim is bound and asks for more than it has.
fn grows(claim: &Claim) -> bool {
    claim.status.phase.as_deref() == Some("Bound")
        && has(claim).is_some_and(|has| asked(claim) > has)
}

/// The claim with the condition that it waits for its node; None if it has it.
fn waiting(claim: &Claim, now: Timestamp) -> Option<PersistentVolumeClaim> {
    let mut new = plan::full(claim);
    let conditions = new
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    if conditions.iter().any(|known| known.type_ == PENDING) {
        return None;
    }
    conditions.push(PersistentVolumeClaimCondition {
        type_: PENDING.to_owned(),
        status: "True".to_owned(),
        message: Some(
            "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
                .to_owned(),
        ),
        last_transition_time: Some(Time(now)),
        ..PersistentVolumeClaimCondition::default()
    });
    Some(new)
}

/// Runs the controller.
pub async fn run(context: Context) {
    let claims: Informer<Claim> = context.informers.of();
    let volumes: Informer<PersistentVolume> = context.informers.of();
    let queue = queue_of(&claims);
    let recorder = context.recorder("volume_expand");
    let look = |key: Key| {
        let claim = claims
            .get(&key.namespace, &key.name)
            .filter(|claim| grows(claim));
        let (client, volumes, recorder) = (context.client.clone(), &volumes, &recorder);
        async move {
            let Some(claim) = claim else {
                return Ok(Next::Done);
            };
            let Some(volume) = volumes.get("", plan::volume_of(&claim)) else {
                return Ok(Next::Retry);
            };
            if plan::provisioner(&volume) != Some(PROVISIONER) {
                let message = "waiting for an external controller to expand this PVC";
                recorder.tell(&*claim, Tone::Normal, "ExternalExpanding", message);
                return Ok(Next::Done);
            }
            // Set first: the node removes it when it sees the larger volume.
            if let Some(new) = waiting(&claim, Timestamp::now()) {
                let api: Api<PersistentVolumeClaim> =
                    Api::namespaced(client.clone(), &key.namespace);
                let result = api
                    .replace_status(&key.name, &PostParams::default(), &new)
                    .await;
                let told = result.is_ok();
                match written(result)? {
                    Next::Done if told => {}
                    other => return Ok(other),
                }
            }
            if capacity(&volume) >= asked(&claim) {
                return Ok(Next::Done);
            }
            let mut new = (*volume).clone();
            let requests = claim.spec.resources.as_ref();
            let requests = requests.and_then(|of| of.requests.clone());
            let storage = requests.and_then(|mut requests| requests.remove_entry("storage"));
            let spec = new.spec.get_or_insert_default();
            spec.capacity.get_or_insert_default().extend(storage);
            let api: Api<PersistentVolume> = Api::all(client);
            written(
                api.replace(&volume.name_any(), &PostParams::default(), &new)
                    .await,
            )
        }
    };
    context.work(&queue, 1, look).await;
}
