//! endpointslice-controller: maintains the endpoint slices of services.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;

use super::managed::{Changes, MANAGED_BY, Refused, SERVICE_NAME, Slices, in_place_of};
use super::{
    HEADLESS, Service, TRIGGER, Triggers, find_port, hostname, is_reachable, printed, reference,
    selected, wake,
};
use crate::client::Context;
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Informer, Key};
use crate::client::kinds::{Node, Pod};
use crate::client::queue::{Delays, Next, Queue};
use crate::controllers::pods::Pods;

const WORKERS: usize = 5;
/// How long failed services are delayed.
const DELAYS: Delays = Delays {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(1000),
};
/// The most endpoints in one slice.
const MOST: usize = 100;
const MANAGER: &str = "endpointslice-controller.k8s.io";

struct Controller {
    context: Context,
    services: Informer<Service>,
    slices: Slices,
    nodes: Informer<Node>,
    pods: Pods,
    recorder: Recorder,
    triggers: Triggers,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<Key>::with_delays(DELAYS));
    let controller = Controller {
        services: context.informers.of::<Service>(),
        slices: Slices::of(&context, MANAGER),
        nodes: context.informers.of::<Node>(),
        pods: Pods::of(&context.informers),
        recorder: context.recorder("endpoint-slice-controller"),
        triggers: Triggers::default(),
        context,
    };
    wake(&queue, &controller.services, &controller.pods);
    controller.slices.follow(&queue);
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
}

/// Why slices have to be looked at again.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("skipping pods on nodes that are not known: {0}")]
    Nodes(String),
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<Next, Unfinished> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.triggers.forget(&key);
            return Ok(Next::Done);
        };
        if service.is_foreign() {
            return Ok(Next::Done);
        }
        let pods = selected(&self.pods, &service);
        let mut slices = self.slices.list(&key);
        slices.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        let trigger = self.triggers.earliest(&key, &service, &pods).map(printed);
        let families = families(&service);
        let mut changes = Changes::default();
        let mut lost = Vec::new();
        for slice in &slices {
            if !families.contains(&slice.address_type.as_str()) {
                changes.delete.push(slice.name_any());
            }
        }
        for family in families {
            let own: Vec<EndpointSlice> = slices
                .iter()
                .filter(|slice| slice.address_type == family)
                .map(|slice| (**slice).clone())
                .collect();
            let wanted = wanted(&service, &pods, &self.nodes, family, &mut lost);
            changes.add(plan(&service, own, wanted, family));
        }
        if service.metadata.deletion_timestamp.is_some() {
            changes.create.clear();
        }
        changes.stamp(trigger.as_deref());
        let owner = format!("Service {}/{}", key.namespace, key.name);
        let written = self.slices.carry_out(&key.namespace, &owner, changes).await;
        if let Err(refused) = &written {
            let message = format!("Error updating Endpoint Slices for {owner}: {refused}");
            self.recorder.tell(
                &*service,
                Tone::Warning,
                "FailedToUpdateEndpointSlices",
                message,
            );
        }
        let next = written.or_else(Refused::patiently)?;
        if lost.is_empty() {
            Ok(next)
        } else {
            lost.dedup();
            Err(Unfinished::Nodes(lost.join(", ")))
        }
    }
}

/// The address families of a service.
fn families(service: &Service) -> Vec<&'static str> {
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
pub(super) type Ports = Vec<(String, Option<i32>, String, Option<String>)>;

pub(super) fn ports_key(ports: &[EndpointPort]) -> Ports {
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
type Wanted = BTreeMap<Ports, (Vec<EndpointPort>, Vec<Endpoint>)>;

/// The endpoints that a service should have; adds pods whose node is unknown to `lost`.
fn wanted(
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

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
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

fn endpoint(service: &Service, pod: &Pod, zone: Option<String>, family: &str) -> Endpoint {
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

impl Changes {
    fn add(&mut self, other: Changes) {
        self.create.extend(other.create);
        self.update.extend(other.update);
        self.delete.extend(other.delete);
    }

    /// Sets the trigger time on the slices to write.
    fn stamp(&mut self, trigger: Option<&str>) {
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
pub(super) fn says_same(a: &Endpoint, b: &Endpoint) -> bool {
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
fn plan(service: &Service, existing: Vec<EndpointSlice>, wanted: Wanted, family: &str) -> Changes {
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

fn new_slice(service: &Service, ports: Vec<EndpointPort>, family: &str) -> EndpointSlice {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: &str) -> Service {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"s","namespace":"n","uid":"s","labels":{{"a":"b"}}}},"spec":{{"clusterIP":"10.0.0.1","ipFamilies":["IPv4"],{spec}"ports":[{{"name":"http","port":80,"protocol":"TCP","targetPort":"web"}}]}}}}"#
        ))
        .unwrap()
    }

    fn pod(name: &str, port: i32) -> Pod {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{name}"}},"spec":{{"nodeName":"node","containers":[{{"name":"c","ports":[{{"name":"web","containerPort":{port},"protocol":"TCP"}}]}}]}},"status":{{"phase":"Running","podIP":"10.1.0.1","podIPs":[{{"ip":"10.1.0.1"}},{{"ip":"fd00::1"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
        ))
        .unwrap()
    }

    fn endpoints(service: &Service, names: impl IntoIterator<Item = String>) -> Wanted {
        let mut out = Wanted::new();
        for name in names {
            let pod = pod(&name, 8080);
            let ports = endpoint_ports(service, &pod);
            let entry = out
                .entry(ports_key(&ports))
                .or_insert_with(|| (ports, Vec::new()));
            entry
                .1
                .push(endpoint(service, &pod, Some("z".to_owned()), "IPv4"));
        }
        out
    }

    fn named(from: usize, to: usize) -> impl Iterator<Item = String> {
        (from..to).map(|i| format!("p{i:03}"))
    }

    /// The sizes of created and updated slices, and the names of deleted ones.
    fn told(changes: &Changes) -> String {
        let size = |slice: &EndpointSlice| slice.endpoints.as_ref().unwrap().len();
        let made = changes
            .create
            .iter()
            .map(|slice| format!("+{}", size(slice)));
        let written = changes
            .update
            .iter()
            .map(|slice| format!("{}={}", slice.name_any(), size(slice)));
        let deleted = changes.delete.iter().map(|name| format!("-{name}"));
        made.chain(written)
            .chain(deleted)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn slice(
        service: &Service,
        name: &str,
        names: impl IntoIterator<Item = String>,
    ) -> EndpointSlice {
        let (_, (ports, endpoints)) = endpoints(service, names).pop_first().unwrap();
        let mut slice = new_slice(service, ports, "IPv4");
        slice.metadata.name = Some(name.to_owned());
        slice.endpoints = Some(endpoints);
        slice
    }

    #[test]
    fn an_endpoint_says_where_a_pod_is_and_how_it_is() {
        let service = service("");
        let mut pod = pod("p", 8080);
        let made = endpoint(&service, &pod, Some("z".to_owned()), "IPv4");
        assert_eq!(made.addresses, ["10.1.0.1"]);
        let conditions = made.conditions.unwrap();
        assert_eq!(
            (conditions.ready, conditions.serving, conditions.terminating),
            (Some(true), Some(true), Some(false))
        );
        assert_eq!(
            endpoint(&service, &pod, None, "IPv6").addresses,
            ["fd00::1"]
        );
        assert_eq!(endpoint_ports(&service, &pod)[0].port, Some(8080));
        (pod.spec.hostname, pod.spec.subdomain) = (Some("h".to_owned()), Some("s".to_owned()));
        pod.status.conditions.clear();
        let unready = endpoint(&service, &pod, None, "IPv4");
        assert_eq!(unready.hostname.as_deref(), Some("h"));
        assert_eq!(unready.conditions.unwrap().ready, Some(false));
        let all = self::service(r#""publishNotReadyAddresses":true,"#);
        assert_eq!(
            endpoint(&all, &pod, None, "IPv4").conditions.unwrap().ready,
            Some(true)
        );
    }

    #[test]
    fn slices_change_as_little_as_can_be() {
        let service = service("");
        let planned = |existing: Vec<EndpointSlice>, names: &mut dyn Iterator<Item = String>| {
            told(&plan(
                &service,
                existing,
                endpoints(&service, names),
                "IPv4",
            ))
        };
        let a = || slice(&service, "a", named(0, 3));
        assert_eq!(planned(vec![], &mut named(0, 3)), "+3");
        assert_eq!(planned(vec![a()], &mut named(0, 3)), "");
        assert_eq!(planned(vec![a()], &mut named(0, 4)), "a=4");
        assert_eq!(planned(vec![a()], &mut named(1, 3)), "a=2");
        assert_eq!(planned(vec![], &mut named(0, 250)), "+100 +100 +50");
        let full = || slice(&service, "full", named(0, 100));
        assert_eq!(planned(vec![full()], &mut named(0, 101)), "+1");
        let half = || slice(&service, "half", named(100, 150));
        assert_eq!(planned(vec![full(), half()], &mut named(0, 160)), "half=60");
        assert_eq!(
            planned(vec![full(), half()], &mut named(50, 150)),
            "full=50",
            "half has none of those"
        );
        assert_eq!(
            planned(vec![], &mut named(0, 0)),
            "+0",
            "an empty service has one empty slice"
        );
        assert_eq!(
            planned(vec![a()], &mut named(0, 0)),
            "a=0",
            "which takes the place of another"
        );
        let mut empty = new_slice(&service, Vec::new(), "IPv4");
        empty.metadata.name = Some("e".to_owned());
        assert_eq!(planned(vec![empty.clone()], &mut named(0, 0)), "");
        assert_eq!(planned(vec![empty], &mut named(0, 2)), "e=2");
        let mut foreign = a();
        foreign.metadata.owner_references = None;
        assert_eq!(planned(vec![foreign], &mut named(0, 3)), "+3 -a");
        let mut labelled = a();
        labelled.metadata.labels.as_mut().unwrap().remove("a");
        assert_eq!(planned(vec![labelled], &mut named(0, 3)), "a=3");
    }

    #[test]
    fn hints_send_traffic_near() {
        let near = service(r#""trafficDistribution":"PreferSameNode","#);
        let plain = service("");
        let existing = slice(&plain, "a", named(0, 1));
        let changes = plan(
            &near,
            vec![existing.clone()],
            endpoints(&near, named(0, 1)),
            "IPv4",
        );
        assert_eq!(told(&changes), "a=1");
        let hints = changes.update[0].endpoints.as_ref().unwrap()[0]
            .hints
            .clone()
            .unwrap();
        assert_eq!(hints.for_zones.unwrap()[0].name, "z");
        assert_eq!(hints.for_nodes.unwrap()[0].name, "node");
        let hinted = changes.update[0].clone();
        assert_eq!(
            told(&plan(
                &near,
                vec![hinted.clone()],
                endpoints(&near, named(0, 1)),
                "IPv4"
            )),
            ""
        );
        let changes = plan(&plain, vec![hinted], endpoints(&plain, named(0, 1)), "IPv4");
        assert_eq!(changes.update[0].endpoints.as_ref().unwrap()[0].hints, None);
    }
}
