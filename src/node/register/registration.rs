//! What a node says of itself when it registers, and in its status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeSpec,
    NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::addresses::Addresses;
use super::super::host::usage;
use super::super::machine::status_time;
use super::super::routes::Reach;
use crate::meta::version;

/// Features that the node declares, so that the API server and the scheduler allow them for its pods; sorted.
pub(in super::super) const DECLARED: [&str; 2] = [
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
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
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

    pub(super) fn node(&self) -> Node {
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
    pub(super) fn status(
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
