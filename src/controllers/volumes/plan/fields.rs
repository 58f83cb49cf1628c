//! What claims and volumes say.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{BIND_COMPLETED, PROVISIONED_BY, SELECTED_NODE};
use crate::client::kinds::Claim;
use crate::meta::quantity::Quantity;

pub(super) const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn annotated(meta: &ObjectMeta, key: &str) -> bool {
    let annotations = meta.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(key))
}

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    Some(meta.annotations.as_ref()?.get(key)?.as_str())
}

/// The class of a claim; empty if it has none.
pub(in super::super) fn class_of(claim: &Claim) -> &str {
    let named = annotation(&claim.metadata, CLASS);
    named.unwrap_or_else(|| claim.spec.storage_class_name.as_deref().unwrap_or_default())
}

pub(super) fn volume_class(volume: &PersistentVolume) -> &str {
    let named = annotation(&volume.metadata, CLASS);
    let spec = volume.spec.as_ref();
    let own = spec.and_then(|spec| spec.storage_class_name.as_deref());
    named.or(own).unwrap_or_default()
}

/// The claim that a volume refers to.
pub(in super::super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The node for the volume of a claim, as chosen by the scheduler.
pub(in super::super) fn selected_node(claim: &Claim) -> Option<&str> {
    annotation(&claim.metadata, SELECTED_NODE)
}

/// The volume that a claim refers to; empty if none.
pub(in super::super) fn volume_of(claim: &Claim) -> &str {
    claim.spec.volume_name.as_deref().unwrap_or_default()
}

/// Whether a claim was not bound yet.
pub(in super::super) fn is_unbound(claim: &Claim) -> bool {
    !annotated(&claim.metadata, BIND_COMPLETED)
}

/// The phase of a volume; empty if it has none.
pub(in super::super) fn phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(super) fn is_for(volume: &PersistentVolume, claim: &Claim) -> bool {
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
pub(in super::super) fn asked(claim: &Claim) -> Quantity {
    let resources = claim.spec.resources.as_ref();
    amount(resources.and_then(|resources| resources.requests.as_ref()))
}

/// The capacity of a volume.
pub(in super::super) fn capacity(volume: &PersistentVolume) -> Quantity {
    amount(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

pub(super) fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

pub(super) fn modes(list: Option<&Vec<String>>) -> BTreeSet<&str> {
    list.into_iter().flatten().map(String::as_str).collect()
}

pub(super) fn spec_of(volume: &PersistentVolume) -> PersistentVolumeSpec {
    volume.spec.clone().unwrap_or_default()
}

/// Whether the volume attributes classes of a volume and a claim differ.
pub(super) fn attributes_differ(spec: &PersistentVolumeSpec, claim: &Claim) -> bool {
    let text = |class: &Option<String>| class.clone().unwrap_or_default();
    text(&spec.volume_attributes_class_name) != text(&claim.spec.volume_attributes_class_name)
}

/// The reclaim policy of a volume.
pub(in super::super) fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// The provisioner that created a volume and deletes it; None if it was created by hand.
pub(in super::super) fn provisioner(volume: &PersistentVolume) -> Option<&str> {
    let named = annotation(&volume.metadata, PROVISIONED_BY).filter(|name| !name.is_empty());
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    named.or(csi.map(|csi| csi.driver.as_str()))
}
