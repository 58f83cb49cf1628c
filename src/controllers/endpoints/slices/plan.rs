//! Which slices change so that they list the wanted endpoints. Follows k8s.io/endpointslice/reconciler.go.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;

use super::super::managed::{Changes, MANAGED_BY, SERVICE_NAME, in_place_of};
use super::super::{HEADLESS, Service, TRIGGER};
use super::wanted::{Ports, Wanted, ports_key};
use super::{MANAGER, MOST};

impl Changes {
    pub(super) fn add(&mut self, other: Changes) {
        self.create.extend(other.create);
        self.update.extend(other.update);
        self.delete.extend(other.delete);
    }

    /// Sets the trigger time on the slices to write.
    pub(super) fn stamp(&mut self, trigger: Option<&str>) {
        for slice in self.create.iter_mut().chain(&mut self.update) {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            match trigger {
                Some(trigger) => annotations.insert(TRIGGER.to_owned(), trigger.to_owned()),
                None => annotations.remove(TRIGGER),
            };
        }
    }
}

/// What identifies an endpoint.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>, Option<String>) {
    let mut addresses = endpoint.addresses.clone();
    addresses.sort();
    let target = endpoint.target_ref.as_ref();
    (
        addresses,
        endpoint.hostname.clone(),
        target.and_then(|target| target.name.clone()),
    )
}

/// Whether two versions of an endpoint are equal, except for hints.
pub(in super::super) fn says_same(a: &Endpoint, b: &Endpoint) -> bool {
    let plain = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        endpoint.hints = None;
        endpoint.deprecated_topology = None;
        endpoint.addresses.sort();
        endpoint
    };
    plain(a) == plain(b)
}

/// Plans the slices of one address family: with as few writes as possible, and then as few slices.
pub(super) fn plan(
    service: &Service,
    existing: Vec<EndpointSlice>,
    wanted: Wanted,
    family: &str,
) -> Changes {
    let mut changes = Changes::default();
    let count = existing.len();
    let mut by_ports: BTreeMap<Ports, Vec<EndpointSlice>> = BTreeMap::new();
    let mut spare = Vec::new();
    let mut unchanged = Vec::new();
    for slice in existing {
        if is_owned(&slice, service) {
            let key = ports_key(slice.ports.as_deref().unwrap_or_default());
            by_ports.entry(key).or_default().push(slice);
        } else {
            changes.delete.push(slice.name_any());
        }
    }
    for (key, (ports, endpoints)) in wanted {
        let own = by_ports.remove(&key).unwrap_or_default();
        fill(
            service,
            own,
            ports,
            endpoints,
            family,
            &mut changes,
            &mut spare,
            &mut unchanged,
        );
    }
    spare.extend(by_ports.into_values().flatten());
    if spare.len() + changes.delete.len() == count && changes.create.is_empty() {
        // A service without endpoints has one empty slice.
        let empty = new_slice(service, Vec::new(), family);
        let is_placeholder = |slice: &EndpointSlice| {
            slice.endpoints.as_deref().unwrap_or_default().is_empty()
                && slice.ports.as_deref().unwrap_or_default().is_empty()
                && slice.metadata.labels == empty.metadata.labels
        };
        match spare.as_slice() {
            [only] if changes.delete.is_empty() && is_placeholder(only) => spare.clear(),
            _ => changes.create.push(empty),
        }
    }
    hint(service, &mut changes, unchanged);
    // Slices that would be deleted are reused.
    for old in spare {
        match changes.create.pop() {
            Some(new) => changes.update.push(in_place_of(new, &old)),
            None => changes.delete.push(old.name_any()),
        }
    }
    changes
}

/// Distributes endpoints with the same ports over slices.
#[allow(clippy::too_many_arguments)]
fn fill(
    service: &Service,
    own: Vec<EndpointSlice>,
    ports: Vec<EndpointPort>,
    wanted: Vec<Endpoint>,
    family: &str,
    changes: &mut Changes,
    spare: &mut Vec<EndpointSlice>,
    unchanged: &mut Vec<EndpointSlice>,
) {
    let labels = labels(service);
    let mut order = Vec::new();
    let mut missing: HashMap<_, Endpoint> = HashMap::new();
    for endpoint in wanted {
        let key = identity(&endpoint);
        if missing.insert(key.clone(), endpoint).is_none() {
            order.push(key);
        }
    }
    let (mut touched, mut whole) = (Vec::new(), Vec::new());
    for mut slice in own {
        let had = slice.endpoints.take().unwrap_or_default();
        let mut differs = false;
        let mut kept = Vec::new();
        for old in &had {
            if let Some(new) = missing.remove(&identity(old)) {
                if says_same(old, &new) {
                    kept.push(old.clone());
                } else {
                    differs = true;
                    kept.push(new);
                }
            }
        }
        differs |= kept.len() != had.len();
        if differs && kept.is_empty() {
            slice.endpoints = Some(had);
            spare.push(slice);
            continue;
        }
        slice.endpoints = Some(kept);
        if differs || slice.metadata.labels.as_ref() != Some(&labels) {
            slice.metadata.labels = Some(labels.clone());
            touched.push(slice);
        } else {
            whole.push(slice);
        }
    }
    let mut left: Vec<Endpoint> = order.iter().filter_map(|key| missing.remove(key)).collect();
    left.reverse();
    let size = |slice: &EndpointSlice| slice.endpoints.as_ref().map_or(0, Vec::len);
    let top_up = |slice: &mut EndpointSlice, left: &mut Vec<Endpoint>| {
        let endpoints = slice.endpoints.get_or_insert_default();
        while endpoints.len() < MOST
            && let Some(endpoint) = left.pop()
        {
            endpoints.push(endpoint);
        }
    };
    // First into slices that are written anyway, the fullest first.
    touched.sort_by_key(|slice| std::cmp::Reverse(size(slice)));
    for slice in &mut touched {
        top_up(slice, &mut left);
    }
    while !left.is_empty() {
        // Then into the slice that the rest fills best, or a new one.
        let best = (0..whole.len())
            .filter(|i| left.len() < MOST && size(&whole[*i]) + left.len() <= MOST)
            .max_by_key(|i| size(&whole[*i]));
        match best {
            Some(best) => {
                let mut slice = whole.remove(best);
                top_up(&mut slice, &mut left);
                touched.push(slice);
            }
            None => {
                let mut slice = new_slice(service, ports.clone(), family);
                top_up(&mut slice, &mut left);
                changes.create.push(slice);
            }
        }
    }
    changes.update.extend(touched);
    unchanged.extend(whole);
}

fn is_owned(slice: &EndpointSlice, service: &Service) -> bool {
    slice.owner_references().iter().any(|owner| {
        Some(&owner.uid) == service.metadata.uid.as_ref()
            && owner.kind == "Service"
            && owner.api_version == "v1"
    })
}

/// The labels of a service's slices: those of the service, plus those that identify slices.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key.as_str()));
    if service.is_headless() {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

pub(super) fn new_slice(
    service: &Service,
    ports: Vec<EndpointPort>,
    family: &str,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name: service.name_any(),
                uid: service.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports),
    }
}

/// Sets or clears the hints about which consumers should prefer an endpoint.
fn hint(service: &Service, changes: &mut Changes, unchanged: Vec<EndpointSlice>) {
    let by_topology = [
        "service.kubernetes.io/topology-aware-hints",
        "service.kubernetes.io/topology-mode",
    ]
    .iter()
    .find_map(|key| service.annotations().get(*key))
    .is_some_and(|mode| mode == "Auto" || mode == "auto");
    let distribution = service.spec.traffic_distribution.as_deref();
    let near = match distribution {
        Some("PreferClose" | "PreferSameZone") if !by_topology => Some(false),
        Some("PreferSameNode") if !by_topology => Some(true),
        _ => None,
    };
    let wanted = |endpoint: &Endpoint| -> Option<EndpointHints> {
        let to_node = near?;
        let ready = endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready);
        if ready != Some(true) {
            return endpoint.hints.clone();
        }
        let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
        let node = endpoint.node_name.clone().filter(|_| to_node);
        let for_nodes = node.map(|name| vec![ForNode { name }]);
        (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints {
            for_nodes,
            for_zones,
        })
    };
    let apply = |slice: &mut EndpointSlice| {
        let mut changed = false;
        for endpoint in slice.endpoints.iter_mut().flatten() {
            let hints = wanted(endpoint);
            changed |= endpoint.hints != hints;
            endpoint.hints = hints;
        }
        changed
    };
    for slice in changes.create.iter_mut().chain(&mut changes.update) {
        apply(slice);
    }
    for mut slice in unchanged {
        if apply(&mut slice) {
            changes.update.push(slice);
        }
    }
}
