//! A node, as the scheduler sees it.

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pod::Resources;
use super::terms::{Effect, Labels, Taint};
use crate::client::informer::Cached;
use crate::meta::amounts::Amounts;
use crate::meta::placement;
use crate::schema::Value;

/// A node.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(from = "Raw")]
pub struct Node {
    /// Its identity; without labels and annotations.
    pub metadata: ObjectMeta,
    /// Its name.
    pub name: CompactString,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether it was cordoned.
    pub is_unschedulable: bool,
    /// Its allocatable resources.
    pub allocatable: Resources,
    /// The maximum number of pods.
    pub pods: i64,
    /// Images on the node, by each of their names, with their sizes in bytes.
    pub images: Vec<(CompactString, i64)>,
    /// Its RuntimeClass handlers; empty if not declared.
    pub handlers: Vec<CompactString>,
    /// Its declared features.
    pub features: Vec<CompactString>,
}

#[derive(serde::Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "crate::client::discovery::lean")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

crate::kind_of!(Node of v1::Node);
impl Cached for Node {}

impl From<Raw> for Node {
    fn from(raw: Raw) -> Node {
        let Raw {
            mut metadata,
            spec,
            status,
        } = raw;
        let labels = metadata.labels.take().unwrap_or_default();
        metadata.annotations = None;
        let allocatable = Amounts::read(status.at("allocatable"));
        let images = status.list("images").iter().flat_map(|image| {
            let size = image.int("sizeBytes");
            let names = image.list("names").iter().filter_map(Value::as_str);
            names.map(move |name| (name.into(), size))
        });
        Node {
            name: metadata.name.as_deref().unwrap_or_default().into(),
            labels: labels.into_iter().collect(),
            taints: spec.list("taints").iter().filter_map(Taint::read).collect(),
            is_unschedulable: spec.bool("unschedulable"),
            pods: allocatable.get("pods").value(),
            allocatable: Resources::of(&allocatable),
            images: images.collect(),
            handlers: status
                .list("runtimeHandlers")
                .iter()
                .map(|handler| handler.str("name").into())
                .collect(),
            features: status
                .list("declaredFeatures")
                .iter()
                .filter_map(|feature| feature.as_str().map(Into::into))
                .collect(),
            metadata,
        }
    }
}

impl Node {
    /// Region and zone; nodes are visited zone by zone in turn.
    pub fn zone(&self) -> CompactString {
        placement::zone(&self.labels)
    }

    /// Whether it declares a feature; true for an empty name.
    pub fn declares(&self, feature: &str) -> bool {
        feature.is_empty() || self.features.iter().any(|known| known == feature)
    }

    /// Whether it has a taint that keeps new pods away.
    pub fn repels(&self) -> bool {
        self.taints.iter().any(Taint::repels)
    }

    /// The taint of a cordoned node.
    pub fn cordon() -> Taint {
        Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: CompactString::default(),
            effect: Effect::NoSchedule,
        }
    }
}
