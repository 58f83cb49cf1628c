//! endpoints-controller: maintains Endpoints, the predecessor of endpoint slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};

use super::{
    HEADLESS, Service, TRIGGER, Triggers, find_port, hostname, is_reachable, printed, reference,
    selected, wake,
};
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found, is_terminating, text};
use crate::client::events::Tone;
use crate::client::informer::{Cached, Key};
use crate::client::kinds::Pod;
use crate::client::queue::{Next, Queue};
use crate::controllers::pods::Pods;

const WORKERS: usize = 5;
/// The most addresses in one object.
const MOST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// The annotation of Endpoints that are used as a lock and belong to no service.
pub(super) const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";

impl Cached for v1::Endpoints {}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<Key>::new());
    let services = context.informers.of::<Service>();
    let all = context.informers.of::<v1::Endpoints>();
    let pods = Pods::of(&context.informers);
    let triggers = Triggers::default();
    wake(&queue, &services, &pods);
    // Deleted endpoints are created again.
    all.enqueue(&queue, |change| {
        change.new.is_none().then(|| change.key.clone())
    });
    context.synced().await;
    // Those whose service was deleted while the controller was not running. Endpoints that are created later may
    // precede their service.
    let locks = |endpoints: &v1::Endpoints| endpoints.annotations().contains_key(LOCK);
    for (key, _) in all.all().into_iter().filter(|(_, there)| !locks(there)) {
        queue.add(key);
    }
    let recorder = context.recorder("endpoint-controller");
    let look = |key: Key| {
        let (services, all, pods, triggers) = (&services, &all, &pods, &triggers);
        let (context, recorder) = (&context, &recorder);
        async move {
            let api: Api<v1::Endpoints> = Api::namespaced(context.client.clone(), &key.namespace);
            let had = all.get(&key.namespace, &key.name);
            let Some(service) = services.get(&key.namespace, &key.name) else {
                triggers.forget(&key);
                let live: Api<Service> = Api::namespaced(context.client.clone(), &key.namespace);
                // Endpoints are deleted with their service, whoever created them; the cache of services may be behind.
                if had.is_some() && live.get_opt(&key.name).await?.is_none() {
                    match api.delete(&key.name, &DeleteParams::default()).await {
                        Err(error) if !is_not_found(&error) => return Err(error),
                        _ => {}
                    }
                }
                return Ok(Next::Done);
            };
            if service.is_foreign() {
                return Ok(Next::Done);
            }
            let selected = selected(pods, &service);
            let trigger = triggers.earliest(&key, &service, &selected).map(printed);
            let Some(new) = wanted(&service, &selected, had.as_deref(), trigger) else {
                return Ok(Next::Done);
            };
            let params = PostParams::default();
            let (written, what) = if had.is_some() {
                let written = api.replace(&key.name, &params, &new).await;
                (written, ("FailedToUpdateEndpoint", "update endpoint"))
            } else {
                let written = api.create(&params, &new).await;
                (
                    written,
                    ("FailedToCreateEndpoint", "create endpoint for service"),
                )
            };
            match written {
                Ok(written) => {
                    all.reach(written.resource_version().as_deref()).await;
                    Ok(Next::Done)
                }
                Err(error) if is_terminating(&error) => Ok(Next::Done),
                Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(Next::Retry),
                Err(error) => {
                    let why = text(&error);
                    let message =
                        format!("Failed to {} {}/{}: {why}", what.1, key.namespace, key.name);
                    recorder.tell(&new, Tone::Warning, what.0, message);
                    Err(error)
                }
            }
        }
    };
    context.work(&queue, WORKERS, look).await;
}

/// The endpoints that a service should have; None if it has them.
fn wanted(
    service: &Service,
    pods: &[Arc<Pod>],
    had: Option<&v1::Endpoints>,
    trigger: Option<String>,
) -> Option<v1::Endpoints> {
    let (subsets, truncated) = truncated(subsets(service, pods));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.is_headless() {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if let Some(had) = had {
        let over = had.annotations().contains_key(OVER_CAPACITY);
        let old = had.subsets.as_deref().unwrap_or_default();
        if old == subsets && had.labels() == &labels && over == truncated {
            return None;
        }
    }
    let mut new = had.cloned().unwrap_or_else(|| v1::Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    new.metadata.labels = Some(labels);
    let annotations = new.metadata.annotations.get_or_insert_default();
    match trigger {
        Some(trigger) => annotations.insert(TRIGGER.to_owned(), trigger),
        None => annotations.remove(TRIGGER),
    };
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    new.subsets = (!subsets.is_empty()).then_some(subsets);
    Some(new)
}

/// A port in comparable form.
type Port = (String, i32, String, Option<String>);

/// The addresses of pods grouped by their common ports, ready ones separate: RepackSubsets.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<v1::EndpointSubset> {
    // By address, pod and readiness: the endpoint address and its ports.
    let mut ports_of: BTreeMap<(String, String, bool), (v1::EndpointAddress, Vec<Port>)> =
        BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_reachable(pod)) {
        if pod.is_deleting() && !service.publishes_all() {
            continue;
        }
        let Some(address) = address(service, pod) else {
            continue;
        };
        let ready = service.publishes_all() || pod.is_ready();
        let ports = service.ports().iter().filter_map(|port| {
            Some((
                port.name.clone().unwrap_or_default(),
                find_port(pod, port)?,
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port.app_protocol.clone(),
            ))
        });
        let ports: Vec<Port> = ports.collect();
        let portless =
            service.ports().is_empty() && service.spec.cluster_ip.as_deref() == Some("None");
        if ports.is_empty() && !portless {
            continue;
        }
        let key = (
            address.ip.clone(),
            pod.metadata.uid.clone().unwrap_or_default(),
            ready,
        );
        let (_, known) = ports_of.entry(key).or_insert((address, Vec::new()));
        known.extend(ports);
    }
    let mut by_ports: BTreeMap<Vec<Port>, (Vec<v1::EndpointAddress>, Vec<v1::EndpointAddress>)> =
        BTreeMap::new();
    for ((_, _, ready), (address, mut ports)) in ports_of {
        ports.sort();
        ports.dedup();
        let (up, down) = by_ports.entry(ports).or_default();
        if ready {
            up.push(address);
        } else {
            down.push(address);
        }
    }
    let some = |list: Vec<v1::EndpointAddress>| (!list.is_empty()).then_some(list);
    by_ports
        .into_iter()
        .map(|(ports, (up, down))| {
            let ports = ports
                .into_iter()
                .map(|(name, port, protocol, app_protocol)| v1::EndpointPort {
                    name: (!name.is_empty()).then_some(name),
                    port,
                    protocol: Some(protocol),
                    app_protocol,
                });
            let ports: Vec<_> = ports.collect();
            v1::EndpointSubset {
                addresses: some(up),
                not_ready_addresses: some(down),
                ports: (!ports.is_empty()).then_some(ports),
            }
        })
        .collect()
}

/// The address of a pod in the IP family of the service.
fn address(service: &Service, pod: &Pod) -> Option<v1::EndpointAddress> {
    let families = service.spec.ip_families.as_deref().unwrap_or_default();
    let six = match families.first() {
        Some(family) => family == "IPv6",
        None => service
            .spec
            .cluster_ip
            .as_deref()
            .is_some_and(|address| address.contains(':')),
    };
    let ips = pod
        .status
        .pod_ips
        .iter()
        .map(|ip| &ip.ip)
        .chain(&pod.status.pod_ip);
    let ip = ips.into_iter().find(|ip| ip.contains(':') == six)?;
    Some(v1::EndpointAddress {
        ip: ip.clone(),
        hostname: hostname(pod, service),
        node_name: pod.spec.node_name.clone(),
        target_ref: Some(reference(pod)),
    })
}

/// As many addresses as one object may have, ready ones first; and whether there were more.
fn truncated(mut subsets: Vec<v1::EndpointSubset>) -> (Vec<v1::EndpointSubset>, bool) {
    let count = |of: fn(&v1::EndpointSubset) -> &Option<Vec<v1::EndpointAddress>>,
                 subsets: &[v1::EndpointSubset]| {
        subsets
            .iter()
            .map(|subset| of(subset).as_ref().map_or(0, Vec::len))
            .sum::<usize>()
    };
    let ready = count(|subset| &subset.addresses, &subsets);
    let unready = count(|subset| &subset.not_ready_addresses, &subsets);
    if ready + unready <= MOST {
        return (subsets, false);
    }
    let cut_ready = ready > MOST;
    let (total, room) = if cut_ready {
        (ready, MOST)
    } else {
        (unready, MOST - ready)
    };
    let mut left = room;
    for subset in &mut subsets {
        let list = if cut_ready {
            subset.not_ready_addresses = None;
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        let Some(addresses) = list.as_mut() else {
            continue;
        };
        let share = (addresses.len() * room).div_ceil(total).min(left);
        addresses.truncate(share);
        left -= addresses.len();
        if addresses.is_empty() {
            *list = None;
        }
    }
    (subsets, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(ports: &str) -> Service {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"s","namespace":"n","labels":{{"a":"b"}}}},"spec":{{"clusterIP":"10.0.0.1","ipFamilies":["IPv4"],"ports":[{ports}]}}}}"#
        ))
        .unwrap()
    }

    fn pod(name: &str, ip: &str, port: i32, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let text = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{name}"}},"spec":{{"containers":[{{"name":"c","ports":[{{"name":"web","containerPort":{port}}}]}}]}},"status":{{"phase":"Running","podIP":"{ip}","podIPs":[{{"ip":"{ip}"}}],"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    fn told(subsets: &[v1::EndpointSubset]) -> String {
        let names = |list: &Option<Vec<v1::EndpointAddress>>| {
            let names: Vec<String> = list
                .iter()
                .flatten()
                .map(|address| address.ip.clone())
                .collect();
            names.join(",")
        };
        let each = subsets.iter().map(|subset| {
            let ports: Vec<String> = subset
                .ports
                .iter()
                .flatten()
                .map(|port| port.port.to_string())
                .collect();
            format!(
                "{}/{}:{}",
                names(&subset.addresses),
                names(&subset.not_ready_addresses),
                ports.join(",")
            )
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_are_together_by_their_ports() {
        let named = service(
            r#"{"name":"a","port":80,"protocol":"TCP","targetPort":"web"},{"name":"b","port":81,"protocol":"TCP","targetPort":9}"#,
        );
        let pods = [
            pod("x", "10.1.0.2", 8080, true),
            pod("y", "10.1.0.1", 8080, true),
            pod("z", "10.1.0.3", 8080, false),
            pod("w", "10.1.0.4", 9090, true),
        ];
        assert_eq!(
            told(&subsets(&named, &pods)),
            "10.1.0.1,10.1.0.2/10.1.0.3:8080,9 10.1.0.4/:9090,9"
        );
        assert_eq!(told(&subsets(&service(""), &pods)), "");
        let made = wanted(&named, &pods, None, Some("T".to_owned())).unwrap();
        assert_eq!(made.labels()[MANAGED_BY], MANAGER);
        assert_eq!(made.annotations()[TRIGGER], "T");
        assert_eq!(wanted(&named, &pods, Some(&made), None), None);
        assert!(wanted(&named, &pods[1..], Some(&made), None).is_some());
    }

    #[test]
    fn one_object_holds_a_thousand_addresses() {
        let address = |i: usize| v1::EndpointAddress {
            ip: i.to_string(),
            ..v1::EndpointAddress::default()
        };
        let subset = |up: usize, down: usize| v1::EndpointSubset {
            addresses: Some((0..up).map(address).collect()),
            not_ready_addresses: Some((0..down).map(address).collect()),
            ports: None,
        };
        let sizes = |subsets: Vec<v1::EndpointSubset>| -> Vec<(usize, usize)> {
            let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
            let (subsets, _) = truncated(subsets);
            subsets
                .iter()
                .map(|subset| (count(&subset.addresses), count(&subset.not_ready_addresses)))
                .collect()
        };
        assert_eq!(sizes(vec![subset(500, 500)]), [(500, 500)]);
        assert_eq!(
            sizes(vec![subset(600, 300), subset(300, 300)]),
            [(600, 50), (300, 50)]
        );
        assert_eq!(
            sizes(vec![subset(1000, 9), subset(1000, 9)]),
            [(500, 0), (500, 0)]
        );
    }
}
