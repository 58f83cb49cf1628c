//! Which endpoints a service should have: from its spec and its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use kube::ResourceExt as _;

use super::super::{Service, find_port, hostname, is_reachable, reference};
use crate::client::informer::Informer;
use crate::client::kinds::{Node, Pod};

/// The address families of a service.
pub(super) fn families(service: &Service) -> Vec<&'static str> {
    let mut families: Vec<&str> = service
        .spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| ["IPv4", "IPv6"].into_iter().find(|known| known == family))
        .collect();
    families.dedup();
    if !families.is_empty() {
        return families;
    }
    match service.spec.cluster_ip.as_deref() {
        None | Some("" | "None") => vec!["IPv4", "IPv6"],
        Some(address) if address.contains(':') => vec!["IPv6"],
        Some(_) => vec!["IPv4"],
    }
}

/// Ports in comparable form.
pub(in super::super) type Ports = Vec<(String, Option<i32>, String, Option<String>)>;

pub(in super::super) fn ports_key(ports: &[EndpointPort]) -> Ports {
    let mut key: Ports = ports
        .iter()
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.port,
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port.app_protocol.clone(),
            )
        })
        .collect();
    key.sort();
    key
}

/// The endpoints that should exist, by their ports.
pub(super) type Wanted = BTreeMap<Ports, (Vec<EndpointPort>, Vec<Endpoint>)>;

/// The endpoints that a service should have; adds pods whose node is unknown to `lost`.
pub(super) fn wanted(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &Informer<Node>,
    family: &str,
    lost: &mut Vec<String>,
) -> Wanted {
    let mut out = Wanted::new();
    for pod in pods.iter().filter(|pod| is_reachable(pod)) {
        let ports = endpoint_ports(service, pod);
        let (_, endpoints) = out
            .entry(ports_key(&ports))
            .or_insert_with(|| (ports, Vec::new()));
        let node_name = pod.spec.node_name.as_deref().unwrap_or_default();
        let node = nodes.get("", node_name);
        if node.is_none() && !service.publishes_all() {
            lost.push(format!("pod {} on {node_name}", pod.name_any()));
            continue;
        }
        let zone = node.and_then(|node| {
            let labels = node.metadata.labels.as_ref()?;
            labels.get("topology.kubernetes.io/zone").cloned()
        });
        let endpoint = endpoint(service, pod, zone, family);
        if !endpoint.addresses.is_empty() {
            endpoints.push(endpoint);
        }
    }
    out
}

pub(super) fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.ports().iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(find_port(pod, port)?),
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}

pub(super) fn endpoint(
    service: &Service,
    pod: &Pod,
    zone: Option<String>,
    family: &str,
) -> Endpoint {
    let serving = pod.is_ready();
    let terminating = pod.is_deleting();
    let addresses = pod.status.pod_ips.iter().map(|address| address.ip.clone());
    Endpoint {
        addresses: addresses
            .filter(|address| address.contains(':') == (family == "IPv6"))
            .collect(),
        conditions: Some(EndpointConditions {
            ready: Some(service.publishes_all() || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: pod.spec.node_name.clone().filter(|name| !name.is_empty()),
        target_ref: Some(reference(pod)),
        zone: zone.filter(|zone| !zone.is_empty()),
        ..Endpoint::default()
    }
}
