//! Claims and volumes as they are written.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::fields::{annotated, claim_ref, is_for, is_unbound, volume_of};
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER};
use crate::client::kinds::Claim;

/// A complete claim object for the API.
pub(in super::super) fn full(claim: &Claim) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: claim.metadata.clone(),
        spec: Some(claim.spec.clone()),
        status: Some(claim.status.clone()),
    }
}

/// A reference to a claim.
pub(in super::super) fn reference(claim: &Claim) -> ObjectReference {
    ObjectReference {
        kind: Some("PersistentVolumeClaim".to_owned()),
        api_version: Some("v1".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The volume bound to a claim; None if it is bound already.
pub(in super::super) fn bound_volume(
    volume: &PersistentVolume,
    claim: &Claim,
) -> Option<PersistentVolume> {
    let known = is_for(volume, claim);
    let same = known && claim_ref(volume).is_some_and(|named| named.uid == claim.metadata.uid);
    let marked = known || annotated(&volume.metadata, BOUND_BY_CONTROLLER);
    if same && marked {
        return None;
    }
    let mut new = volume.clone();
    if !same {
        new.spec.get_or_insert_default().claim_ref = Some(reference(claim));
    }
    if !marked {
        mark(&mut new.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    Some(new)
}

/// The claim bound to a volume; None if it is bound already.
pub(in super::super) fn bound_claim(claim: &Claim, volume: &str) -> Option<PersistentVolumeClaim> {
    let named = volume_of(claim) == volume;
    if named && !is_unbound(claim) {
        return None;
    }
    let mut new = full(claim);
    if !named {
        new.spec.get_or_insert_default().volume_name = Some(volume.to_owned());
        if !annotated(&new.metadata, BOUND_BY_CONTROLLER) {
            mark(&mut new.metadata, BOUND_BY_CONTROLLER, "yes");
        }
    }
    mark(&mut new.metadata, BIND_COMPLETED, "yes");
    Some(new)
}

/// Sets an annotation.
pub(in super::super) fn mark(meta: &mut ObjectMeta, key: &str, value: &str) {
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
}

/// The claim with this phase, and the properties of its volume, if any; None if its status has them.
pub(in super::super) fn claim_status(
    claim: &Claim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let mut status = claim.status.clone();
    let changes = status.phase.as_deref() != Some(phase);
    let was_pending = status.phase.as_deref() == Some("Pending");
    status.phase = Some(phase.to_owned());
    match volume.and_then(|volume| volume.spec.as_ref()) {
        None => {
            status.access_modes = None;
            status.capacity = None;
            status.current_volume_attributes_class_name = None;
        }
        Some(spec) => {
            status.access_modes = spec.access_modes.clone();
            if changes {
                status.capacity = spec.capacity.clone();
            }
            if was_pending && phase == "Bound" {
                status.current_volume_attributes_class_name =
                    spec.volume_attributes_class_name.clone();
            }
        }
    }
    (status != claim.status).then(|| PersistentVolumeClaim {
        status: Some(status),
        ..full(claim)
    })
}

/// The unbound volume: without its reference if this controller set it, otherwise waiting for a claim of that name.
pub(in super::super) fn unbound_volume(volume: &PersistentVolume) -> PersistentVolume {
    let mut new = volume.clone();
    let spec = new.spec.get_or_insert_default();
    if annotated(&volume.metadata, BOUND_BY_CONTROLLER) {
        spec.claim_ref = None;
        if let Some(annotations) = &mut new.metadata.annotations {
            annotations.remove(BOUND_BY_CONTROLLER);
        }
    } else if let Some(named) = &mut spec.claim_ref {
        named.uid = None;
    }
    new
}
