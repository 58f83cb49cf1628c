//! Volumes, claims and what is said of them, as the scheduler keeps them.

use compact_str::CompactString;
use k8s_openapi::api::{core::v1, storage::v1 as storage};

use super::terms::{NodeTerm, node_terms, texts};
use crate::client::informer::Key;
use crate::meta::quantity::Quantity;
use crate::meta::selector::Selector;
use crate::schema::Value;

crate::slim!(
    /// A claim.
    RawClaim of v1::PersistentVolumeClaim {
        /// What it asks for.
        spec: Value,
        /// What it got.
        status: Value,
    }
);

crate::slim!(
    /// A volume.
    RawVolume of v1::PersistentVolume {
        /// What it is.
        spec: Value,
        /// How it is.
        status: Value,
    }
);

crate::slim!(
    /// A class of volumes.
    RawClass of storage::StorageClass {
        /// Who makes its volumes.
        provisioner: String,
        /// When claims are bound.
        volume_binding_mode: String,
        /// Where its volumes can be.
        allowed_topologies: Value,
    }
);

crate::slim!(
    /// A driver.
    RawDriver of storage::CSIDriver {
        /// What it can.
        spec: Value,
    }
);

crate::slim!(
    /// The drivers of a node.
    RawNode of storage::CSINode {
        /// They.
        spec: Value,
    }
);

crate::slim!(
    /// How much there is of a class.
    RawCapacity of storage::CSIStorageCapacity {
        /// Of which class.
        storage_class_name: String,
        /// How much.
        capacity: Option<String>,
        /// How much a volume can have.
        maximum_volume_size: Option<String>,
        /// Where.
        node_topology: Value,
    }
);

crate::slim!(
    /// That a volume is attached to a node.
    RawAttachment of storage::VolumeAttachment {
        /// Which, where.
        spec: Value,
    }
);

/// The annotation of a claim that names the node that its volume is made for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BOUND: &str = "pv.kubernetes.io/bind-completed";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Labels of volumes and nodes that say where they are.
pub const PLACES: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// A claim.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// Tells it apart from another of the same name.
    pub uid: String,
    /// Its version.
    pub version: String,
    /// Its class; empty for none.
    pub class: CompactString,
    /// Its volume; empty while it has none.
    pub volume: CompactString,
    /// Whether claim and volume know of each other.
    pub is_bound: bool,
    /// The node that its volume is made for.
    pub selected: Option<CompactString>,
    /// Whether it has annotations, whatever they say.
    pub is_annotated: bool,
    /// Bytes that it asks for.
    pub size: i64,
    /// How it may be used.
    pub modes: Vec<CompactString>,
    /// `Block`, or a file system.
    pub is_block: bool,
    /// The class of attributes.
    pub attributes: CompactString,
    /// Which volumes it can have; none for any.
    pub selector: Option<Selector>,
    /// Its volume is gone.
    pub is_lost: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// The pod that it was made for.
    pub owner: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Its version.
    pub version: String,
    /// Its class; empty for none.
    pub class: CompactString,
    /// Bytes that it has.
    pub size: i64,
    /// How it can be used.
    pub modes: Vec<CompactString>,
    /// `Block`, or a file system.
    pub is_block: bool,
    /// The class of attributes.
    pub attributes: CompactString,
    /// The nodes that reach it; none for all.
    pub nodes: Option<Vec<NodeTerm>>,
    /// Labels that say where it is, each with its values.
    pub places: Vec<(&'static str, Vec<CompactString>)>,
    /// Its labels.
    pub labels: super::terms::Labels,
    /// The claim that has it, and its uid where that is known.
    pub claim: Option<(Key, CompactString)>,
    /// Whether it can be taken.
    pub is_available: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Its driver and its name there; empty for volumes of other kinds.
    pub handle: (CompactString, CompactString),
}

/// A class of volumes.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// Who makes its volumes.
    pub provisioner: CompactString,
    /// Whether claims wait for a pod.
    pub waits: bool,
    /// Labels and values that nodes must have for its volumes; none for all nodes.
    pub places: Vec<Vec<(CompactString, Vec<CompactString>)>>,
}

/// A driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Driver {
    /// Whether it tells how much there is.
    pub tells_capacity: bool,
    /// Whether pods stay away from nodes without it.
    pub must_be_there: bool,
}

/// How much there is of a class.
#[derive(Clone, Debug, Default)]
pub struct Capacity {
    /// Of which class.
    pub class: CompactString,
    /// The largest volume that can be made, in bytes; none for no volume.
    pub largest: Option<i64>,
    /// All that there is, in bytes.
    pub total: i64,
    /// Where; none for nowhere.
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
