//! Derives what a pod's zone must be: pure functions of the pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::machine::{POD_NAME, POD_NAMESPACE, POD_UID, containers};
use super::sysctls::normalized;
use super::zone_name;
use crate::meta::amounts::{Amounts, Side};
use crate::meta::placement::ZONE_BRAND;
use crate::meta::quantity::Quantity;
use crate::net::Lease;
use crate::schema::{Value, json};
use crate::zone::{HostPort, Limits, ZoneNetwork, ZoneSpec};

/// Annotations that limit the bandwidth of a pod's link, in bits per second, as in CNI's bandwidth plugin.
const BANDWIDTH: [&str; 2] = [
    "kubernetes.io/egress-bandwidth",
    "kubernetes.io/ingress-bandwidth",
];

/// The annotation with the comma-separated names of a pod's volumes that are delegated to its zone.
pub const DELEGATED: &str = "reddwarf.io/delegated-volumes";

fn annotation<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    Some(annotations.get(name)?.trim()).filter(|value| !value.is_empty())
}

/// The brand in a pod's annotation. It takes precedence over the handler of the pod's runtime class.
pub fn brand(pod: &Pod) -> Option<&str> {
    annotation(pod, ZONE_BRAND)
}

/// Whether a volume is a claim's.
pub fn is_claim(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

/// The names of the volumes that are delegated to the pod's zone.
///
/// # Errors
/// One of them is not a claim.
pub fn delegated(pod: &Pod) -> Result<Vec<&str>, String> {
    let names = annotation(pod, DELEGATED).into_iter();
    let names = names.flat_map(|names| names.split(',').map(str::trim));
    let spec = pod.spec.as_ref();
    names
        .map(|name| {
            let mut volumes = spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            match volumes.any(|volume| volume.name == name && is_claim(volume)) {
                true => Ok(name),
                false => Err(format!(
                    "the annotation {DELEGATED} names {name:?}, which is no volume of the pod that a claim stands behind"
                )),
            }
        })
        .collect()
}

/// Volumes in memory, with their size limits.
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

/// Paths of the host in the pod's volumes.
pub fn host_paths(spec: &PodSpec) -> Vec<PathBuf> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| Some(PathBuf::from(&volume.host_path.as_ref()?.path)))
        .collect()
}

/// The images that a container needs, with their pull policies: its own, then those of image volumes that it mounts.
pub fn images<'a>(pod: &'a Pod, container: &'a Container) -> Vec<(&'a str, Option<&'a str>)> {
    let own = container.image.as_deref().unwrap_or_default();
    let mut images = vec![(own, container.image_pull_policy.as_deref())];
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes {
        let mut mounts = container.volume_mounts.iter().flatten();
        if let Some(of) = &volume.image
            && mounts.any(|mount| mount.name == volume.name)
        {
            let name = of.reference.as_deref().unwrap_or_default();
            images.push((name, of.pull_policy.as_deref()));
        }
    }
    images
}

/// The domain of a pod's host name, if it has one. Follows `GeneratePodHostNameAndDomain`.
pub fn host_domain(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.hostname_override.is_some() {
        return None;
    }
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{subdomain}.{namespace}.svc.{cluster_domain}"))
}

/// The host name in the kernel of a pod's zone: with the domain, if the pod wants that. Follows `GetNodenameForKernel`.
///
/// # Errors
/// It is too long for a kernel.
pub fn kernel_name(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    const MOST: usize = 64;
    let (name, domain) = (hostname(pod), host_domain(pod, cluster_domain));
    let spec = pod.spec.as_ref();
    let is_whole = spec.and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    let Some(domain) = domain.filter(|_| is_whole) else {
        return Ok(name);
    };
    let whole = format!("{name}.{domain}");
    match whole.len() {
        length if length > MOST => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long ({MOST} characters is the max, {length} characters requested)"
        )),
        _ => Ok(whole),
    }
}

/// The host name of a pod: the one in its spec, otherwise its name.
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

/// The parts of a pod that the rules for resources and ports need, as they read them: a whole pod is ten times as
/// large.
pub fn demands(spec: Option<&PodSpec>, status: Option<&PodStatus>) -> Value {
    let container = |of: &Container| Container {
        name: of.name.clone(),
        ports: of.ports.clone(),
        resources: of.resources.clone(),
        restart_policy: of.restart_policy.clone(),
        ..Container::default()
    };
    let has = |of: &ContainerStatus| ContainerStatus {
        name: of.name.clone(),
        allocated_resources: of.allocated_resources.clone(),
        resources: of.resources.clone(),
        ..ContainerStatus::default()
    };
    let all = |of: &Option<Vec<ContainerStatus>>| Some(of.as_ref()?.iter().map(has).collect());
    let pod = Pod {
        spec: spec.map(|spec| PodSpec {
            containers: spec.containers.iter().map(container).collect(),
            init_containers: spec
                .init_containers
                .as_ref()
                .map(|init| init.iter().map(container).collect()),
            overhead: spec.overhead.clone(),
            resources: spec.resources.clone(),
            ..PodSpec::default()
        }),
        status: status.map(|status| PodStatus {
            allocated_resources: status.allocated_resources.clone(),
            conditions: status.conditions.clone(),
            container_statuses: all(&status.container_statuses),
            init_container_statuses: all(&status.init_container_statuses),
            resources: status.resources.clone(),
            ..PodStatus::default()
        }),
        ..Pod::default()
    };
    let text = serde_json::to_string(&pod).unwrap_or_default();
    json::parse(text.as_bytes()).map_or(Value::Null, |pod| pod.value)
}

/// The total requests or limits of a pod for a resource, with its overhead, whether they are set for its containers or
/// for the pod; None if there are none.
pub fn together(pod: &Pod, side: Side, resource: &str) -> Option<Quantity> {
    let pod = demands(pod.spec.as_ref(), None);
    altogether(pod.at("spec"), side, resource)
}

/// [`together`] for a spec from [`demands`].
fn altogether(spec: &Value, side: Side, resource: &str) -> Option<Quantity> {
    let amount = *Amounts::pod(spec, side).0.get(resource)?;
    let overhead = match amount.sign() {
        0 => Quantity::default(),
        _ => Amounts::read(spec.at("overhead")).get(resource),
    };
    Some(amount + overhead)
}

/// The limit of a pod, if it has one itself or each of its containers has; `demanded` is its spec from [`demands`].
fn bound(pod: &Pod, demanded: &Value, resource: &str) -> Option<Quantity> {
    let spec = pod.spec.as_ref()?;
    let has = |own: Option<&ResourceRequirements>| {
        let limit = own.and_then(|own| own.limits.as_ref()?.get(resource));
        limit.is_some_and(|limit| Quantity::parse(&limit.0).is_ok_and(|limit| limit.sign() > 0))
    };
    let each = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let bounded =
        has(spec.resources.as_ref()) || each.clone().all(|one| has(one.resources.as_ref()));
    altogether(demanded, Side::Limits, resource).filter(|_| bounded)
}

/// Defaults CPU requests to limits: a server has done that, but a pod from a file was not sent to one.
fn ask(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else {
            continue;
        };
        for container in containers {
            let limit = container.path(&["resources", "limits", "cpu"]).clone();
            if !limit.is_null() {
                let resources = container.object_mut().object_mut("resources");
                resources.object_mut("requests").set_default("cpu", limit);
            }
        }
    }
}

/// The requests of the whole pod: its own, or those of its containers, with overhead.
pub fn requests(pod: &Pod) -> Option<BTreeMap<String, ApiQuantity>> {
    let pod = demands(Some(pod.spec.as_ref()?), None);
    let spec = pod.at("spec");
    let mut all = Amounts::pod(spec, Side::Requests);
    all.add(&Amounts::read(spec.at("overhead")));
    let pairs = all.0.into_iter();
    let pairs = pairs.map(|(name, amount)| (name.to_string(), ApiQuantity(amount.to_string())));
    Some(pairs.collect())
}

/// The limits of a pod, by kubelet's rules (`ResourceConfigForPod` in pkg/kubelet/cm/helpers_linux.go).
pub fn limits(pod: &Pod) -> Limits {
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let mut demanded = demands(pod.spec.as_ref(), None);
    let mut demanded = demanded.remove("spec").unwrap_or_default();
    ask(&mut demanded);
    let asked = altogether(&demanded, Side::Requests, "cpu");
    let bound = |resource| bound(pod, &demanded, resource);
    let shares = asked.and_then(|asked| positive(asked.milli_value()));
    Limits {
        cpu_shares: Some(shares.map_or(2, |millis| (millis * 1024 / 1000).max(2))),
        cpu_millis: bound("cpu").and_then(|limit| positive(limit.milli_value())),
        memory: bound("memory").and_then(|limit| positive(limit.value())),
        pids: None,
        oom_score: None,
    }
}

/// The most that a pod may write, in bytes: the sum of its containers' limits, if each has one.
pub fn storage(pod: &Pod) -> Option<u64> {
    let demanded = demands(pod.spec.as_ref(), None);
    let limit = bound(pod, demanded.at("spec"), "ephemeral-storage")?;
    u64::try_from(limit.value()).ok()
}

/// The fsGroup of a pod.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// The specification of a pod's zone; `volumes` is the directory of its writable volumes.
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
        .map(|sysctl| (normalized(&sysctl.name), sysctl.value.clone()))
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
        brand: brand(pod).map(str::to_owned),
        host_processes: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        shared_processes: spec.share_process_namespace == Some(true),
        sysctls,
        shares,
        datasets: Vec::new(),
        memory_directories: memory,
        memory_group: fs_group(pod),
        limits: Limits::default(),
    }
}

#[cfg(test)]
mod tests;
