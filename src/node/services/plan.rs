//! Computes where the ports of services lead: a pure function of services, their endpoint slices and the node. Follows
//! k8s.io/kubernetes/pkg/proxy (servicechangetracker, endpointschangetracker, topology).

mod endpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ServicePort as Port, ServiceSpec};
use k8s_openapi::api::discovery::v1::Endpoint;
use kube::ResourceExt as _;

use self::endpoints::{Place, distinct, endpoints, near, usable};
use super::health::Asked;
use super::{EndpointSlice, Service};
use crate::client::informer::Key;
use crate::meta::addresses::{Network, parse_cidr};
use crate::net::services::{Policy, Protocol, ServicePort};

/// The label of a slice with the name of its service.
const OF: &str = "kubernetes.io/service-name";
/// The label of services that another proxy handles.
const FOREIGN: &str = "service.kubernetes.io/service-proxy-name";
/// The default session affinity timeout.
const STAYS: Duration = Duration::from_secs(10800);

/// The node for which to plan.
#[derive(Clone)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// Its own addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Where the API server in this process listens. The service `kubernetes` leads there if the cluster has no
    /// endpoint for it, as when only this machine can reach the server.
    pub api_server: Option<SocketAddrV4>,
}

/// The health check ports of services with `externalTrafficPolicy: Local`, with the number of their endpoints on the
/// node.
pub fn asked(
    services: &[(Key, Arc<Service>)],
    slices: &[(Key, Arc<EndpointSlice>)],
    here: &Here,
) -> Vec<Asked> {
    let is_here = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        endpoint.node_name.as_deref() == Some(&here.node)
            && conditions.and_then(|told| told.ready).unwrap_or(true)
    };
    let mut all = Vec::new();
    for (key, service) in services {
        let spec = &service.spec;
        let port = spec.health_check_node_port.unwrap_or_default();
        let is_asked = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.external_traffic_policy.as_deref() == Some("Local")
            && !service.labels().contains_key(FOREIGN);
        let Some(port) = u16::try_from(port)
            .ok()
            .filter(|port| is_asked && *port > 0)
        else {
            continue;
        };
        let own = slices.iter().filter(|(of, slice)| {
            of.namespace == key.namespace
                && slice.address_type == "IPv4"
                && slice.labels().get(OF).is_some_and(|of| *of == key.name)
        });
        let endpoints = own.flat_map(|(_, slice)| &slice.endpoints);
        let local = endpoints.filter(is_here);
        let local: BTreeSet<_> = local.filter_map(|one| one.addresses.first()).collect();
        all.push(Asked {
            port,
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            local: local.len(),
        });
    }
    all
}

/// The service ports for the network of a node in `zone`, ordered by service name.
pub fn plan(
    services: &[(Key, Arc<Service>)],
    slices: &[(Key, Arc<EndpointSlice>)],
    here: &Here,
    zone: Option<&str>,
) -> Vec<ServicePort> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for (key, slice) in slices {
        if let Some(service) = slice.labels().get(OF)
            && slice.address_type == "IPv4"
        {
            let of = (key.namespace.as_str(), service.as_str());
            by_service.entry(of).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for (key, service) in services {
        let spec = &service.spec;
        let cluster_ips = addresses(cluster_ips(spec));
        let is_external_name = spec.type_.as_deref() == Some("ExternalName");
        if is_external_name || cluster_ips.is_empty() || service.labels().contains_key(FOREIGN) {
            continue;
        }
        let of = (key.namespace.as_str(), key.name.as_str());
        let slices = by_service.get(&of).map_or(&[][..], Vec::as_slice);
        for port in spec.ports.iter().flatten() {
            let endpoints = endpoints(slices, port);
            let is_own = of == ("default", "kubernetes") && endpoints.is_empty();
            let places = match here.api_server {
                Some(at) if is_own => vec![Place::own(at)],
                _ => distinct(
                    endpoints
                        .into_iter()
                        .filter_map(|(endpoint, port)| Place::of(endpoint, port, here, zone)),
                ),
            };
            ports.extend(service_port(
                key,
                service,
                port,
                &cluster_ips,
                &places,
                here,
            ));
        }
    }
    ports
}

fn service_port(
    key: &Key,
    service: &Service,
    port: &Port,
    cluster_ips: &[Ipv4Addr],
    places: &[Place],
    here: &Here,
) -> Option<ServicePort> {
    let spec = &service.spec;
    let protocol = Protocol::of(port.protocol.as_deref().unwrap_or("TCP"))?;
    let policy = |policy: &Option<String>| match policy.as_deref() {
        Some("Local") => Policy::Local,
        _ => Policy::Cluster,
    };
    let balancer_ips = addresses(service.balancer_ips());
    // Ranges of the other IP family do not apply to these addresses.
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let ranges = ranges.filter_map(|range| Some(parse_cidr(range.trim())?.1));
    let mut ranges: Vec<_> = ranges.filter(|range| range.address.is_ipv4()).collect();
    let is_allowed = |address: &Ipv4Addr| {
        let mut ranges = ranges.iter();
        ranges.any(|range| range.contains((*address).into()))
    };
    if here.addresses.iter().any(is_allowed) {
        // A load balancer address may also be one of this host's: its own requests then come from there.
        ranges.extend(balancer_ips.iter().map(|ip| Network {
            address: (*ip).into(),
            prefix: 32,
        }));
    }
    Some(ServicePort {
        name: format!(
            "{}/{}/{}/{}",
            key.namespace,
            key.name,
            protocol.name(),
            match port.name.as_deref() {
                // Two unnamed ports differ in their protocol.
                None | Some("") => "-",
                Some(name) => name,
            }
        ),
        protocol,
        port: u16::try_from(port.port).ok()?,
        cluster_ips: cluster_ips.to_vec(),
        external_ips: addresses(spec.external_ips.iter().flatten()),
        balancer_ips,
        source_ranges: ranges.iter().map(Network::to_string).collect(),
        node_port: port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0),
        cluster: usable(places, near(places)),
        local: usable(places, |place| place.is_local),
        inside: policy(&spec.internal_traffic_policy),
        outside: policy(&spec.external_traffic_policy),
        serving: {
            let serving = places.iter().filter(|place| place.serving);
            serving.map(|place| place.at).collect()
        },
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
            seconds.map_or(STAYS, Duration::from_secs)
        }),
    })
}

fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = &String> {
    let all = spec.cluster_ips.iter().flatten();
    // Services stored before `clusterIPs` existed have only the one.
    let one = spec.cluster_ip.iter();
    one.filter(|one| !spec.cluster_ips.iter().flatten().any(|ip| ip == *one))
        .chain(all)
}

/// The IPv4 addresses: zones have no others.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    let texts = texts.into_iter();
    texts.filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
