//! The cluster's services, indexed by names and addresses. Follows CoreDNS's plugin `kubernetes`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::discovery::v1::Endpoint;

use crate::client::informer::{Change, Key};
use crate::node::services::{EndpointSlice, Service};

/// The label of a slice with the name of its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All services and their endpoints.
#[derive(Default)]
pub struct Directory {
    /// Whether all existing services are known.
    pub complete: bool,
    /// The time of the last change, in seconds: the serial number of the zone.
    pub serial: u32,
    services: BTreeMap<Key, Arc<Service>>,
    /// By service, and then by slice name.
    slices: HashMap<Key, BTreeMap<CompactString, Arc<EndpointSlice>>>,
    /// Services by cluster address.
    clusters: HashMap<IpAddr, BTreeSet<Key>>,
    /// Services by endpoint address, and the number of slices that list it.
    places: HashMap<IpAddr, BTreeMap<Key, usize>>,
}

/// The result of looking up a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The name does not exist.
    Missing,
    /// The name exists without records, or there are names below it.
    Empty,
    /// An alias of this name.
    Alias(String),
    /// Addresses.
    Places(Vec<Place>),
}

/// An address with its ports and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// The requested port, or one of all ports.
    pub port: Option<u16>,
    /// The name of this address alone, below the zone.
    pub name: Vec<String>,
}

/// A query about a service.
#[derive(Default)]
struct Wanted<'a> {
    /// The label of a single endpoint.
    endpoint: Option<&'a str>,
    /// Empty for any.
    port: &'a str,
    /// Empty for any.
    protocol: &'a str,
}

impl Wanted<'_> {
    fn is_port(&self, name: Option<&String>, protocol: Option<&String>) -> bool {
        let is = |wanted: &str, value: Option<&String>| {
            wanted.is_empty() || value.is_some_and(|value| value.eq_ignore_ascii_case(wanted))
        };
        is(self.port, name) && is(self.protocol, protocol)
    }
}

fn owner(key: &Key, slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    Some(Key::new(&key.namespace, labels.get(SERVICE_NAME)?))
}

/// The cluster addresses of a service; none if it is headless.
fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let many = service.spec.cluster_ips.iter().flatten();
    let one = service.spec.cluster_ip.iter();
    let mut addresses: Vec<IpAddr> = many.chain(one).filter_map(|ip| ip.parse().ok()).collect();
    let mut seen = BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}

/// The ready endpoints: for services that publish unready ones, slices list all as ready.
fn ready(slice: &EndpointSlice) -> impl Iterator<Item = (&Endpoint, IpAddr)> {
    slice
        .endpoints
        .iter()
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        })
        .flat_map(|endpoint| {
            let addresses = endpoint.addresses.iter();
            addresses.filter_map(move |address| Some((endpoint, address.parse().ok()?)))
        })
}

/// The label of an endpoint: its hostname, or its address with dashes.
fn label(endpoint: &Endpoint, address: IpAddr) -> String {
    if let Some(hostname) = endpoint.hostname.as_ref().filter(|name| !name.is_empty()) {
        return hostname.clone();
    }
    let dashed = address.to_string().replace(['.', ':'], "-");
    match dashed.ends_with('-') {
        true => dashed + "0",
        false => dashed,
    }
}

/// The port number of a service or slice, if it is valid.
fn port(number: i32) -> Option<u16> {
    number.try_into().ok()
}

fn below_services(key: &Key) -> Vec<String> {
    [key.name.as_str(), &key.namespace, "svc"]
        .map(str::to_owned)
        .to_vec()
}

impl Directory {
    /// Applies a change of a service.
    pub fn take_service(&mut self, change: &Change<'_, Service>) {
        let key = change.key;
        for address in change
            .old
            .into_iter()
            .flat_map(|old| cluster_addresses(old))
        {
            if let Some(keys) = self.clusters.get_mut(&address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.clusters.remove(&address);
                }
            }
        }
        self.services.remove(key);
        if let Some(new) = change.new {
            for address in cluster_addresses(new) {
                self.clusters
                    .entry(address)
                    .or_default()
                    .insert(key.clone());
            }
            self.services.insert(key.clone(), new.clone());
        }
    }

    /// Applies a change of a slice.
    pub fn take_slice(&mut self, change: &Change<'_, EndpointSlice>) {
        if let Some((old, of)) = change
            .old
            .and_then(|old| Some((old, owner(change.key, old)?)))
        {
            if let Some(slices) = self.slices.get_mut(&of) {
                slices.remove(&change.key.name);
                if slices.is_empty() {
                    self.slices.remove(&of);
                }
            }
            for (_, address) in ready(old) {
                let Some(owners) = self.places.get_mut(&address) else {
                    continue;
                };
                if let Some(count) = owners.get_mut(&of) {
                    *count -= 1;
                    if *count == 0 {
                        owners.remove(&of);
                    }
                }
                if owners.is_empty() {
                    self.places.remove(&address);
                }
            }
        }
        if let Some((new, of)) = change
            .new
            .and_then(|new| Some((new, owner(change.key, new)?)))
        {
            for (_, address) in ready(new) {
                let owners = self.places.entry(address).or_default();
                *owners.entry(of.clone()).or_default() += 1;
            }
            let slices = self.slices.entry(of).or_default();
            slices.insert(change.key.name.clone(), new.clone());
        }
    }

    /// Looks up the labels of a name below the zone, in lower case.
    pub fn find(&self, below: &[&str]) -> Found {
        let without = |label: &'_ str| label.strip_prefix('_').unwrap_or(label).to_owned();
        match below {
            ["svc" | "pod"] | [_, "pod"] => Found::Empty,
            [namespace, "svc"] if self.has_namespace(namespace) => Found::Empty,
            [name, namespace, "svc"] => self.service(namespace, name, &Wanted::default()),
            [endpoint, name, namespace, "svc"] => {
                let wanted = Wanted {
                    endpoint: Some(endpoint),
                    ..Wanted::default()
                };
                self.service(namespace, name, &wanted)
            }
            [port, protocol, name, namespace, "svc"] => {
                let wanted = Wanted {
                    endpoint: None,
                    port: &without(port),
                    protocol: &without(protocol),
                };
                self.service(namespace, name, &wanted)
            }
            [pod, _, "pod"] => dashed(pod).map_or(Found::Missing, |address| {
                Found::Places(vec![Place {
                    address,
                    port: None,
                    name: Vec::new(),
                }])
            }),
            _ => Found::Missing,
        }
    }

    /// Namespaces without services have no names, and are not known here.
    fn has_namespace(&self, namespace: &str) -> bool {
        let mut from = self.services.range(Key::new(namespace, "")..);
        from.next()
            .is_some_and(|(key, _)| key.namespace == namespace)
    }

    fn service(&self, namespace: &str, name: &str, wanted: &Wanted<'_>) -> Found {
        let key = Key::new(namespace, name);
        let Some(service) = self.services.get(&key) else {
            return Found::Missing;
        };
        let spec = &service.spec;
        let is_whole =
            wanted.endpoint.is_none() && wanted.port.is_empty() && wanted.protocol.is_empty();
        if spec.type_.as_deref() == Some("ExternalName") {
            let name = spec.external_name.clone().unwrap_or_default();
            return match is_whole && name.parse::<IpAddr>().is_err() {
                true => Found::Alias(name),
                false => Found::Missing,
            };
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        let places = match headless || wanted.endpoint.is_some() {
            true => self.endpoints(&key, wanted),
            false => own_places(&key, service, wanted),
        };
        match places.is_empty() {
            // A service without an address yet.
            true if is_whole && !headless => Found::Empty,
            true => Found::Missing,
            false => Found::Places(places),
        }
    }

    /// The endpoints of a service, by endpoint and port.
    fn endpoints(&self, key: &Key, wanted: &Wanted<'_>) -> Vec<Place> {
        let mut places = Vec::new();
        for slice in self.slices.get(key).into_iter().flat_map(BTreeMap::values) {
            let ports: Vec<Option<u16>> = match slice.ports.as_deref().unwrap_or_default() {
                [] if wanted.is_port(None, None) => vec![None],
                ports => ports
                    .iter()
                    .filter(|port| wanted.is_port(port.name.as_ref(), port.protocol.as_ref()))
                    .map(|one| one.port.and_then(port))
                    .collect(),
            };
            for (endpoint, address) in ready(slice) {
                let label = label(endpoint, address);
                if wanted.endpoint.is_some_and(|wanted| wanted != label) {
                    continue;
                }
                let mut name = vec![label];
                name.append(&mut below_services(key));
                places.extend(ports.iter().map(|port| Place {
                    address,
                    port: *port,
                    name: name.clone(),
                }));
            }
        }
        places
    }

    /// The names of an address, below the zone: of the service that has it as cluster address, otherwise of services
    /// with that endpoint.
    pub fn names_of(&self, address: IpAddr) -> Vec<Vec<String>> {
        let service = self.clusters.get(&address).and_then(BTreeSet::first);
        if let Some(key) = service {
            return vec![below_services(key)];
        }
        let mut names = Vec::new();
        for key in self
            .places
            .get(&address)
            .into_iter()
            .flat_map(BTreeMap::keys)
        {
            let places = self.endpoints(key, &Wanted::default()).into_iter();
            names.extend(
                places
                    .filter(|place| place.address == address)
                    .map(|place| place.name),
            );
        }
        names.sort();
        names.dedup();
        names
    }
}

/// A service's cluster addresses, by port.
fn own_places(key: &Key, service: &Service, wanted: &Wanted<'_>) -> Vec<Place> {
    let addresses = cluster_addresses(service);
    let ports = match service.spec.ports.as_deref().unwrap_or_default() {
        [] if wanted.is_port(None, None) => vec![None],
        ports => ports
            .iter()
            .filter(|port| wanted.is_port(port.name.as_ref(), port.protocol.as_ref()))
            .map(|one| port(one.port))
            .collect(),
    };
    let each = ports.iter().flat_map(|port| {
        addresses.iter().map(|address| Place {
            address: *address,
            port: *port,
            name: below_services(key),
        })
    });
    each.collect()
}

/// The address in the name of a pod; whether the pod exists is not checked (`pods insecure`).
fn dashed(pod: &str) -> Option<IpAddr> {
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    if !pod.bytes().all(plain) {
        return None;
    }
    let four = pod.matches('-').count() == 3 && !pod.contains("--");
    pod.replace('-', if four { "." } else { ":" }).parse().ok()
}

#[cfg(test)]
pub(super) mod tests;
