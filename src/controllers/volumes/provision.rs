//! Volumes of this server's own: `reddwarf.io`. A volume is on one node, which makes it when a pod first uses it, and
//! removes it when its object is to go: until then a finalizer holds that.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::plan::{BOUND_BY_CONTROLLER, PROVISIONED_BY, mark, reference};
use crate::controllers::kinds::{Claim, Node};
use crate::node::volumes::HOSTNAME;
pub(super) use crate::node::volumes::{DRIVER as PROVISIONER, FINALIZER, place};

/// The host name of a node, by which volumes find it.
fn hostname(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(HOSTNAME));
    label.cloned().unwrap_or_else(|| node.name_any())
}

/// Whether the node that has a volume is among `nodes`.
pub(super) fn has_node<'a>(
    volume: &PersistentVolume,
    mut nodes: impl Iterator<Item = &'a Node>,
) -> bool {
    let place = place(volume);
    nodes.any(|node| place == Some(hostname(node).as_str()))
}

/// The volume for a claim on a node.
///
/// # Errors
/// What the claim asks for and is not to be had.
pub(super) fn volume(
    claim: &Claim,
    class: &StorageClass,
    node: &Node,
) -> Result<PersistentVolume, String> {
    let spec = &claim.spec;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("volumes of volumeMode Block are not offered".to_owned());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Err("volumes with a data source are not offered".to_owned());
    }
    if let Some(key) = class.parameters.iter().flatten().map(|(key, _)| key).next() {
        return Err(format!("{key:?} is not a parameter of {PROVISIONER}"));
    }
    let name = format!("pvc-{}", claim.uid().unwrap_or_default());
    let asked = spec.resources.as_ref().and_then(|of| of.requests.as_ref());
    let storage = asked
        .and_then(|asked| asked.get("storage"))
        .ok_or("the claim asks for no storage")?;
    let policy = class
        .reclaim_policy
        .clone()
        .unwrap_or_else(|| "Delete".to_owned());
    let host = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![hostname(node)]),
    };
    let mut metadata = ObjectMeta {
        name: Some(name.clone()),
        finalizers: Some(vec![FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    mark(&mut metadata, PROVISIONED_BY, PROVISIONER);
    mark(&mut metadata, BOUND_BY_CONTROLLER, "yes");
    Ok(PersistentVolume {
        metadata,
        spec: Some(PersistentVolumeSpec {
            capacity: Some(BTreeMap::from([("storage".to_owned(), storage.clone())])),
            access_modes: spec.access_modes.clone(),
            persistent_volume_reclaim_policy: Some(policy),
            storage_class_name: Some(class.name_any()),
            mount_options: class.mount_options.clone(),
            volume_mode: spec.volume_mode.clone(),
            volume_attributes_class_name: spec.volume_attributes_class_name.clone(),
            claim_ref: Some(reference(claim)),
            csi: Some(CSIPersistentVolumeSource {
                driver: PROVISIONER.to_owned(),
                volume_handle: name,
                ..CSIPersistentVolumeSource::default()
            }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector {
                    node_selector_terms: vec![NodeSelectorTerm {
                        match_expressions: Some(vec![host]),
                        match_fields: None,
                    }],
                }),
            }),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}
