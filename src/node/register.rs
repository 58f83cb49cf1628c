//! The node object: registered once, with a status that is updated, and a lease as heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus,
    NodeSystemInfo, ObjectReference, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::failing::Attempts;
use super::host::usage;
use super::machine::status_time;
use super::pressure::Observed;
use super::routes::Reach;
use super::shown::shows;
use super::supplies::Supplies;
use crate::client::events::{Recorder, Tone};
use crate::client::follow::{Event, follow};
use crate::meta::version;
use crate::zone::ZoneRuntime;

/// How often the node's status is checked, and its lease renewed.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(7);
/// The first pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the runtime may take to report its state.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often an unchanged status is reported.
pub(super) const REPORT: Duration = Duration::from_secs(300);
/// The duration of a lease, in seconds.
pub(super) const LEASE_SECONDS: i32 = 40;

/// Features that the node declares, so that the API server and the scheduler allow them for its pods; sorted.
pub(super) const DECLARED: [&str; 2] = [
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
];

/// The node object to register.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Addresses,
    /// Labels besides those that every node has.
    pub labels: BTreeMap<String, String>,
    /// The address range of its pods, which only it has in the cluster; None if it must not be published.
    pub pod_cidr: Option<String>,
    /// Its initial taints.
    pub taints: Vec<Taint>,
    /// Its capacity: `cpu`, `memory`, `pods`, `ephemeral-storage`.
    pub capacity: BTreeMap<String, String>,
    /// What pods may use of it.
    pub allocatable: BTreeMap<String, String>,
    /// The port of its own API, if it has one.
    pub port: Option<u16>,
    /// Its `nodeInfo`.
    pub info: NodeSystemInfo,
}

/// The `nodeInfo` of this host.
pub fn host_info(brand: &str) -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let uname = rustix::system::uname();
    let machine = uname.machine().to_string_lossy().into_owned();
    let image = read("/etc/os-release")
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_else(|| uname.sysname().to_string_lossy().into_owned());
    NodeSystemInfo {
        architecture: match machine.as_str() {
            "x86_64" | "i86pc" => "amd64".into(),
            "aarch64" => "arm64".into(),
            other => other.into(),
        },
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("reddwarf-{brand}://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: version::UPSTREAM.into(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: image,
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        ..NodeSystemInfo::default()
    }
}

/// The capacity of this host.
pub fn host_capacity(disk: &std::path::Path) -> BTreeMap<String, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = match usage::memory().capacity / 1024 {
        0 => 1 << 20,
        memory => memory,
    };
    let storage = usage::disk(disk).0.capacity / 1024;
    BTreeMap::from([
        ("cpu".into(), cpus.to_string()),
        ("memory".into(), format!("{memory}Ki")),
        ("pods".into(), "250".into()),
        ("ephemeral-storage".into(), format!("{storage}Ki")),
    ])
}

fn quantities(map: &BTreeMap<String, String>) -> BTreeMap<String, Quantity> {
    map.iter()
        .map(|(key, value)| (key.clone(), Quantity(value.clone())))
        .collect()
}

impl Registration {
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        for (key, value) in [
            ("beta.kubernetes.io/arch", &self.info.architecture),
            ("beta.kubernetes.io/os", &self.info.operating_system),
            ("kubernetes.io/arch", &self.info.architecture),
            ("kubernetes.io/hostname", &self.name),
            ("kubernetes.io/os", &self.info.operating_system),
        ] {
            labels.insert(key.into(), value.clone());
        }
        labels
    }

    fn node(&self) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: self.pod_cidr.clone(),
                pod_cidrs: self.pod_cidr.clone().map(|range| vec![range]),
                taints: (!self.taints.is_empty()).then(|| self.taints.clone()),
                ..NodeSpec::default()
            }),
            status: None,
        }
    }

    /// The status at `now`; unchanged conditions keep their transition times.
    fn status(
        &self,
        old: &NodeStatus,
        lacks: &[String],
        pressure: &[&str],
        reach: Option<&Reach>,
        now: Timestamp,
    ) -> NodeStatus {
        let pressed = |condition: &'static str, bad: [&'static str; 2], good: [&'static str; 2]| {
            let holds = pressure.contains(&condition);
            let [reason, message] = if holds { bad } else { good };
            (condition, holds, reason, message.to_owned())
        };
        let told = [
            pressed(
                "MemoryPressure",
                [
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ],
                [
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ],
            ),
            pressed(
                "DiskPressure",
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
            ),
            pressed(
                "PIDPressure",
                [
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available",
                ],
                [
                    "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available",
                ],
            ),
            match lacks.is_empty() {
                true => (
                    "Ready",
                    true,
                    "KubeletReady",
                    "kubelet is posting ready status".to_owned(),
                ),
                false => ("Ready", false, "KubeletNotReady", lacks.join("; ")),
            },
        ];
        let network = reach.map(|reach| match reach {
            Reach::Whole => (
                "NetworkUnavailable",
                false,
                "RouteCreated",
                "this host leads to the pods of all nodes".to_owned(),
            ),
            Reach::Lacking(why) => ("NetworkUnavailable", true, "NoRouteCreated", why.clone()),
        });
        let conditions = network
            .into_iter()
            .chain(told)
            .map(|(type_, holds, reason, message)| {
                let status = if holds { "True" } else { "False" };
                let before = old
                    .conditions
                    .iter()
                    .flatten()
                    .find(|before| before.type_ == type_ && before.status == status);
                NodeCondition {
                    type_: type_.into(),
                    status: status.into(),
                    reason: Some(reason.into()),
                    message: Some(message),
                    last_heartbeat_time: Some(status_time(now)),
                    last_transition_time: before
                        .and_then(|before| before.last_transition_time.clone())
                        .or_else(|| Some(status_time(now))),
                }
            })
            .collect();
        let addresses = self.addresses.all();
        let mut addresses: Vec<NodeAddress> = addresses
            .iter()
            .map(|address| NodeAddress {
                address: address.clone(),
                type_: "InternalIP".into(),
            })
            .collect();
        addresses.push(NodeAddress {
            address: self.name.clone(),
            type_: "Hostname".into(),
        });
        NodeStatus {
            addresses: Some(addresses),
            allocatable: Some(quantities(&self.allocatable)),
            capacity: Some(quantities(&self.capacity)),
            conditions: Some(conditions),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: self.port.map(|port| DaemonEndpoint {
                    port: i32::from(port),
                }),
            }),
            node_info: Some(self.info.clone()),
            declared_features: Some(DECLARED.map(str::to_owned).into()),
            features: Some(NodeFeatures {
                supplemental_groups_policy: Some(true),
            }),
            ..NodeStatus::default()
        }
    }
}

/// Whether a host can run pods.
#[derive(Clone)]
pub enum Fitness {
    /// Checked each time.
    Asked(Arc<dyn ZoneRuntime>, Arc<dyn Supplies>),
    /// It cannot, for this reason.
    Unfit(String),
}

impl Fitness {
    async fn lacks(&self) -> Vec<String> {
        match self {
            Fitness::Asked(runtime, _) => {
                match tokio::time::timeout(PATIENCE, runtime.lacks()).await {
                    Ok(Ok(lacks)) => lacks,
                    Ok(Err(error)) => vec![error.to_string()],
                    Err(_) => vec!["container runtime is down".to_owned()],
                }
            }
            Fitness::Unfit(reason) => vec![reason.clone()],
        }
    }

    /// The images on the host.
    async fn images(&self) -> Vec<ContainerImage> {
        match self {
            Fitness::Asked(_, supplies) => supplies.images().await,
            Fitness::Unfit(_) => Vec::new(),
        }
    }

    /// The supported brands of zones, as the scheduler knows them, and their features.
    fn handlers(&self) -> Vec<NodeRuntimeHandler> {
        let brands = match self {
            Fitness::Asked(runtime, _) => runtime.brands(),
            Fitness::Unfit(_) => Vec::new(),
        };
        let recursive = match self {
            Fitness::Asked(runtime, _) => runtime.recursive_read_only(),
            Fitness::Unfit(_) => false,
        };
        let handlers = brands.into_iter().map(|brand| NodeRuntimeHandler {
            name: Some(brand.to_owned()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(recursive),
                // Processes in a zone have the same user ids on the host.
                user_namespaces: Some(false),
            }),
        });
        handlers.collect()
    }
}

/// Registers the node and updates its status and lease until `ends` is cancelled. The condition `NetworkUnavailable`
/// follows `reach`, once that has a value; addresses follow those of the registration at once.
pub async fn keep(
    client: kube::Client,
    registration: Registration,
    fitness: Fitness,
    observed: Arc<Observed>,
    reach: watch::Receiver<Option<Reach>>,
    recorder: Recorder,
    ends: CancellationToken,
) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let kept = async {
        // Requests are boxed, here and below: they are large, and most of the time there is none.
        let node = Box::pin(registered(&nodes, &registration)).await;
        // It changes when the node is deleted and registers again.
        let uid = Mutex::new(node.metadata.uid.clone());
        let lives = prove_life(&leases, &registration.name, &uid);
        let (sees, seen) = watch::channel(node.clone());
        let looks = see(nodes.clone(), &registration.name, sees);
        let about = (&registration, &fitness, &*observed, &recorder);
        let told = report(&nodes, node, about, (reach, seen), &uid);
        // None waits for another one: a host whose status is stuck still sends heartbeats.
        tokio::join!(lives, looks, told);
    };
    tokio::select! {
        () = kept => {}
        () = ends.cancelled() => {}
    }
}

/// Registers the node, retrying until it succeeds.
async fn registered(nodes: &Api<Node>, registration: &Registration) -> Node {
    let mut attempts = Attempts::new(format!("node {} cannot be registered", registration.name));
    let mut pause = Pause::default();
    loop {
        let node = register(nodes, registration).await;
        attempts.note(&node);
        match node {
            Ok(node) => return node,
            Err(_) => tokio::time::sleep(pause.longer()).await,
        }
    }
}

/// The pause between failed attempts.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Pause(AGAIN)
    }
}

impl Pause {
    /// The next pause: twice the last one, up to [`LONGEST`].
    fn longer(&mut self) -> Duration {
        let longer = (self.0 * 2).min(LONGEST);
        std::mem::replace(&mut self.0, longer)
    }
}

/// Renews the node's lease, forever.
async fn prove_life(leases: &Api<Lease>, name: &str, uid: &Mutex<Option<String>>) {
    let mut attempts = Attempts::new(format!("the lease of node {name} cannot be renewed"));
    let mut pause = Pause::default();
    loop {
        let owner = uid.lock().clone();
        let renewed = tokio::time::timeout(HEARTBEAT, Box::pin(renew(leases, owner, name))).await;
        let renewed = renewed.unwrap_or_else(|late| Err(kube::Error::Service(late.into())));
        attempts.note(&renewed);
        let wait = match renewed {
            Ok(()) => {
                pause = Pause::default();
                HEARTBEAT
            }
            Err(_) => pause.longer(),
        };
        tokio::time::sleep(wait).await;
    }
}

/// Publishes the node object as the API has it, forever.
async fn see(nodes: Api<Node>, name: &str, sees: watch::Sender<Node>) {
    let mut events = follow(nodes, &format!("metadata.name={name}"));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Listed(node) | Event::Applied(node)) => drop(sees.send_replace(node)),
            // A deleted node registers again.
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, name, "the watch of the node was interrupted; it resumes")
            }
        }
    }
}

/// The resource version of a node as a number; 0 if it is none.
fn version(node: &Node) -> u64 {
    let version = node.metadata.resource_version.as_ref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A status that was reported.
struct Reported {
    status: NodeStatus,
    at: std::time::Instant,
    /// The version of the node that has it.
    version: u64,
}

impl Reported {
    /// Whether `status` needs no report: it is the same, and `node`, as the API has it, has it still. Others write over
    /// it when they believe that the node is down. Follows `tryUpdateNodeStatus` of pkg/kubelet/kubelet_node_status.go.
    fn covers(&self, status: &NodeStatus, node: &Node) -> bool {
        let is_there = || version(node) <= self.version || has(node, status);
        alike(&self.status, status) && is_there()
    }
}

/// Whether a node has everything of a status, apart from times.
fn has(node: &Node, status: &NodeStatus) -> bool {
    let pair = (
        serde_json::to_value(&node.status),
        serde_json::to_value(without_times(status)),
    );
    matches!(pair, (Ok(theirs), Ok(ours)) if shows(&theirs, &ours))
}

/// Reports the node's status, forever.
async fn report(
    nodes: &Api<Node>,
    mut node: Node,
    (registration, fitness, observed, recorder): (&Registration, &Fitness, &Observed, &Recorder),
    (mut reach, mut seen): (watch::Receiver<Option<Reach>>, watch::Receiver<Node>),
    uid: &Mutex<Option<String>>,
) {
    let name = registration.name.clone();
    let about = ObjectReference {
        kind: Some("Node".into()),
        name: Some(name.clone()),
        uid: node.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    match fitness {
        Fitness::Asked(..) => {
            recorder.tell_of(about.clone(), Tone::Normal, "Starting", "Starting kubelet.");
        }
        Fitness::Unfit(reason) => {
            recorder.tell_of(about.clone(), Tone::Warning, "KubeletSetupFailed", reason);
        }
    }
    let mut reported: Option<Reported> = None;
    let mut unschedulable = false;
    let mut addresses = registration.addresses.clone();
    let mut attempts = Attempts::new(format!("the status of node {name} cannot be written"));
    let mut pause = Pause::default();
    loop {
        {
            // What the watch delivers may be older than the last report.
            let seen = seen.borrow_and_update();
            if version(&seen) > version(&node) {
                node = seen.clone();
            }
        }
        if let Some(reason) = schedulable(&mut unschedulable, &node) {
            let message = format!("Node {name} status is now: {reason}");
            recorder.tell_of(about.clone(), Tone::Normal, reason, message);
        }
        let lacks = fitness.lacks().await;
        let old = node.status.clone().unwrap_or_default();
        let reached = reach.borrow_and_update().clone();
        let pressure = observed.conditions();
        let mut status =
            registration.status(&old, &lacks, &pressure, reached.as_ref(), Timestamp::now());
        status.runtime_handlers = Some(fitness.handlers());
        let images = fitness.images().await;
        // If the status had images before, an empty list must be sent.
        let had = old.images.as_ref().is_some_and(|had| !had.is_empty());
        status.images = (had || !images.is_empty()).then_some(images);
        let same = reported
            .as_ref()
            .is_some_and(|last| last.covers(&status, &node) && last.at.elapsed() < REPORT);
        let mut written = Ok(());
        if !same {
            let patch = serde_json::json!({"status": status});
            let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
            match Box::pin(nodes.patch_status(&name, &params, &patch)).await {
                Ok(now) => {
                    for reason in changes(&old, &status) {
                        let message = format!("Node {name} status is now: {reason}");
                        recorder.tell_of(about.clone(), Tone::Normal, reason, message);
                    }
                    if let Some(boot) = rebooted(&old, &status) {
                        let message = format!("Node {name} has been rebooted, boot id: {boot}");
                        recorder.tell_of(about.clone(), Tone::Warning, "Rebooted", message);
                    }
                    node = now;
                    reported = Some(Reported {
                        status,
                        at: std::time::Instant::now(),
                        version: version(&node),
                    });
                }
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    // The node was deleted: it registers again, like upstream's.
                    reported = None;
                    written = Box::pin(register(nodes, registration)).await.map(|made| {
                        *uid.lock() = made.metadata.uid.clone();
                        node = made;
                    });
                }
                Err(error) => written = Err(error),
            }
        }
        attempts.note(&written);
        let wait = match written {
            Ok(()) => {
                pause = Pause::default();
                // After registering again it has no status yet.
                if reported.is_some() { HEARTBEAT } else { AGAIN }
            }
            Err(_) => pause.longer(),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // If nobody maintains routes, the channel is closed and no longer polled. After a failure the pause applies
            // all the same.
            Ok(()) = reach.changed(), if written.is_ok() => {}
            Ok(()) = seen.changed(), if written.is_ok() => {}
            () = addresses.changed(), if written.is_ok() => {}
        }
    }
}

/// The event reasons for a new status: for changed and new conditions, except the first `NodeNotReady` of a new node.
fn changes(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let of = |status: &NodeStatus, type_: &str| {
        let mut all = status.conditions.iter().flatten();
        let found = all.find(|one| one.type_ == type_)?;
        // Unknown is neither.
        (found.status != "Unknown").then(|| found.status == "True")
    };
    let all = [
        (
            "MemoryPressure",
            ["NodeHasSufficientMemory", "NodeHasInsufficientMemory"],
        ),
        (
            "DiskPressure",
            ["NodeHasNoDiskPressure", "NodeHasDiskPressure"],
        ),
        (
            "PIDPressure",
            ["NodeHasSufficientPID", "NodeHasInsufficientPID"],
        ),
        ("Ready", ["NodeNotReady", "NodeReady"]),
    ];
    let changed = all.into_iter().filter_map(|(type_, reasons)| {
        let (before, now) = (of(old, type_), of(new, type_)?);
        let is_new_node = type_ == "Ready" && before.is_none() && !now;
        (before != Some(now) && !is_new_node).then(|| reasons[usize::from(now)])
    });
    changed.collect()
}

/// The host's boot id, if it differs from the last reported one.
fn rebooted<'s>(old: &NodeStatus, new: &'s NodeStatus) -> Option<&'s str> {
    let now = new.node_info.as_ref()?.boot_id.as_str();
    let before = old.node_info.as_ref()?.boot_id.as_str();
    (!before.is_empty() && before != now).then_some(now)
}

/// The event reason if pods may now be scheduled to the node, or may no longer; `known` is what was told last. Follows
/// `recordNodeSchedulableEvent` of pkg/kubelet/kubelet_node_status.go.
fn schedulable(known: &mut bool, node: &Node) -> Option<&'static str> {
    let spec = node.spec.as_ref();
    let now = spec.is_some_and(|spec| spec.unschedulable == Some(true));
    let changed = std::mem::replace(known, now) != now;
    changed.then_some(match now {
        true => "NodeNotSchedulable",
        false => "NodeSchedulable",
    })
}

/// A status without the times of its conditions.
fn without_times(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
        condition.last_transition_time = None;
    }
    status
}

/// Whether two statuses differ only in the times of their conditions.
fn alike(one: &NodeStatus, other: &NodeStatus) -> bool {
    without_times(one) == without_times(other)
}

async fn register(nodes: &Api<Node>, registration: &Registration) -> kube::Result<Node> {
    match nodes
        .create(&PostParams::default(), &registration.node())
        .await
    {
        Ok(node) => Ok(node),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let mut patch = serde_json::json!({"metadata": {"labels": registration.labels()}});
            if let Some(range) = &registration.pod_cidr {
                patch["spec"] = serde_json::json!({"podCIDR": range, "podCIDRs": [range]});
            }
            nodes
                .patch(
                    &registration.name,
                    &PatchParams::default(),
                    &Patch::Strategic(patch),
                )
                .await
        }
        Err(error) => Err(error),
    }
}

async fn renew(leases: &Api<Lease>, uid: Option<String>, name: &str) -> kube::Result<()> {
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let patch = serde_json::json!({"spec": spec});
    match leases
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("kube-node-lease".into()),
            owner_references: uid.map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: name.to_owned(),
                    uid,
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    leases
        .create(&PostParams::default(), &lease)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_node_is_told_once() {
        let status = |conditions: &[(&str, &str)], boot: &str| -> NodeStatus {
            let conditions: Vec<_> = conditions
                .iter()
                .map(|(type_, status)| serde_json::json!({"type": type_, "status": status}))
                .collect();
            let info = NodeSystemInfo {
                boot_id: boot.to_owned(),
                ..NodeSystemInfo::default()
            };
            let mut status: NodeStatus =
                serde_json::from_value(serde_json::json!({"conditions": conditions}))
                    .expect("a status");
            status.node_info = Some(info);
            status
        };
        let good = [
            ("MemoryPressure", "False"),
            ("DiskPressure", "False"),
            ("PIDPressure", "False"),
            ("Ready", "True"),
        ];
        let lost = good.map(|(type_, _)| (type_, "Unknown"));
        let (unready, pressed) = (
            [("Ready", "False")],
            [("DiskPressure", "True"), ("Ready", "True")],
        );
        let all = [
            "NodeHasSufficientMemory",
            "NodeHasNoDiskPressure",
            "NodeHasSufficientPID",
            "NodeReady",
        ];
        for (before, now, expected) in [
            (&[][..], &good[..], &all[..]),
            (&[], &unready, &[]),
            (&good, &good, &[]),
            (&unready, &good, &all),
            (&good, &unready, &["NodeNotReady"]),
            (&good, &pressed, &["NodeHasDiskPressure"]),
            (&lost, &[("Ready", "True")], &["NodeReady"]),
        ] {
            let told = changes(&status(before, ""), &status(now, ""));
            assert_eq!(told, expected, "{before:?} {now:?}");
        }
        let mut known = false;
        for (spec, expected) in [
            (serde_json::json!({}), None),
            (
                serde_json::json!({"unschedulable": true}),
                Some("NodeNotSchedulable"),
            ),
            (serde_json::json!({"unschedulable": true}), None),
            (serde_json::json!({}), Some("NodeSchedulable")),
        ] {
            let node = serde_json::json!({"metadata": {}, "spec": spec});
            let node = serde_json::from_value(node).expect("a node");
            assert_eq!(schedulable(&mut known, &node), expected, "{spec}");
        }
        for (before, now, expected) in [("", "b", None), ("b", "b", None), ("a", "b", Some("b"))] {
            assert_eq!(rebooted(&status(&[], before), &status(&[], now)), expected);
        }
    }

    #[test]
    fn a_status_that_others_wrote_over_is_reported_again() {
        let status = |ready: &str, at: &str| -> NodeStatus {
            let condition = serde_json::json!({"type": "Ready", "status": ready, "lastHeartbeatTime": at,
                "lastTransitionTime": at});
            serde_json::from_value(serde_json::json!({"conditions": [condition]}))
                .expect("a status")
        };
        let [then, now] = ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"];
        let reported = Reported {
            status: status("True", then),
            at: std::time::Instant::now(),
            version: 5,
        };
        for (version, theirs, ours, expected) in [
            ("5", "True", "True", true),
            ("5", "True", "False", false),
            // Labels were changed.
            ("7", "True", "True", true),
            // The node's lease had expired.
            ("7", "Unknown", "True", false),
            // The watch is behind.
            ("4", "Unknown", "True", true),
        ] {
            let mut node = Node {
                status: Some(status(theirs, then)),
                ..Node::default()
            };
            node.metadata.resource_version = Some(version.into());
            let covers = reported.covers(&status(ours, now), &node);
            assert_eq!(covers, expected, "{version} {theirs} {ours}");
        }
    }
}
