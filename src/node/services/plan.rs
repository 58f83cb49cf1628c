//! Which ports of services lead where: a function of services, their endpoint slices and the node.
//! Follows k8s.io/kubernetes/pkg/proxy (servicechangetracker, endpointschangetracker, topology).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ServicePort as Port, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use kube::ResourceExt as _;

use super::{EndpointSlice, Service};
use crate::controllers::informer::Key;
use crate::meta::addresses::parse_cidr;
use crate::net::services::{Backends, Protocol, ServicePort};

/// The label by which a slice names its service.
const OF: &str = "kubernetes.io/service-name";
/// The label of services that another proxy leads.
const FOREIGN: &str = "service.kubernetes.io/service-proxy-name";
/// How long a client stays with its endpoint where a service does not say.
const STAYS: Duration = Duration::from_secs(10800);

/// The node for which is planned.
#[derive(Clone)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// Where the API server in this process listens. The service `kubernetes` leads there while the cluster has no
    /// endpoint for it, as where only this machine reaches the server.
    pub api_server: Option<SocketAddrV4>,
}

/// What the network of a node is to do for all services, ordered by name.
pub fn plan(
    services: &[(Key, Arc<Service>)],
    slices: &[(Key, Arc<EndpointSlice>)],
    here: &Here,
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
            let endpoints = match here.api_server {
                Some(at) if is_own => vec![Place {
                    at,
                    ready: true,
                    serving: true,
                    terminating: false,
                    is_local: true,
                }],
                _ => endpoints
                    .into_iter()
                    .filter_map(|(endpoint, port)| Place::of(endpoint, port, &here.node))
                    .collect(),
            };
            ports.extend(service_port(key, service, port, &cluster_ips, &endpoints));
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
) -> Option<ServicePort> {
    let spec = &service.spec;
    let protocol = Protocol::of(port.protocol.as_deref().unwrap_or("TCP"))?;
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    // Those of the other family are not for these addresses.
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let ranges = ranges.filter_map(|range| Some(parse_cidr(range.trim())?.1));
    let ranges = ranges.filter(|range| range.address.is_ipv4());
    Some(ServicePort {
        name: format!(
            "{}/{}/{}/{}",
            key.namespace,
            key.name,
            protocol.name(),
            match port.name.as_deref() {
                // Two ports without a name are one of each protocol.
                None | Some("") => "-",
                Some(name) => name,
            }
        ),
        protocol,
        port: u16::try_from(port.port).ok()?,
        cluster_ips: cluster_ips.to_vec(),
        external_ips: addresses(spec.external_ips.iter().flatten()),
        balancer_ips: addresses(service.balancer_ips()),
        source_ranges: ranges.map(|range| range.to_string()).collect(),
        node_port: port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0),
        inside: backends(places, is_local(&spec.internal_traffic_policy)),
        outside: backends(places, is_local(&spec.external_traffic_policy)),
        serving: {
            let serving = places.iter().filter(|place| place.serving);
            let serving: BTreeSet<_> = serving.map(|place| place.at).collect();
            serving.into_iter().collect()
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
    // What was stored before there could be several has only the one.
    let one = spec.cluster_ip.iter();
    one.filter(|one| !spec.cluster_ips.iter().flatten().any(|ip| ip == *one))
        .chain(all)
}

/// Those of version 4: zones have no others.
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
}

impl Place {
    fn of(endpoint: &Endpoint, port: u16, node: &str) -> Option<Place> {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready);
        let serving = conditions.and_then(|conditions| conditions.serving);
        let terminating = conditions.and_then(|conditions| conditions.terminating);
        Some(Place {
            // The other addresses are the same place.
            at: SocketAddrV4::new(endpoint.addresses.first()?.parse().ok()?, port),
            ready: ready.unwrap_or(true),
            serving: serving.or(ready).unwrap_or(true),
            terminating: terminating.unwrap_or(false),
            is_local: endpoint.node_name.as_deref() == Some(node),
        })
    }
}

/// The endpoints of a service's port, each with its own port.
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

/// Those that take traffic: the ready ones, or, where there is none, those that end and still serve.
fn backends(places: &[Place], is_local: bool) -> Backends {
    let usable = |of_node: bool| -> BTreeSet<SocketAddrV4> {
        let mine = || places.iter().filter(|place| !of_node || place.is_local);
        let ready: BTreeSet<_> = mine().filter(|place| place.ready).map(|p| p.at).collect();
        match ready.is_empty() {
            false => ready,
            true => mine()
                .filter(|place| place.serving && place.terminating)
                .map(|place| place.at)
                .collect(),
        }
    };
    let endpoints = usable(is_local);
    Backends {
        has_others: is_local && usable(false).difference(&endpoints).next().is_some(),
        endpoints: endpoints.into_iter().collect(),
        is_local,
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

    fn planned(spec: serde_json::Value, endpoints: serde_json::Value) -> Vec<ServicePort> {
        let here = Here {
            node: "n1".to_owned(),
            api_server: None,
        };
        plan(&[service(spec)], &[slice(endpoints)], &here)
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
            let inside = &ports[0].inside;
            assert_eq!(inside.endpoints, expected, "{policy} {endpoints}");
            assert_eq!(inside.has_others, others, "{policy} {endpoints}");
            assert_eq!(ports[0].name, "default/web/tcp/-");
        }
        // Who is with an endpoint that ends stays there as long as it serves.
        let spec = json!({"clusterIPs": ["10.96.0.5"], "internalTrafficPolicy": "Local", "ports": [{"port": 80}]});
        let ports = planned(spec, json!([here, there, ending, waiting]));
        let serving = at(&["10.0.0.1:8080", "10.0.0.2:8080", "10.0.1.1:8080"]);
        assert_eq!(ports[0].serving, serving);
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
        let here = Here {
            node: "n1".to_owned(),
            api_server: None,
        };
        assert_eq!(plan(&[foreign], &[], &here), []);
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
        let here = Here {
            node: "n1".to_owned(),
            api_server: None,
        };
        let ports = plan(&[service], &[slice], &here);
        let [web, dns] = &ports[..] else {
            panic!("{ports:?}")
        };
        assert_eq!(web.cluster_ips, [Ipv4Addr::new(10, 96, 0, 5)]);
        assert_eq!(web.external_ips, [Ipv4Addr::new(192, 0, 2, 7)]);
        assert_eq!(web.balancer_ips, [Ipv4Addr::new(192, 0, 2, 8)]);
        assert_eq!(web.source_ranges, ["198.51.100.0/24"]);
        assert_eq!((web.node_port, dns.node_port), (Some(30080), None));
        assert_eq!(web.affinity, Some(Duration::from_secs(60)));
        assert!(web.outside.is_local && web.outside.endpoints.is_empty() && web.outside.has_others);
        assert_eq!(web.inside.endpoints, at(&["10.0.0.1:8080"]));
        assert_eq!(dns.name, "default/web/udp/dns");
        assert_eq!(
            dns.inside.endpoints,
            [],
            "the slice has no port of its name"
        );
    }

    #[test]
    fn the_api_server_of_this_process_is_found_without_endpoints() {
        let kubernetes = keyed::<Service>(json!({"metadata": {"name": "kubernetes"},
            "spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"name": "https", "port": 443}]}}));
        let here = Here {
            node: "n1".to_owned(),
            api_server: "127.0.0.1:6443".parse().ok(),
        };
        let ports = plan(std::slice::from_ref(&kubernetes), &[], &here);
        assert_eq!(ports[0].inside.endpoints, at(&["127.0.0.1:6443"]));
        let told = keyed::<EndpointSlice>(json!({
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}],
            "ports": [{"name": "https", "port": 6443}],
        }));
        let ports = plan(&[kubernetes], &[told], &here);
        assert_eq!(ports[0].inside.endpoints, at(&["192.0.2.1:6443"]));
    }
}
