//! A pod as the scheduler sees it, computed once per change.

use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::devices::{self, Named};
use super::terms::{HostPort, Labels, NodeAffinity, PodAffinity, Spread, Toleration, texts};
use crate::client::informer::{Cached, Key};
use crate::client::owners::controller_of;
use crate::meta::amounts::{Amounts, Side};
use crate::meta::placement::{self, ZONE_BRAND};
use crate::meta::ports::host_ports;
use crate::meta::quantity::{Form, Quantity};
use crate::schema::{Object, Value};

/// The `schedulerName` of this scheduler.
pub const SCHEDULER: &str = "default-scheduler";
/// The cpu that a container without a request counts for in scores, in millicores.
const ASSUMED_CPU: i64 = 100;
/// The same for memory, in bytes.
const ASSUMED_MEMORY: i64 = 200 << 20;

/// Resource amounts of nodes and pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Millicores.
    pub cpu: i64,
    /// In bytes.
    pub memory: i64,
    /// Bytes of ephemeral storage.
    pub storage: i64,
    /// Other resources, by name.
    pub scalars: Vec<(CompactString, i64)>,
}

impl Resources {
    /// Converts a list of amounts.
    pub fn of(amounts: &Amounts) -> Resources {
        let mut out = Resources::default();
        for (name, amount) in &amounts.0 {
            match name.as_str() {
                "cpu" => out.cpu = amount.milli_value(),
                "memory" => out.memory = amount.value(),
                "ephemeral-storage" => out.storage = amount.value(),
                "pods" => {}
                _ => out.scalars.push((name.clone(), amount.value())),
            }
        }
        out
    }

    /// The amount of another resource.
    pub fn scalar(&self, name: &str) -> i64 {
        let found = self.scalars.iter().find(|(known, _)| known == name);
        found.map_or(0, |(_, amount)| *amount)
    }

    /// Adds requests (or with `sign` -1 subtracts them).
    pub fn add(&mut self, other: &Resources, sign: i64) {
        self.cpu += sign * other.cpu;
        self.memory += sign * other.memory;
        self.storage += sign * other.storage;
        for (name, amount) in &other.scalars {
            let amount = sign * amount;
            match self.scalars.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += amount,
                None => self.scalars.push((name.clone(), amount)),
            }
        }
        if sign < 0 {
            self.scalars.retain(|(_, amount)| *amount != 0);
        }
    }

    /// Whether all amounts are zero.
    pub fn is_empty(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.storage == 0 && self.scalars.is_empty()
    }
}

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// `apps/v1/ReplicaSet`
    pub kind: CompactString,
    /// Its name, in the pod's namespace.
    pub name: CompactString,
}

/// A volume that affects where a pod can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A claim, and whether it is created for the pod (an ephemeral volume).
    Claim(CompactString, bool),
    /// A disk that not all pods of a node can share: its kind and identity, and whether it is read-only.
    Disk(CompactString, bool),
    /// An inline volume of a CSI driver.
    Inline(CompactString),
}

/// A condition of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False`, `Unknown`
    pub status: CompactString,
    /// The reason, one word.
    pub reason: CompactString,
    /// The message.
    pub message: CompactString,
    /// `lastTransitionTime`.
    pub since: CompactString,
}

/// A pod.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(from = "Raw")]
pub struct Pod {
    /// Its identity; without labels and annotations.
    pub metadata: ObjectMeta,
    /// Its namespace and name.
    pub key: Key,
    /// Its labels.
    pub labels: Labels,
    /// Its priority.
    pub priority: i32,
    /// Whether it may preempt others.
    pub may_preempt: bool,
    /// Whether it uses this scheduler.
    pub is_ours: bool,
    /// Its node; empty if unscheduled.
    pub node: CompactString,
    /// Its nominated node; empty for none.
    pub nominated: CompactString,
    /// Its requests.
    pub requests: Resources,
    /// The cpu and memory that it counts for in scores.
    pub weight: (i64, i64),
    /// Its tolerations.
    pub tolerations: Vec<Toleration>,
    /// Its node selector and node affinity.
    pub nodes: NodeAffinity,
    /// Its affinity to other pods.
    pub affinity: Option<Arc<PodAffinity>>,
    /// Its topology spread constraints.
    pub spread: Vec<Spread>,
    /// Its host ports.
    pub ports: Vec<HostPort>,
    /// Its scheduling gates.
    pub gates: Vec<CompactString>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Its references to ResourceClaims.
    pub device_claims: Vec<Named>,
    /// The images of its containers.
    pub images: Vec<CompactString>,
    /// Its zone brand; empty for any.
    pub brand: CompactString,
    /// Its RuntimeClass; empty for none.
    pub runtime_class: CompactString,
    /// The feature that its node must declare; empty for none.
    pub feature: CompactString,
    /// Its controller.
    pub owner: Option<Owner>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Whether it is being deleted to make room for another.
    pub is_preempted: bool,
    /// `status.startTime`; RFC 3339, empty if not started.
    pub started: CompactString,
    /// Its condition PodScheduled.
    pub scheduled: Option<Condition>,
    /// Its condition DisruptionTarget.
    pub disrupted: Option<Condition>,
}

/// A pod in the API.
#[derive(serde::Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "crate::client::discovery::lean")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

crate::kind_of!(Pod of v1::Pod);

impl Cached for Pod {
    const FIELDS: &'static str = "status.phase!=Succeeded,status.phase!=Failed";
}

impl From<Raw> for Pod {
    fn from(raw: Raw) -> Pod {
        let Raw {
            mut metadata,
            spec,
            status,
        } = raw;
        let labels: Labels = metadata
            .labels
            .take()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let annotations = metadata.annotations.take().unwrap_or_default();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let name = metadata.name.clone().unwrap_or_default();
        let owner = controller_of(&metadata).map(|owner| Owner {
            kind: format_compact!("{}/{}", owner.api_version, owner.kind),
            name: owner.name.as_str().into(),
        });
        metadata.owner_references = None;
        metadata.finalizers = None;
        let mut pod = Pod {
            key: Key::new(&namespace, &name),
            priority: i32::try_from(spec.int("priority")).unwrap_or_default(),
            may_preempt: spec.str("preemptionPolicy") != "Never",
            is_ours: spec.str("schedulerName") == SCHEDULER,
            node: spec.str("nodeName").into(),
            nominated: status.str("nominatedNodeName").into(),
            requests: Resources::default(),
            weight: (0, 0),
            tolerations: spec
                .list("tolerations")
                .iter()
                .map(Toleration::read)
                .collect(),
            nodes: NodeAffinity::read(&spec),
            affinity: PodAffinity::read(&spec, &namespace),
            spread: spec
                .list("topologySpreadConstraints")
                .iter()
                .map(|constraint| Spread::read(constraint, &labels))
                .collect(),
            ports: host_ports(&spec),
            gates: names(spec.list("schedulingGates")),
            volumes: volumes(&spec, &name),
            device_claims: devices::named(&spec, &status),
            images: images(&spec),
            brand: annotations
                .get(ZONE_BRAND)
                .map(Into::into)
                .unwrap_or_default(),
            runtime_class: spec.str("runtimeClassName").into(),
            feature: feature(&spec),
            owner,
            is_deleting: metadata.deletion_timestamp.is_some(),
            is_preempted: false,
            started: status.str("startTime").into(),
            scheduled: condition(&status, "PodScheduled"),
            disrupted: condition(&status, "DisruptionTarget"),
            labels,
            metadata,
        };
        pod.is_preempted = pod.is_deleting
            && pod.disrupted.as_ref().is_some_and(|disrupted| {
                disrupted.status == "True" && disrupted.reason == "PreemptionByScheduler"
            });
        (pod.requests, pod.weight) = requests(spec, status);
        pod
    }
}

impl Pod {
    /// Its uid, which distinguishes it from others of the same name.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether it is placed.
    pub fn is_placed(&self) -> bool {
        !self.node.is_empty()
    }

    /// The PersistentVolumeClaims that it uses.
    pub fn claims(&self) -> impl Iterator<Item = Key> {
        self.volumes.iter().filter_map(|volume| match volume {
            Volume::Claim(name, _) => Some(Key::new(&self.key.namespace, name)),
            _ => None,
        })
    }

    /// Whether it uses a PersistentVolumeClaim.
    pub fn has_claim(&self, key: &Key) -> bool {
        self.key.namespace == key.namespace
            && self.volumes.iter().any(|volume| match volume {
                Volume::Claim(name, _) => *name == key.name,
                _ => false,
            })
    }

    /// Whether it references a ResourceClaim.
    pub fn has_device_claim(&self, key: &Key) -> bool {
        self.key.namespace == key.namespace
            && self
                .device_claims
                .iter()
                .any(|named| named.claim.as_ref() == Some(&key.name))
    }

    /// The same pod placed on a node.
    pub fn placed_on(&self, node: &str) -> Pod {
        Pod {
            node: node.into(),
            ..self.clone()
        }
    }
}

/// A pod's requests, and the cpu and memory that it counts for in scores.
fn requests(mut spec: Value, status: Value) -> (Resources, (i64, i64)) {
    let whole = !spec.at("resources").at("requests").is_empty();
    let mut pod = Object::with_capacity(2);
    pod.insert("spec", std::mem::take(&mut spec));
    pod.insert("status", status);
    let mut pod = Value::Object(pod);
    let amounts = Amounts::pod_at_most(&pod, Side::Requests);
    let requests = Resources::of(&amounts);
    // Pod-level requests apply where set; elsewhere containers without requests count as assumed.
    let wanted = |name: &str| !whole || !amounts.0.contains_key(name);
    let assumed = [
        ("cpu", Quantity::milli(ASSUMED_CPU, Form::Decimal)),
        ("memory", Quantity::units(ASSUMED_MEMORY, Form::Decimal)),
    ];
    let mut is_changed = false;
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) =
            pod.get_mut("spec").and_then(|spec| spec.get_mut(list))
        else {
            continue;
        };
        for container in containers {
            for (name, amount) in assumed.iter().filter(|(name, _)| wanted(name)) {
                if container
                    .path(&["resources", "requests"])
                    .get(name)
                    .is_none()
                {
                    let resources = container.object_mut().object_mut("resources");
                    resources
                        .object_mut("requests")
                        .insert(*name, amount.to_string());
                    is_changed = true;
                }
            }
        }
    }
    if !is_changed {
        return (requests.clone(), (requests.cpu, requests.memory));
    }
    let assumed = Resources::of(&Amounts::pod_at_most(&pod, Side::Requests));
    (requests, (assumed.cpu, assumed.memory))
}

/// The feature that its node must declare.
fn feature(spec: &Value) -> CompactString {
    let containers = ["initContainers", "containers"].into_iter();
    let containers = containers.flat_map(|name| spec.list(name));
    let rules = containers.flat_map(|one| one.list("restartPolicyRules"));
    let needed = placement::needed_feature(rules.map(|rule| rule.str("action")));
    needed.unwrap_or_default().into()
}

fn names(list: &[Value]) -> Vec<CompactString> {
    list.iter().map(|item| item.str("name").into()).collect()
}

/// The images of a pod, each with a tag or digest.
fn images(spec: &Value) -> Vec<CompactString> {
    let containers = ["initContainers", "containers"].into_iter();
    let of_containers = containers
        .flat_map(|list| spec.list(list))
        .map(|container| container.str("image"));
    let of_volumes = spec
        .list("volumes")
        .iter()
        .filter_map(|volume| volume.get("image"))
        .map(|image| image.str("reference"));
    of_containers.chain(of_volumes).map(with_tag).collect()
}

fn with_tag(image: &str) -> CompactString {
    if image.rfind(':') <= image.rfind('/') {
        format_compact!("{image}:latest")
    } else {
        image.into()
    }
}

fn volumes(spec: &Value, pod: &str) -> Vec<Volume> {
    let mut out = Vec::new();
    for volume in spec.list("volumes") {
        if let Some(claim) = volume.get("persistentVolumeClaim") {
            out.push(Volume::Claim(claim.str("claimName").into(), false));
        } else if volume.get("ephemeral").is_some() {
            let name = format_compact!("{pod}-{}", volume.str("name"));
            out.push(Volume::Claim(name, true));
        } else if let Some(csi) = volume.get("csi") {
            out.push(Volume::Inline(csi.str("driver").into()));
        } else if let Some(disk) = volume.get("gcePersistentDisk") {
            let identity = format_compact!("gce {}", disk.str("pdName"));
            out.push(Volume::Disk(identity, disk.bool("readOnly")));
        } else if let Some(disk) = volume.get("awsElasticBlockStore") {
            let identity = format_compact!("aws {}", disk.str("volumeID"));
            out.push(Volume::Disk(identity, false));
        } else if let Some(disk) = volume.get("iscsi") {
            let identity = format_compact!("iscsi {}", disk.str("iqn"));
            out.push(Volume::Disk(identity, disk.bool("readOnly")));
        } else if let Some(disk) = volume.get("rbd") {
            let (pool, image) = (disk.str("pool"), disk.str("image"));
            for monitor in texts(disk.list("monitors")) {
                let identity = format_compact!("rbd {monitor} {pool} {image}");
                out.push(Volume::Disk(identity, disk.bool("readOnly")));
            }
        }
    }
    out
}

fn condition(status: &Value, kind: &str) -> Option<Condition> {
    let found = crate::meta::conditions::find(status.list("conditions"), kind);
    (!found.is_null()).then(|| Condition {
        status: found.str("status").into(),
        reason: found.str("reason").into(),
        message: found.str("message").into(),
        since: found.str("lastTransitionTime").into(),
    })
}
