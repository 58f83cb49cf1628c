//! Volumes, claims and other storage objects, as the scheduler keeps them.

use compact_str::CompactString;
use k8s_openapi::api::{core::v1, storage::v1 as storage};

use super::terms::{NodeTerm, node_terms, texts};
use crate::client::informer::Key;
use crate::meta::quantity::Quantity;
use crate::meta::selector::Selector;
use crate::schema::Value;

crate::slim!(
    /// A PersistentVolumeClaim in the API.
    RawClaim of v1::PersistentVolumeClaim {
        /// Its spec.
        spec: Value,
        /// Its status.
        status: Value,
    }
);

crate::slim!(
    /// A PersistentVolume in the API.
    RawVolume of v1::PersistentVolume {
        /// Its spec.
        spec: Value,
        /// Its status.
        status: Value,
    }
);

crate::slim!(
    /// A StorageClass in the API.
    RawClass of storage::StorageClass {
        /// The provisioner of its volumes.
        provisioner: String,
        /// Its binding mode.
        volume_binding_mode: String,
        /// Where its volumes may be.
        allowed_topologies: Value,
    }
);

crate::slim!(
    /// A CSIDriver in the API.
    RawDriver of storage::CSIDriver {
        /// Its spec.
        spec: Value,
    }
);

crate::slim!(
    /// A CSINode in the API.
    RawNode of storage::CSINode {
        /// Its spec.
        spec: Value,
    }
);

crate::slim!(
    /// A CSIStorageCapacity in the API.
    RawCapacity of storage::CSIStorageCapacity {
        /// Its StorageClass.
        storage_class_name: String,
        /// The capacity.
        capacity: Option<String>,
        /// The maximum size of one volume.
        maximum_volume_size: Option<String>,
        /// The nodes to which it applies.
        node_topology: Value,
    }
);

crate::slim!(
    /// A VolumeAttachment in the API.
    RawAttachment of storage::VolumeAttachment {
        /// Its spec.
        spec: Value,
    }
);

/// The annotation of a claim with the node for which it is provisioned.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BOUND: &str = "pv.kubernetes.io/bind-completed";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Topology labels of volumes and nodes.
pub const PLACES: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// Its uid, which distinguishes it from others of the same name.
    pub uid: String,
    /// Its resource version.
    pub version: String,
    /// Its class; empty if it has none.
    pub class: CompactString,
    /// Its volume; empty while it has none.
    pub volume: CompactString,
    /// Whether it is fully bound.
    pub is_bound: bool,
    /// The node for which it is provisioned.
    pub selected: Option<CompactString>,
    /// Whether it has any annotations.
    pub is_annotated: bool,
    /// Requested bytes.
    pub size: i64,
    /// Its access modes.
    pub modes: Vec<CompactString>,
    /// Whether it is a `Block` volume rather than a file system.
    pub is_block: bool,
    /// Its VolumeAttributesClass.
    pub attributes: CompactString,
    /// Which volumes it accepts; `None` for any.
    pub selector: Option<Selector>,
    /// Its volume no longer exists.
    pub is_lost: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// The uid of the pod for which it was created.
    pub owner: Option<String>,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Its resource version.
    pub version: String,
    /// Its class; empty if it has none.
    pub class: CompactString,
    /// Its capacity in bytes.
    pub size: i64,
    /// Its access modes.
    pub modes: Vec<CompactString>,
    /// Whether it is a `Block` volume rather than a file system.
    pub is_block: bool,
    /// Its VolumeAttributesClass.
    pub attributes: CompactString,
    /// The nodes on which it is accessible; `None` for all.
    pub nodes: Option<Vec<NodeTerm>>,
    /// Its topology labels, each with its values.
    pub places: Vec<(&'static str, Vec<CompactString>)>,
    /// Its labels.
    pub labels: super::terms::Labels,
    /// The claim that it is bound to, and its uid if known.
    pub claim: Option<(Key, CompactString)>,
    /// Whether it is available.
    pub is_available: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Its CSI driver and volume handle; empty for volumes of other kinds.
    pub handle: (CompactString, CompactString),
}

/// A StorageClass.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// The provisioner of its volumes.
    pub provisioner: CompactString,
    /// Whether it is `WaitForFirstConsumer`.
    pub waits: bool,
    /// Labels and values of nodes on which its volumes may be; empty for all nodes.
    pub places: Vec<Vec<(CompactString, Vec<CompactString>)>>,
}

/// A CSIDriver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Driver {
    /// Whether it publishes storage capacity.
    pub tells_capacity: bool,
    /// Whether pods must not be placed on nodes without it.
    pub must_be_there: bool,
}

/// A CSIStorageCapacity.
#[derive(Clone, Debug, Default)]
pub struct Capacity {
    /// Its StorageClass.
    pub class: CompactString,
    /// The largest possible volume, in bytes; `None` if no volume is possible.
    pub largest: Option<i64>,
    /// The total capacity in bytes.
    pub total: i64,
    /// The nodes to which it applies; `None` for no node.
    pub nodes: Option<Selector>,
}

fn class(
    annotations: Option<&std::collections::BTreeMap<String, String>>,
    spec: &Value,
) -> CompactString {
    let old = annotations.and_then(|annotations| annotations.get(OLD_CLASS));
    old.map_or_else(|| spec.str("storageClassName").into(), Into::into)
}

fn size(list: &Value) -> i64 {
    bytes(list.str("storage")).unwrap_or(0)
}

fn bytes(amount: &str) -> Option<i64> {
    Some(Quantity::parse(amount).ok()?.value())
}

impl From<&RawClaim> for Claim {
    fn from(raw: &RawClaim) -> Claim {
        let (meta, spec) = (&raw.metadata, &raw.spec);
        let annotations = meta.annotations.as_ref();
        let annotation = |name: &str| annotations.and_then(|annotations| annotations.get(name));
        let volume = spec.str("volumeName");
        Claim {
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            class: class(annotations, spec),
            volume: volume.into(),
            is_bound: !volume.is_empty() && annotation(BOUND).is_some(),
            selected: annotation(SELECTED_NODE).map(Into::into),
            is_annotated: annotations.is_some_and(|annotations| !annotations.is_empty()),
            size: size(spec.at("resources").at("requests")),
            modes: texts(spec.list("accessModes")),
            is_block: spec.str("volumeMode") == "Block",
            attributes: spec.str("volumeAttributesClassName").into(),
            selector: super::terms::label_selector(spec.at("selector")),
            is_lost: raw.status.str("phase") == "Lost",
            is_deleting: meta.deletion_timestamp.is_some(),
            owner: crate::client::owners::controller_of(meta).map(|owner| owner.uid.clone()),
        }
    }
}

impl From<&RawVolume> for Volume {
    fn from(raw: &RawVolume) -> Volume {
        let (meta, spec) = (&raw.metadata, &raw.spec);
        let labels = meta.labels.clone().unwrap_or_default();
        let places = PLACES.iter().filter_map(|place| {
            let values = labels.get(*place)?.split("__").map(Into::into).collect();
            Some((*place, values))
        });
        let required = spec.at("nodeAffinity").get("required");
        let claim = spec.get("claimRef").map(|claim| {
            let key = Key::new(claim.str("namespace"), claim.str("name"));
            (key, claim.str("uid").into())
        });
        let csi = spec.at("csi");
        Volume {
            version: meta.resource_version.clone().unwrap_or_default(),
            class: class(meta.annotations.as_ref(), spec),
            size: size(spec.at("capacity")),
            modes: texts(spec.list("accessModes")),
            is_block: spec.str("volumeMode") == "Block",
            attributes: spec.str("volumeAttributesClassName").into(),
            nodes: required.map(node_terms),
            places: places.collect(),
            claim,
            is_available: raw.status.str("phase") == "Available",
            is_deleting: meta.deletion_timestamp.is_some(),
            handle: (csi.str("driver").into(), csi.str("volumeHandle").into()),
            labels: labels.into_iter().collect(),
        }
    }
}

impl From<&RawClass> for Class {
    fn from(raw: &RawClass) -> Class {
        let terms = raw.allowed_topologies.as_array().unwrap_or_default().iter();
        let places = terms.map(|term| {
            let expressions = term.list("matchLabelExpressions").iter();
            expressions
                .map(|expression| {
                    (
                        expression.str("key").into(),
                        texts(expression.list("values")),
                    )
                })
                .collect()
        });
        Class {
            provisioner: raw.provisioner.as_str().into(),
            waits: raw.volume_binding_mode == "WaitForFirstConsumer",
            places: places.collect(),
        }
    }
}

impl From<&RawDriver> for Driver {
    fn from(raw: &RawDriver) -> Driver {
        Driver {
            tells_capacity: raw.spec.bool("storageCapacity"),
            must_be_there: raw.spec.bool("preventPodSchedulingIfMissing"),
        }
    }
}

impl From<&RawCapacity> for Capacity {
    fn from(raw: &RawCapacity) -> Capacity {
        let largest = raw.maximum_volume_size.as_ref().or(raw.capacity.as_ref());
        Capacity {
            class: raw.storage_class_name.as_str().into(),
            largest: largest.and_then(|text| bytes(text)),
            total: raw
                .capacity
                .as_ref()
                .and_then(|text| bytes(text))
                .unwrap_or(0),
            nodes: super::terms::label_selector(&raw.node_topology),
        }
    }
}
