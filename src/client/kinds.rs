//! The cached types of kinds that more than one controller uses.

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::{Deserialize, Deserializer};

use crate::meta::placement::{Taint, Toleration};

crate::slim!(
    /// A namespace.
    Namespace of v1::Namespace {
        /// Its finalizers.
        spec: v1::NamespaceSpec,
        /// Its phase.
        status: v1::NamespaceStatus,
    }
);

impl Namespace {
    /// Whether new objects can be created in it.
    pub fn is_active(&self) -> bool {
        self.status.phase.as_deref() != Some("Terminating")
            && self.metadata.deletion_timestamp.is_none()
    }
}

crate::slim!(
    /// The existence of a custom resource definition.
    CustomResourceDefinition of k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {}
);

crate::slim!(
    /// A pod, without the fields that only its node needs.
    Pod of v1::Pod {
        /// Its spec.
        spec: PodSpec,
        /// Its status.
        status: PodStatus,
    }
);

/// Reads a list of large items without space for more: for a single one there would be space for four.
fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(list: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(list)?;
    list.shrink_to_fit();
    Ok(list)
}

/// The fields of a pod's spec that controllers use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its node; None while it is not scheduled.
    pub node_name: Option<String>,
    /// `Always`, `OnFailure`, `Never`
    pub restart_policy: Option<String>,
    /// Its grace period in seconds.
    pub termination_grace_period_seconds: Option<i64>,
    /// How long it may run, in seconds.
    pub active_deadline_seconds: Option<i64>,
    /// The taints that it tolerates, and for how long.
    pub tolerations: Vec<v1::Toleration>,
    /// Its host name in the domain of a headless service.
    pub hostname: Option<String>,
    /// The headless service that gives it a name.
    pub subdomain: Option<String>,
    /// Named ports of its containers.
    pub containers: Vec<PodContainer>,
    /// Containers that run before the others, or beside them (sidecars).
    pub init_containers: Vec<PodContainer>,
    /// Its volumes that are claims.
    pub volumes: Vec<PodVolume>,
    /// Its pod-level resources.
    pub resources: Option<Box<v1::ResourceRequirements>>,
    /// The only node that its node affinity names (as for pods of daemon sets); None if there is none, or several.
    #[serde(rename = "affinity", deserialize_with = "only_node")]
    pub target: Option<CompactString>,
}

/// Reads the node that an affinity names, if it is the first and only one.
fn only_node<'de, D: Deserializer<'de>>(affinity: D) -> Result<Option<CompactString>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Affinity {
        node_affinity: Option<v1::NodeAffinity>,
    }
    let affinity = Option::<Affinity>::deserialize(affinity)?;
    let required = affinity.and_then(|affinity| {
        affinity
            .node_affinity?
            .required_during_scheduling_ignored_during_execution
    });
    let terms = required.map(|required| required.node_selector_terms);
    let mut fields = terms
        .iter()
        .flatten()
        .flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find(|field| field.key == "metadata.name" && field.operator == "In");
    Ok(named.and_then(|field| match field.values.as_deref() {
        Some([name]) => Some(name.as_str().into()),
        _ => None,
    }))
}

/// The fields of a container that controllers use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodContainer {
    /// Its name.
    pub name: String,
    /// `Always` for a sidecar.
    pub restart_policy: Option<String>,
    /// Its ports.
    pub ports: Vec<v1::ContainerPort>,
    /// Its resource requirements.
    pub resources: Option<v1::ResourceRequirements>,
}

/// The fields of a volume that controllers use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolume {
    /// Its name.
    pub name: String,
    /// The claim that it refers to.
    pub persistent_volume_claim: Option<v1::PersistentVolumeClaimVolumeSource>,
    /// The claim that is created for it. Boxed, because few volumes have one, and it is large.
    pub ephemeral: Option<Box<v1::EphemeralVolumeSource>>,
}

/// The fields of a pod's status that controllers use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`
    pub phase: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// All its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<v1::PodIP>,
    /// Its conditions.
    #[serde(deserialize_with = "exact")]
    pub conditions: Vec<v1::PodCondition>,
    /// When its node first saw it.
    pub start_time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    /// The statuses of its containers.
    #[serde(deserialize_with = "exact")]
    pub container_statuses: Vec<v1::ContainerStatus>,
    /// The statuses of its init containers.
    #[serde(deserialize_with = "exact")]
    pub init_container_statuses: Vec<v1::ContainerStatus>,
    /// The pod-level resources that it was given.
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
    /// The pod-level resources that it uses.
    pub resources: Option<Box<v1::ResourceRequirements>>,
}

impl Pod {
    /// Its phase; empty if it has none.
    pub fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    /// The status of a condition; empty if the pod does not have it.
    pub fn condition(&self, kind: &str) -> &str {
        self.status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .map_or("", |condition| condition.status.as_str())
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready") == "True"
    }

    /// Whether it is in phase `Succeeded` or `Failed`.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

crate::slim!(
    /// A node, without its list of images.
    Node of v1::Node {
        /// Its spec.
        spec: v1::NodeSpec,
        /// Its status.
        status: NodeStatus,
    }
);

/// The parts of a taint that tolerations are matched with.
pub fn taint(taint: &v1::Taint) -> Option<Taint> {
    let value = taint.value.as_deref().unwrap_or_default();
    Taint::new(&taint.key, value, &taint.effect)
}

/// The parts of a toleration that taints are matched with.
pub fn toleration(toleration: &v1::Toleration) -> Toleration {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Toleration::new(
        &text(&toleration.key),
        &text(&toleration.operator),
        &text(&toleration.value),
        &text(&toleration.effect),
    )
}

/// The fields of a node's status that controllers use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Its conditions.
    pub conditions: Vec<v1::NodeCondition>,
}

impl Node {
    /// Its condition `Ready`, if it has one.
    pub fn ready(&self) -> Option<&v1::NodeCondition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.type_ == "Ready")
    }

    /// Whether its condition `Ready` is true.
    pub fn is_ready(&self) -> bool {
        self.ready().is_some_and(|ready| ready.status == "True")
    }
}

crate::slim!(
    /// The heartbeat of a node.
    NodeLease of k8s_openapi::api::coordination::v1::Lease where "metadata.namespace=kube-node-lease" {
        /// Its spec.
        spec: LeaseSpec,
    }
);

/// The fields of a lease's spec that controllers use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// When it was renewed.
    pub renew_time: Option<MicroTime>,
}

crate::slim!(
    /// A persistent volume claim.
    Claim of v1::PersistentVolumeClaim {
        /// Its spec.
        spec: v1::PersistentVolumeClaimSpec,
        /// Its status.
        status: v1::PersistentVolumeClaimStatus,
    }
);
