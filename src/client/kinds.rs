//! What controllers keep of the objects of a kind, where more than one controller looks at it.

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::{Deserialize, Deserializer};

use crate::meta::placement::{Taint, Toleration};

crate::slim!(
    /// A namespace and whether it ends.
    Namespace of v1::Namespace {
        /// Its finalizers.
        spec: v1::NamespaceSpec,
        /// Its phase.
        status: v1::NamespaceStatus,
    }
);

impl Namespace {
    /// Whether new objects may be made in it.
    pub fn is_active(&self) -> bool {
        self.status.phase.as_deref() != Some("Terminating")
            && self.metadata.deletion_timestamp.is_none()
    }
}

crate::slim!(
    /// That there is such a definition.
    CustomResourceDefinition of k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {}
);

crate::slim!(
    /// A pod, without what only its node needs.
    Pod of v1::Pod {
        /// What it is to be.
        spec: PodSpec,
        /// What it is.
        status: PodStatus,
    }
);

/// What controllers look at in the spec of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Where it runs; none while it is not placed.
    pub node_name: Option<String>,
    /// `Always`, `OnFailure`, `Never`
    pub restart_policy: Option<String>,
    /// Seconds that it may take to end.
    pub termination_grace_period_seconds: Option<i64>,
    /// What taints of nodes it bears, and for how long.
    pub tolerations: Vec<v1::Toleration>,
    /// Its host name in the domain of a service.
    pub hostname: Option<String>,
    /// The service that gives it a name.
    pub subdomain: Option<String>,
    /// Named ports of its containers.
    pub containers: Vec<PodContainer>,
    /// Containers that run before the others, or beside them.
    pub init_containers: Vec<PodContainer>,
    /// Its claims.
    pub volumes: Vec<PodVolume>,
    /// What it asks for as a whole.
    pub resources: Option<Box<v1::ResourceRequirements>>,
    /// The one node that its affinity names; none where it names none, or several.
    #[serde(rename = "affinity", deserialize_with = "only_node")]
    pub target: Option<CompactString>,
}

/// Reads of an affinity the node that it names first, and alone.
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

/// What controllers look at in a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodContainer {
    /// Its name.
    pub name: String,
    /// `Always` for an init container that goes on.
    pub restart_policy: Option<String>,
    /// Its ports.
    pub ports: Vec<v1::ContainerPort>,
    /// What it asks for.
    pub resources: Option<v1::ResourceRequirements>,
}

/// What controllers look at in a volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolume {
    /// Its name.
    pub name: String,
    /// The claim that it is.
    pub persistent_volume_claim: Option<v1::PersistentVolumeClaimVolumeSource>,
    /// The claim that is made for it.
    pub ephemeral: Option<v1::EphemeralVolumeSource>,
}

/// What controllers look at in the status of a pod.
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
    pub conditions: Vec<v1::PodCondition>,
    /// When its node saw it first.
    pub start_time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    /// Its containers.
    pub container_statuses: Vec<v1::ContainerStatus>,
    /// Its init containers.
    pub init_container_statuses: Vec<v1::ContainerStatus>,
}

impl Pod {
    /// Its phase; empty while it has none.
    pub fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    /// The state of a condition; empty where it has none of that kind.
    pub fn condition(&self, kind: &str) -> &str {
        self.status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .map_or("", |condition| condition.status.as_str())
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready") == "True"
    }

    /// Whether it has ended for good.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

crate::slim!(
    /// A node, without the images that it has.
    Node of v1::Node {
        /// What it is to be.
        spec: v1::NodeSpec,
        /// What it is.
        status: NodeStatus,
    }
);

/// What matches of a taint.
pub fn taint(taint: &v1::Taint) -> Option<Taint> {
    let value = taint.value.as_deref().unwrap_or_default();
    Taint::new(&taint.key, value, &taint.effect)
}

/// What matches of a toleration.
pub fn toleration(toleration: &v1::Toleration) -> Toleration {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Toleration::new(
        &text(&toleration.key),
        &text(&toleration.operator),
        &text(&toleration.value),
        &text(&toleration.effect),
    )
}

/// What controllers look at in the status of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Its conditions.
    pub conditions: Vec<v1::NodeCondition>,
}

impl Node {
    /// What it says of being ready; none where it says nothing.
    pub fn ready(&self) -> Option<&v1::NodeCondition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.type_ == "Ready")
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.ready().is_some_and(|ready| ready.status == "True")
    }
}

crate::slim!(
    /// That a node lives.
    NodeLease of k8s_openapi::api::coordination::v1::Lease where "metadata.namespace=kube-node-lease" {
        /// When it was renewed.
        spec: LeaseSpec,
    }
);

/// What controllers look at in the spec of a lease.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// When it was renewed.
    pub renew_time: Option<MicroTime>,
}

crate::slim!(
    /// A claim to a volume.
    Claim of v1::PersistentVolumeClaim {
        /// What it asks for.
        spec: v1::PersistentVolumeClaimSpec,
        /// What it got.
        status: v1::PersistentVolumeClaimStatus,
    }
);
