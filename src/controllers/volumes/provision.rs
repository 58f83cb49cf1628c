//! Volumes of reddwarf's own driver, `reddwarf.io`. A volume belongs to one node, which creates it when a pod first
//! uses it, and removes its data when the object is deleted; a finalizer delays the deletion until then.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::plan::{BOUND_BY_CONTROLLER, PROVISIONED_BY, mark, reference};
use crate::client::kinds::{Claim, Node};
use crate::node::volumes::HOSTNAME;
pub(super) use crate::node::volumes::{DRIVER as PROVISIONER, FINALIZER, place};

/// The label value by which volumes refer to a node.
fn hostname(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(HOSTNAME));
    label.cloned().unwrap_or_else(|| node.name_any())
}

/// Whether a node can get a volume before a pod uses it.
pub(super) fn can_have(node: &Node) -> bool {
    node.is_ready()
        && node.spec.unschedulable != Some(true)
        && node.metadata.deletion_timestamp.is_none()
}

/// The node for a volume that can be anywhere, among `nodes`, which are ordered; None if there is none. Chosen by the
/// uid of the claim: volumes are distributed, and the same claim always gets the same node.
pub(super) fn any_node(nodes: &[Arc<Node>], uid: &str) -> Option<String> {
    let fit: Vec<&Arc<Node>> = nodes.iter().filter(|node| can_have(node)).collect();
    let place = BuildHasherDefault::<DefaultHasher>::default().hash_one(uid);
    let place = place.checked_rem(fit.len() as u64)?;
    fit.get(place as usize).map(|node| node.name_any())
}

/// Whether the node of a volume is among `nodes`.
pub(super) fn has_node<'a>(
    volume: &PersistentVolume,
    mut nodes: impl Iterator<Item = &'a Node>,
) -> bool {
    let place = place(volume);
    nodes.any(|node| place == Some(hostname(node).as_str()))
}

/// A volume for a claim on a node.
///
/// # Errors
/// What the claim requests that is not supported.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: &str, rest: &str) -> Arc<Node> {
        let text = format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{{rest}}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
        );
        Arc::new(serde_json::from_str(&text).expect("a node"))
    }

    #[test]
    fn volumes_for_nobody_in_particular_are_spread_over_nodes_that_can_have_them() {
        let off = [
            node("a", "Unknown", ""),
            node("b", "True", r#""unschedulable":true"#),
        ];
        assert_eq!(any_node(&[], "u"), None);
        assert_eq!(any_node(&off, "u"), None);
        let mut nodes = off.to_vec();
        nodes.extend([node("c", "True", ""), node("d", "True", "")]);
        let chosen: Vec<String> = (0..32)
            .filter_map(|uid| any_node(&nodes, &uid.to_string()))
            .collect();
        assert_eq!(chosen.len(), 32);
        assert!(chosen.iter().all(|name| name == "c" || name == "d"));
        assert!(
            ["c", "d"]
                .iter()
                .all(|name| chosen.contains(&(*name).to_owned()))
        );
        assert_eq!(any_node(&nodes, "u"), any_node(&nodes, "u"));
    }
}
