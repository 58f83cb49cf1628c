//! Computes where the ports of services lead: a pure function of services, their endpoint slices and the node. Follows
//! k8s.io/kubernetes/pkg/proxy (servicechangetracker, endpointschangetracker, topology).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ServicePort as Port, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use kube::ResourceExt as _;

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

/// The node for which the plan is made.
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

/// An endpoint's port.
struct Place {
    at: SocketAddrV4,
    ready: bool,
    serving: bool,
    terminating: bool,
    is_local: bool,
    /// Whether its hints name this node; None without node hints.
    for_node: Option<bool>,
    /// Whether its hints name this zone; None without zone hints.
    for_zone: Option<bool>,
}

impl Place {
    /// The API server in this process, as an endpoint.
    fn own(at: SocketAddrV4) -> Place {
        Place {
            at,
            ready: true,
            serving: true,
            terminating: false,
            is_local: true,
            for_node: None,
            for_zone: None,
        }
    }

    fn of(endpoint: &Endpoint, port: u16, here: &Here, zone: Option<&str>) -> Option<Place> {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready);
        let serving = conditions.and_then(|conditions| conditions.serving);
        let terminating = conditions.and_then(|conditions| conditions.terminating);
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref());
        let zones = hints.and_then(|hints| hints.for_zones.as_deref());
        Some(Place {
            // Further addresses belong to the same endpoint.
            at: SocketAddrV4::new(endpoint.addresses.first()?.parse().ok()?, port),
            ready: ready.unwrap_or(true),
            serving: serving.unwrap_or(true),
            terminating: terminating.unwrap_or(false),
            is_local: endpoint.node_name.as_deref() == Some(&here.node),
            for_node: nodes
                .filter(|nodes| !nodes.is_empty())
                .map(|nodes| nodes.iter().any(|node| node.name == here.node)),
            for_zone: zones
                .filter(|zones| !zones.is_empty())
                .map(|zones| zones.iter().any(|other| Some(other.name.as_str()) == zone)),
        })
    }
}

/// The distinct endpoints: if two slices, or one twice, list the same address, the entry that is not terminating wins
/// (the address may have belonged to another pod before).
fn distinct(places: impl Iterator<Item = Place>) -> Vec<Place> {
    let mut all: BTreeMap<SocketAddrV4, Place> = BTreeMap::new();
    for place in places {
        match all.get(&place.at) {
            Some(known) if !known.terminating || place.terminating => {}
            _ => {
                all.insert(place.at, place);
            }
        }
    }
    all.into_values().collect()
}

/// Selects the ready endpoints for traffic from this node, by hints (topologyModeFromHints): those for the node if all
/// have node hints and some name this one, otherwise the same by zones, otherwise all.
fn near(places: &[Place]) -> fn(&Place) -> bool {
    let all_tell = |of: fn(&Place) -> Option<bool>| {
        let mut ready = places.iter().filter(|place| place.ready).map(of);
        let tells = ready.clone().all(|hint| hint.is_some());
        tells && ready.any(|hint| hint == Some(true))
    };
    if all_tell(|place| place.for_node) {
        |place| place.for_node == Some(true)
    } else if all_tell(|place| place.for_zone) {
        |place| place.for_zone == Some(true)
    } else {
        |_| true
    }
}

/// The endpoints of a service port, each with its own port number.
fn endpoints<'a>(slices: &[&'a EndpointSlice], port: &Port) -> Vec<(&'a Endpoint, u16)> {
    let named = |text: &Option<String>| text.clone().unwrap_or_default();
    let is_meant = |other: &&EndpointPort| {
        named(&other.name) == named(&port.name)
            && other.protocol.as_deref().unwrap_or("TCP")
                == port.protocol.as_deref().unwrap_or("TCP")
    };
    let of_slice = |slice: &'a EndpointSlice| {
        let found = slice.ports.iter().flatten().find(is_meant);
        let number = found.and_then(|port| u16::try_from(port.port?).ok());
        let endpoints = number.map(|number| slice.endpoints.iter().map(move |at| (at, number)));
        endpoints.into_iter().flatten()
    };
    slices.iter().copied().flat_map(of_slice).collect()
}

/// The endpoints in `among` that take traffic: the ready ones, or, if there are none, those that are terminating but
/// still serving.
fn usable(places: &[Place], among: impl Fn(&Place) -> bool) -> Vec<SocketAddrV4> {
    let of = |takes: fn(&Place) -> bool| -> Vec<SocketAddrV4> {
        let taking = places.iter().filter(|place| takes(place) && among(place));
        taking.map(|place| place.at).collect()
    };
    let ready = of(|place| place.ready);
    match ready.is_empty() {
        false => ready,
        true => of(|place| place.serving && place.terminating),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyed<T: kube::Resource + serde::de::DeserializeOwned>(
        object: serde_json::Value,
    ) -> (Key, Arc<T>) {
        let object: T = serde_json::from_value(object).expect("an object");
        let key = Key::new("default", &object.name_any());
        (key, Arc::new(object))
    }

    fn service(spec: serde_json::Value) -> (Key, Arc<Service>) {
        keyed(json!({"metadata": {"name": "web"}, "spec": spec}))
    }

    fn slice(endpoints: serde_json::Value) -> (Key, Arc<EndpointSlice>) {
        keyed(json!({
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        }))
    }

    fn here() -> Here {
        Here {
            node: "n1".to_owned(),
            addresses: vec![[192, 0, 2, 1].into()],
            api_server: None,
        }
    }

    fn planned(spec: serde_json::Value, endpoints: serde_json::Value) -> Vec<ServicePort> {
        let here = here();
        plan(&[service(spec)], &[slice(endpoints)], &here, None)
    }

    fn at(texts: &[&str]) -> Vec<SocketAddrV4> {
        let texts = texts.iter();
        texts.map(|text| text.parse().expect("a place")).collect()
    }

    #[test]
    fn a_port_leads_to_the_endpoints_that_take_traffic() {
        let end = |ip: &str, node: &str, ready: bool, terminating: bool| {
            json!({"addresses": [ip], "nodeName": node,
                "conditions": {"ready": ready, "serving": true, "terminating": terminating}})
        };
        let (here, there) = (
            end("10.0.0.1", "n1", true, false),
            end("10.0.1.1", "n2", true, false),
        );
        let ending = end("10.0.0.2", "n1", false, true);
        let waiting = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false}});
        for (policy, endpoints, expected, others) in [
            (
                "Cluster",
                json!([here, there, ending]),
                at(&["10.0.0.1:8080", "10.0.1.1:8080"]),
                false,
            ),
            ("Local", json!([here, there]), at(&["10.0.0.1:8080"]), true),
            ("Local", json!([there]), at(&[]), true),
            ("Local", json!([]), at(&[]), false),
            (
                "Cluster",
                json!([ending, waiting]),
                at(&["10.0.0.2:8080"]),
                false,
            ),
            (
                "Local",
                json!([there, ending]),
                at(&["10.0.0.2:8080"]),
                true,
            ),
            // An address that another pod has by now.
            (
                "Cluster",
                json!([end("10.0.0.1", "n1", false, true), here]),
                at(&["10.0.0.1:8080"]),
                false,
            ),
            (
                "Cluster",
                json!([waiting, end("10.0.0.3", "n1", false, true)]),
                at(&[]),
                false,
            ),
            ("Cluster", json!([waiting]), at(&[]), false),
            // The same pod in two slices, or twice in one, is one endpoint.
            (
                "Cluster",
                json!([here, here]),
                at(&["10.0.0.1:8080"]),
                false,
            ),
        ] {
            let spec = json!({"clusterIPs": ["10.96.0.5"], "internalTrafficPolicy": policy,
                "ports": [{"port": 80, "targetPort": 8080}]});
            let ports = planned(spec, endpoints.clone());
            assert_eq!(ports.len(), 1);
            let inside = ports[0].endpoints(ports[0].inside);
            assert_eq!(inside, expected, "{policy} {endpoints}");
            let elsewhere = ports[0].cluster.iter().any(|at| !inside.contains(at));
            assert_eq!(elsewhere, others, "{policy} {endpoints}");
            assert_eq!(ports[0].name, "default/web/tcp/-");
        }
        // Clients of a terminating endpoint stay there as long as it serves.
        let spec = json!({"clusterIPs": ["10.96.0.5"], "internalTrafficPolicy": "Local", "ports": [{"port": 80}]});
        let ports = planned(spec, json!([here, there, ending, waiting]));
        // Without conditions an endpoint counts as serving, also while it terminates.
        let serving = at(&[
            "10.0.0.1:8080",
            "10.0.0.2:8080",
            "10.0.0.3:8080",
            "10.0.1.1:8080",
        ]);
        assert_eq!(ports[0].serving, serving);
    }

    /// The cases of upstream's TestCategorizeEndpoints.
    #[test]
    fn traffic_stays_near_where_hints_say_so() {
        // Zone hints, then node hints; ready, serving, terminating, and whether it is on this node.
        type Told = (&'static [&'static str], &'static [&'static str], [bool; 4]);
        const READY: [bool; 4] = [true, true, false, false];
        const HERE: [bool; 4] = [true, true, false, true];
        const UNREADY: [bool; 4] = [false, false, false, false];
        const ENDING: [bool; 4] = [false, true, true, false];
        const ENDING_HERE: [bool; 4] = [false, true, true, true];
        let (a, b, c) = (&["a"][..], &["b"][..], &["c"][..]);
        let (n1, n2, none) = (&["n1"][..], &["n2"][..], &[][..]);
        type Numbers = &'static [usize];
        type Case = (
            &'static str,
            Option<&'static str>,
            Vec<Told>,
            Numbers,
            Numbers,
        );
        let cases: Vec<Case> = vec![
            (
                "endpoints of this zone",
                Some("a"),
                vec![
                    (a, none, READY),
                    (b, none, READY),
                    (c, none, READY),
                    (a, none, READY),
                ],
                &[0, 3],
                &[],
            ),
            (
                "those of this node are not chosen by zone",
                Some("a"),
                vec![
                    (a, none, HERE),
                    (b, none, HERE),
                    (c, none, READY),
                    (a, none, READY),
                ],
                &[0, 3],
                &[0, 1],
            ),
            (
                "the node has no zone",
                None,
                vec![(a, none, READY)],
                &[0],
                &[],
            ),
            ("an empty one", Some(""), vec![(a, none, READY)], &[0], &[]),
            (
                "none is for this zone",
                Some("b"),
                vec![(a, none, READY)],
                &[0],
                &[],
            ),
            (
                "one that is not ready",
                Some("a"),
                vec![
                    (a, none, READY),
                    (b, none, READY),
                    (c, none, READY),
                    (a, none, UNREADY),
                ],
                &[0],
                &[],
            ),
            (
                "only those that are not ready are for this zone",
                Some("a"),
                vec![(a, none, UNREADY), (b, none, READY), (c, none, READY)],
                &[1, 2],
                &[],
            ),
            (
                "one has no hint",
                Some("a"),
                vec![
                    (a, none, READY),
                    (none, none, READY),
                    (c, none, READY),
                    (a, none, READY),
                ],
                &[0, 1, 2, 3],
                &[],
            ),
            (
                "one that is not ready has none",
                Some("a"),
                vec![(a, none, READY), (none, none, UNREADY), (c, none, READY)],
                &[0],
                &[],
            ),
            (
                "several zones each",
                Some("c"),
                vec![
                    (&["a", "b", "c"], none, READY),
                    (&["b", "c"], none, READY),
                    (b, none, READY),
                    (c, none, READY),
                ],
                &[0, 1, 3],
                &[],
            ),
            (
                "for this node",
                Some("a"),
                vec![(a, n1, READY), (a, n2, READY)],
                &[0],
                &[],
            ),
            (
                "none is for this node, some for its zone",
                Some("a"),
                vec![(a, n2, READY), (b, &["n3"], READY)],
                &[0],
                &[],
            ),
            (
                "one has no hint for nodes",
                Some("a"),
                vec![(a, n1, READY), (b, none, READY)],
                &[0],
                &[],
            ),
            (
                "neither is for here",
                Some("c"),
                vec![(a, n2, READY), (b, n2, READY)],
                &[0, 1],
                &[],
            ),
            (
                "those that end, where none is ready, wherever they are",
                Some("a"),
                vec![(a, n1, ENDING), (b, n2, ENDING_HERE)],
                &[0, 1],
                &[1],
            ),
            ("nothing", Some("a"), vec![], &[], &[]),
        ];
        for (what, zone, told, cluster, local) in cases {
            let endpoints: Vec<_> = told
                .iter()
                .enumerate()
                .map(|(i, (zones, nodes, [ready, serving, terminating, here]))| {
                    let named = |names: &[&str]| -> Vec<_> {
                        names.iter().map(|name| json!({"name": name})).collect()
                    };
                    json!({
                        "addresses": [format!("10.0.0.{i}")],
                        "nodeName": if *here { "n1" } else { "n9" },
                        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                        "hints": {"forZones": named(zones), "forNodes": named(nodes)},
                    })
                })
                .collect();
            let spec = json!({"clusterIPs": ["10.96.0.5"], "ports": [{"port": 80}]});
            let ports = plan(&[service(spec)], &[slice(json!(endpoints))], &here(), zone);
            let of = |numbers: &[usize]| {
                let texts: Vec<_> = numbers.iter().map(|i| format!("10.0.0.{i}:8080")).collect();
                at(&texts.iter().map(String::as_str).collect::<Vec<_>>())
            };
            assert_eq!(ports[0].cluster, of(cluster), "{what}");
            assert_eq!(ports[0].local, of(local), "{what}");
        }
    }

    #[test]
    fn load_balancers_ask_for_ready_endpoints_of_this_node() {
        let at = |address: &str, node: &str, ready: bool| json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready}});
        let slice = slice(json!([
            at("10.0.0.1", "n1", true),
            at("10.0.0.1", "n1", true),
            at("10.0.0.2", "n1", false),
            at("10.0.0.3", "n2", true),
        ]));
        for (what, kind, policy, port, expected) in [
            ("asked", "LoadBalancer", "Local", 30100, Some(1)),
            ("no port", "LoadBalancer", "Local", 0, None),
            ("any node will do", "LoadBalancer", "Cluster", 30100, None),
            ("no load balancer", "NodePort", "Local", 30100, None),
        ] {
            let spec = json!({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port,
                "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80}]});
            let found = asked(&[service(spec)], std::slice::from_ref(&slice), &here());
            let local = found.first().map(|asked| asked.local);
            assert_eq!(local, expected, "{what}");
        }
    }

    #[test]
    fn a_host_asks_by_its_balancers_address_where_it_may_ask_at_all() {
        for (range, expected) in [
            ("192.0.2.0/24", vec!["192.0.2.0/24", "203.0.113.8/32"]),
            ("198.51.100.0/24", vec!["198.51.100.0/24"]),
        ] {
            let spec = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"],
                "loadBalancerSourceRanges": [range], "ports": [{"port": 80}]});
            let service = keyed::<Service>(json!({"metadata": {"name": "web"}, "spec": spec,
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}}}));
            let ports = plan(&[service], &[], &here(), None);
            assert_eq!(ports[0].source_ranges, expected);
        }
    }

    #[test]
    fn services_of_others_and_without_an_address_are_left_out() {
        let ports = json!([{"port": 80}]);
        for spec in [
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
            json!({"type": "ExternalName", "externalName": "example.com", "ports": ports}),
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"], "ports": ports}),
            json!({"clusterIPs": ["10.96.0.5"], "ports": []}),
        ] {
            assert_eq!(planned(spec.clone(), json!([])), [], "{spec}");
        }
        let foreign = keyed::<Service>(json!({
            "metadata": {"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": "x"}},
            "spec": {"clusterIPs": ["10.96.0.5"], "ports": ports},
        }));
        let here = here();
        assert_eq!(plan(&[foreign], &[], &here, None), []);
    }

    #[test]
    fn a_service_is_had_by_all_its_addresses() {
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"],
            "externalIPs": ["192.0.2.7"], "loadBalancerSourceRanges": [" 198.51.100.7/24", "::/0"],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "nodePort": 30080}, {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 0}],
        });
        let service = keyed::<Service>(json!({"metadata": {"name": "web"}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.8", "ipMode": "VIP"}, {"ip": "192.0.2.9", "ipMode": "Proxy"}, {"hostname": "h"}]}}}));
        let slice = slice(json!([{"addresses": ["10.0.0.1"]}]));
        let here = here();
        let ports = plan(&[service], &[slice], &here, None);
        let [web, dns] = &ports[..] else {
            panic!("{ports:?}")
        };
        assert_eq!(web.cluster_ips, [Ipv4Addr::new(10, 96, 0, 5)]);
        assert_eq!(web.external_ips, [Ipv4Addr::new(192, 0, 2, 7)]);
        assert_eq!(web.balancer_ips, [Ipv4Addr::new(192, 0, 2, 8)]);
        assert_eq!(web.source_ranges, ["198.51.100.0/24"]);
        assert_eq!((web.node_port, dns.node_port), (Some(30080), None));
        assert_eq!(web.affinity, Some(Duration::from_secs(60)));
        assert_eq!((web.inside, web.outside), (Policy::Cluster, Policy::Local));
        assert_eq!(web.local, []);
        assert_eq!(web.cluster, at(&["10.0.0.1:8080"]));
        assert_eq!(dns.name, "default/web/udp/dns");
        assert_eq!(dns.cluster, [], "the slice has no port of its name");
    }

    #[test]
    fn the_api_server_of_this_process_is_found_without_endpoints() {
        let kubernetes = keyed::<Service>(json!({"metadata": {"name": "kubernetes"},
            "spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"name": "https", "port": 443}]}}));
        let here = Here {
            api_server: "127.0.0.1:6443".parse().ok(),
            ..here()
        };
        let ports = plan(std::slice::from_ref(&kubernetes), &[], &here, None);
        assert_eq!(ports[0].cluster, at(&["127.0.0.1:6443"]));
        let told = keyed::<EndpointSlice>(json!({
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}],
            "ports": [{"name": "https", "port": 6443}],
        }));
        let ports = plan(&[kubernetes], &[told], &here, None);
        assert_eq!(ports[0].cluster, at(&["192.0.2.1:6443"]));
    }
}
