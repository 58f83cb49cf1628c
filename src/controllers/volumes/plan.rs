//! Decides about claims and volumes. Follows pv_controller.go and
//! k8s.io/component-helpers/storage/volume/pv_helpers.go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::client::kinds::{Claim, Pod};
use crate::client::owners::controller_of;
use crate::client::selector;
use crate::meta::quantity::Quantity;

pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULTS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

fn annotated(meta: &ObjectMeta, key: &str) -> bool {
    let annotations = meta.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(key))
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    Some(meta.annotations.as_ref()?.get(key)?.as_str())
}

/// The class of a claim; empty if it has none.
pub(super) fn class_of(claim: &Claim) -> &str {
    let named = annotation(&claim.metadata, CLASS);
    named.unwrap_or_else(|| claim.spec.storage_class_name.as_deref().unwrap_or_default())
}

fn volume_class(volume: &PersistentVolume) -> &str {
    let named = annotation(&volume.metadata, CLASS);
    let spec = volume.spec.as_ref();
    let own = spec.and_then(|spec| spec.storage_class_name.as_deref());
    named.or(own).unwrap_or_default()
}

/// The claim that a volume refers to.
pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The node for the volume of a claim, as chosen by the scheduler.
pub(super) fn selected_node(claim: &Claim) -> Option<&str> {
    annotation(&claim.metadata, SELECTED_NODE)
}

/// The volume that a claim refers to; empty if none.
pub(super) fn volume_of(claim: &Claim) -> &str {
    claim.spec.volume_name.as_deref().unwrap_or_default()
}

/// Whether a claim was not bound yet.
pub(super) fn is_unbound(claim: &Claim) -> bool {
    !annotated(&claim.metadata, BIND_COMPLETED)
}

/// The phase of a volume; empty if it has none.
pub(super) fn phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn is_for(volume: &PersistentVolume, claim: &Claim) -> bool {
    claim_ref(volume).is_some_and(|named| {
        named.name == claim.metadata.name
            && named.namespace == claim.metadata.namespace
            && (named.uid.as_deref().is_none_or(str::is_empty) || named.uid == claim.metadata.uid)
    })
}

fn amount(
    list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Quantity {
    let text = list.and_then(|list| list.get("storage"));
    let zero = || Quantity::units(0, crate::meta::quantity::Form::Binary);
    text.and_then(|text| Quantity::parse(&text.0).ok())
        .unwrap_or_else(zero)
}

/// The requested capacity of a claim.
pub(super) fn asked(claim: &Claim) -> Quantity {
    let resources = claim.spec.resources.as_ref();
    amount(resources.and_then(|resources| resources.requests.as_ref()))
}

/// The capacity of a volume.
pub(super) fn capacity(volume: &PersistentVolume) -> Quantity {
    amount(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

fn modes(list: Option<&Vec<String>>) -> BTreeSet<&str> {
    list.into_iter().flatten().map(String::as_str).collect()
}

fn spec_of(volume: &PersistentVolume) -> PersistentVolumeSpec {
    volume.spec.clone().unwrap_or_default()
}

/// Whether the volume attributes classes of a volume and a claim differ.
fn attributes_differ(spec: &PersistentVolumeSpec, claim: &Claim) -> bool {
    let text = |class: &Option<String>| class.clone().unwrap_or_default();
    text(&spec.volume_attributes_class_name) != text(&claim.spec.volume_attributes_class_name)
}

/// Why the volume that a claim refers to does not match it.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &Claim) -> Option<String> {
    let spec = spec_of(volume);
    let had = modes(spec.access_modes.as_ref());
    let why = if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!(
            "the volume is marked for deletion {:?}",
            volume.name_any()
        ));
    } else if capacity(volume).value() < asked(claim).value() {
        "requested PV is too small"
    } else if volume_class(volume) != class_of(claim) {
        "storageClassName does not match"
    } else if attributes_differ(&spec, claim) {
        "volumeAttributesClassName does not match"
    } else if mode(spec.volume_mode.as_ref()) != mode(claim.spec.volume_mode.as_ref()) {
        "incompatible volumeMode"
    } else if !modes(claim.spec.access_modes.as_ref()).is_subset(&had) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// The volume for a claim: the one that refers to it, or the smallest matching one among those with the fewest access
/// modes. With `delayed` only the first kind counts: the scheduler chooses among the others.
pub(super) fn best<'a>(
    claim: &Claim,
    volumes: &'a [Arc<PersistentVolume>],
    delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let wanted = modes(claim.spec.access_modes.as_ref());
    let mut fitting: BTreeMap<(usize, BTreeSet<&str>), Vec<&'a Arc<PersistentVolume>>> =
        BTreeMap::new();
    for volume in volumes {
        let spec = volume.spec.as_ref();
        let had = modes(spec.and_then(|spec| spec.access_modes.as_ref()));
        if wanted.is_subset(&had) {
            fitting.entry((had.len(), had)).or_default().push(volume);
        }
    }
    fitting
        .into_values()
        .find_map(|volumes| smallest(claim, &volumes, delayed))
}

fn smallest<'a>(
    claim: &Claim,
    volumes: &[&'a Arc<PersistentVolume>],
    delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let asked = asked(claim);
    let mut best: Option<(Quantity, &'a Arc<PersistentVolume>)> = None;
    for volume in volumes {
        let spec = spec_of(volume);
        let own = is_for(volume, claim);
        let size = capacity(volume);
        if (spec.claim_ref.is_some() && !own)
            || size < asked
            || mode(spec.volume_mode.as_ref()) != mode(claim.spec.volume_mode.as_ref())
            || attributes_differ(&spec, claim)
            || volume.metadata.deletion_timestamp.is_some()
        {
            continue;
        }
        if own {
            return Some(volume);
        }
        let labels = volume.metadata.labels.as_ref();
        let chosen = claim.spec.selector.as_ref();
        if delayed
            || phase(volume) != "Available"
            || chosen.is_some_and(|chosen| !selector::selects(chosen, labels).unwrap_or(false))
            || volume_class(volume) != class_of(claim)
        {
            continue;
        }
        if best.as_ref().is_none_or(|(least, _)| size < *least) {
            best = Some((size, volume));
        }
    }
    best.map(|(_, volume)| volume)
}

/// The default class: the newest of those marked as default.
pub(super) fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    classes
        .iter()
        .filter(|class| {
            let marked = |key: &&str| annotation(&class.metadata, key) == Some("true");
            DEFAULTS.iter().any(marked)
        })
        .min_by_key(|class| {
            let made = class.metadata.creation_timestamp.as_ref();
            (std::cmp::Reverse(made.map(|made| made.0)), class.name_any())
        })
}

/// Whether the volume binding mode of a class is `WaitForFirstConsumer`.
pub(super) fn is_delayed(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

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

/// The reclaim policy of a volume.
pub(super) fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// The provisioner that created a volume and deletes it; None if it was created by hand.
pub(super) fn provisioner(volume: &PersistentVolume) -> Option<&str> {
    let named = annotation(&volume.metadata, PROVISIONED_BY).filter(|name| !name.is_empty());
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    named.or(csi.map(|csi| csi.driver.as_str()))
}

/// A complete claim object for the API.
pub(super) fn full(claim: &Claim) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: claim.metadata.clone(),
        spec: Some(claim.spec.clone()),
        status: Some(claim.status.clone()),
    }
}

/// A reference to a claim.
pub(super) fn reference(claim: &Claim) -> ObjectReference {
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
pub(super) fn bound_volume(volume: &PersistentVolume, claim: &Claim) -> Option<PersistentVolume> {
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
pub(super) fn bound_claim(claim: &Claim, volume: &str) -> Option<PersistentVolumeClaim> {
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
pub(super) fn mark(meta: &mut ObjectMeta, key: &str, value: &str) {
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
}

/// The claim with this phase, and the properties of its volume, if any; None if its status has them.
pub(super) fn claim_status(
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
pub(super) fn unbound_volume(volume: &PersistentVolume) -> PersistentVolume {
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

/// Whether a claim was created for a pod.
pub(super) fn is_made_for(claim: &ObjectMeta, pod: &Pod) -> bool {
    controller_of(claim).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}
