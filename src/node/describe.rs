//! What a pod asks of its zone: functions of the pod alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use super::machine::{Kind, POD_NAME, POD_NAMESPACE, POD_UID, containers};
use super::zone_name;
use crate::meta::quantity::Quantity;
use crate::net::Lease;
use crate::zone::{HostPort, Limits, ZoneNetwork, ZoneSpec};

/// Annotations that limit what passes a pod's link, in bits a second, as the bandwidth plugin of CNI has them.
const BANDWIDTH: [&str; 2] = [
    "kubernetes.io/egress-bandwidth",
    "kubernetes.io/ingress-bandwidth",
];

/// Volumes kept in memory, with their size limits.
pub fn in_memory(spec: &PodSpec) -> Vec<(String, Option<u64>)> {
    spec.volumes
        .iter()
        .flatten()
        .filter_map(|volume| {
            let empty = volume.empty_dir.as_ref()?;
            (empty.medium.as_deref() == Some("Memory")).then(|| {
                let limit = empty
                    .size_limit
                    .as_ref()
                    .and_then(|limit| Quantity::parse(&limit.0).ok())
                    .map(|limit| limit.value().max(0) as u64);
                (volume.name.clone(), limit.filter(|limit| *limit > 0))
            })
        })
        .collect()
}

/// Paths of the host that the pod's volumes show.
pub fn host_paths(spec: &PodSpec) -> Vec<PathBuf> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| Some(PathBuf::from(&volume.host_path.as_ref()?.path)))
        .collect()
}

/// The host name of a pod: what it asks for, else its name.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let asked = spec.and_then(|spec| {
        spec.hostname_override
            .clone()
            .or_else(|| spec.hostname.clone())
    });
    let name = asked
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| pod.metadata.name.clone().unwrap_or_default());
    let mut short: String = name.chars().take(63).collect();
    while short.ends_with(['-', '.']) {
        short.pop();
    }
    short
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    containers(spec)
        .iter()
        .flat_map(|(_, container)| container.ports.clone().unwrap_or_default())
        .filter_map(|port| {
            let host = u16::try_from(port.host_port?)
                .ok()
                .filter(|port| *port > 0)?;
            Some(HostPort {
                protocol: port.protocol.unwrap_or_else(|| "TCP".into()),
                host_address: port.host_ip.and_then(|ip| ip.parse().ok()),
                host,
                zone: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}

/// The network of a pod with an address of its own.
pub fn network(pod: &Pod, lease: Lease) -> ZoneNetwork {
    let annotations = pod.metadata.annotations.as_ref();
    let bandwidth = BANDWIDTH
        .iter()
        .filter_map(|name| Quantity::parse(annotations?.get(*name)?).ok())
        .filter_map(|quantity| u64::try_from(quantity.value()).ok())
        .filter(|bits| *bits > 0)
        .min();
    ZoneNetwork::Own {
        address: IpAddr::V4(lease.address),
        prefix: lease.prefix,
        gateway: IpAddr::V4(lease.gateway),
        mac: lease.mac,
        link: lease.link,
        ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(),
        bandwidth,
    }
}

/// An amount of all containers of a pod together, by kubelet's rules for a pod: the sum of those that run at the same
/// time, or what one init container and the sidecars before it have if that is more. A limit only where every
/// container has one. Processors are counted in thousandths.
fn together(pod: &Pod, limit: bool, name: &str) -> Option<u64> {
    let (mut running, mut sidecars, mut most) = (0, 0, 0);
    for (kind, container) in containers(pod.spec.as_ref()?) {
        let resources = container.resources.clone().unwrap_or_default();
        let find = |map: Option<BTreeMap<String, Amount>>| {
            let quantity = Quantity::parse(&map?.get(name)?.0).ok()?;
            let value = match name {
                "cpu" => quantity.milli_value(),
                _ => quantity.value(),
            };
            u64::try_from(value).ok().filter(|value| *value > 0)
        };
        let asked = find(resources.requests).filter(|_| !limit);
        let own = match asked.or_else(|| find(resources.limits)) {
            Some(own) => own,
            None if limit && kind != Kind::Ephemeral => return None,
            None => 0,
        };
        match kind {
            Kind::Init => most = most.max(sidecars + own),
            Kind::Sidecar => {
                sidecars += own;
                most = most.max(sidecars);
            }
            Kind::Regular => running += own,
            Kind::Ephemeral => {}
        }
    }
    Some(most.max(sidecars + running))
}

/// The limits of all containers of a pod together.
pub fn limits(pod: &Pod) -> Limits {
    Limits {
        cpu_shares: together(pod, false, "cpu").map(|millis| (millis * 1024 / 1000).max(2)),
        cpu_millis: together(pod, true, "cpu"),
        memory: together(pod, true, "memory"),
        pids: None,
        oom_score: None,
    }
}

/// The most that a pod may write, in bytes: the sum of its containers' limits, if each has one.
pub fn storage(pod: &Pod) -> Option<u64> {
    together(pod, true, "ephemeral-storage")
}

/// What a pod's zone is made of; `volumes` is the directory of its volumes that it may write.
pub fn zone_spec(
    pod: &Pod,
    network: ZoneNetwork,
    volumes: &Path,
    shares: Vec<PathBuf>,
) -> ZoneSpec {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let uid = metadata.uid.clone().unwrap_or_default();
    let memory = in_memory(&spec)
        .into_iter()
        .map(|(name, size)| (volumes.join(name), size))
        .collect();
    let sysctls = spec
        .security_context
        .iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
    ZoneSpec {
        name: zone_name(&uid),
        labels: BTreeMap::from([
            (POD_UID.into(), uid),
            (POD_NAME.into(), metadata.name.clone().unwrap_or_default()),
            (
                POD_NAMESPACE.into(),
                metadata.namespace.clone().unwrap_or_default(),
            ),
        ]),
        hostname: hostname(pod),
        network,
        host_processes: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        shared_processes: spec.share_process_namespace == Some(true),
        sysctls,
        shares,
        memory_directories: memory,
        limits: Limits::default(),
    }
}
