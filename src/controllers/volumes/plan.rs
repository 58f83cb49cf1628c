//! Decides about claims and volumes. Follows pv_controller.go and
//! k8s.io/component-helpers/storage/volume/pv_helpers.go.

mod fields;
mod matching;
mod objects;

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use self::fields::{CLASS, annotated, is_for, mode, spec_of};
use crate::client::kinds::{Claim, Pod};
use crate::client::owners::controller_of;

pub(super) use self::fields::{
    asked, capacity, claim_ref, class_of, is_unbound, phase, policy, provisioner, selected_node,
    volume_of,
};
pub(super) use self::matching::{best, default_class, is_delayed, mismatch};
pub(super) use self::objects::{
    bound_claim, bound_volume, claim_status, full, mark, reference, unbound_volume,
};

pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// An event to record about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

fn told(warning: bool, reason: &'static str, message: impl Into<String>) -> Told {
    Told {
        warning,
        reason,
        message: message.into(),
    }
}

/// What to do about a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClaimStep {
    /// Bind it to the volume of this name.
    Bind(String),
    /// Leave it pending, with this event.
    Wait(Option<Told>),
    /// Set this default class.
    Assign(String),
    /// Create a volume for it.
    Provision,
    /// Mark it lost: its volume is gone, or belongs to another claim.
    Lose(Told),
    /// Its volume belongs to another claim.
    Misbound(Told),
}

/// The context in which a claim is looked at.
pub(super) struct Around<'a> {
    /// All volumes, ordered by name.
    pub(super) volumes: &'a [Arc<PersistentVolume>],
    /// All classes.
    pub(super) classes: &'a [Arc<StorageClass>],
    /// The unscheduled pods that use the claim.
    pub(super) unplaced: &'a [String],
    /// Whether the node of the claim's consumer is known.
    pub(super) placed: bool,
}

/// Decides about a claim.
pub(super) fn claim_step(claim: &Claim, around: &Around<'_>) -> ClaimStep {
    let named = volume_of(claim);
    let found = around
        .volumes
        .iter()
        .find(|volume| volume.name_any() == named);
    if !is_unbound(claim) {
        return match found {
            Some(volume) => match claim_ref(volume) {
                None => ClaimStep::Bind(named.to_owned()),
                Some(owner) if owner.uid == claim.metadata.uid => ClaimStep::Bind(named.to_owned()),
                Some(_) => ClaimStep::Lose(told(
                    true,
                    "ClaimMisbound",
                    "Two claims are bound to the same volume, this one is bound incorrectly",
                )),
            },
            None => ClaimStep::Lose(told(
                true,
                "ClaimLost",
                if named.is_empty() {
                    "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
                } else {
                    "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
                },
            )),
        };
    }
    if named.is_empty() {
        return unbound(claim, around);
    }
    let Some(volume) = found else {
        return ClaimStep::Wait(None);
    };
    if claim_ref(volume).is_none() {
        return match mismatch(volume, claim) {
            None => ClaimStep::Bind(named.to_owned()),
            Some(why) => ClaimStep::Wait(Some(told(
                true,
                "VolumeMismatch",
                format!("Cannot bind to requested volume {named:?}: {why}"),
            ))),
        };
    }
    if is_for(volume, claim) {
        return ClaimStep::Bind(named.to_owned());
    }
    let other = told(
        true,
        "FailedBinding",
        format!("volume {named:?} already bound to a different claim."),
    );
    if annotated(&claim.metadata, BOUND_BY_CONTROLLER) {
        ClaimStep::Misbound(other)
    } else {
        ClaimStep::Wait(Some(other))
    }
}

fn unbound(claim: &Claim, around: &Around<'_>) -> ClaimStep {
    let name = class_of(claim);
    let class = around.classes.iter().find(|class| class.name_any() == name);
    let delayed = is_delayed(class.map(|class| &**class));
    if let Some(volume) = best(claim, around.volumes, delayed) {
        return ClaimStep::Bind(volume.name_any());
    }
    let has_class = annotated(&claim.metadata, CLASS) || claim.spec.storage_class_name.is_some();
    if let Some(class) = default_class(around.classes).filter(|_| !has_class) {
        return ClaimStep::Assign(class.name_any());
    }
    if delayed && !around.placed {
        let (reason, message) = match around.unplaced {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [pod] => (
                "WaitForPodScheduled",
                format!("waiting for pod {pod} to be scheduled"),
            ),
            pods => (
                "WaitForPodScheduled",
                format!("waiting for pods {} to be scheduled", pods.join(",")),
            ),
        };
        return ClaimStep::Wait(Some(told(false, reason, message)));
    }
    if !name.is_empty() {
        return ClaimStep::Provision;
    }
    ClaimStep::Wait(Some(told(
        false,
        "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
    )))
}

/// What to do about a volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VolumeStep {
    /// Set this phase.
    Phase(&'static str),
    /// Its claim is gone: release it and follow its reclaim policy.
    Reclaim,
    /// Its claim has another volume: unbind it.
    Unbind,
    /// Look at its claim.
    Wake,
    /// It does not match its claim.
    Mismatch,
}

/// Decides about a volume; `claim` is the one that it refers to, if that exists.
pub(super) fn volume_step(volume: &PersistentVolume, claim: Option<&Claim>) -> VolumeStep {
    let Some(named) = claim_ref(volume) else {
        return VolumeStep::Phase("Available");
    };
    if named.uid.as_deref().is_none_or(str::is_empty) {
        return VolumeStep::Phase("Available");
    }
    let Some(claim) = claim.filter(|claim| claim.metadata.uid == named.uid) else {
        return VolumeStep::Reclaim;
    };
    let spec = spec_of(volume);
    match volume_of(claim) {
        "" if mode(spec.volume_mode.as_ref()) != mode(claim.spec.volume_mode.as_ref()) => {
            VolumeStep::Mismatch
        }
        "" => VolumeStep::Wake,
        name if name == volume.name_any() => VolumeStep::Phase("Bound"),
        _ if annotated(&volume.metadata, PROVISIONED_BY) && policy(volume) == "Delete" => {
            VolumeStep::Reclaim
        }
        _ => VolumeStep::Unbind,
    }
}

/// Whether a claim was created for a pod.
pub(super) fn is_made_for(claim: &ObjectMeta, pod: &Pod) -> bool {
    controller_of(claim).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}
