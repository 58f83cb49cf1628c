//! Which volume, and which class, is for a claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;

use super::fields::{
    annotation, asked, attributes_differ, capacity, class_of, is_for, mode, modes, phase, spec_of,
    volume_class,
};
use crate::client::kinds::Claim;
use crate::client::selector;
use crate::meta::quantity::Quantity;

const DEFAULTS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// Why the volume that a claim refers to does not match it.
pub(in super::super) fn mismatch(volume: &PersistentVolume, claim: &Claim) -> Option<String> {
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
pub(in super::super) fn best<'a>(
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
pub(in super::super) fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
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
pub(in super::super) fn is_delayed(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}
