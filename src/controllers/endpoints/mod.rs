//! endpointslice-controller and endpoints-controller: publish the addresses of a service's pods. Follows
//! k8s.io/endpointslice and k8s.io/kubernetes/pkg/controller/{endpointslice,endpoint}.

mod legacy;
mod managed;
mod mirror;
mod slices;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use parking_lot::Mutex;

pub use self::legacy::run as endpoints;
pub use self::mirror::run as endpoint_slice_mirroring;
pub use self::slices::run as endpoint_slices;
use super::pods::Pods;
use crate::client::informer::{Informer, Key};
use crate::client::kinds::{Pod, PodContainer};
use crate::client::queue::Queue;

/// The annotation with the time of the change that caused an update.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The label of endpoints of headless services.
const HEADLESS: &str = "service.kubernetes.io/headless";

crate::slim!(
    /// A service.
    Service of v1::Service {
        /// Its spec.
        spec: v1::ServiceSpec,
    }
);

impl Service {
    /// Whether others maintain its endpoints: it has no selector, or is an `ExternalName`.
    fn is_foreign(&self) -> bool {
        self.spec.selector.is_none() || self.spec.type_.as_deref() == Some("ExternalName")
    }

    fn selects(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let selector = self.spec.selector.as_ref();
        selector.is_some_and(|selector| {
            selector
                .iter()
                .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
    }

    fn is_headless(&self) -> bool {
        matches!(self.spec.cluster_ip.as_deref(), None | Some("" | "None"))
    }

    fn publishes_all(&self) -> bool {
        self.spec.publish_not_ready_addresses == Some(true)
    }

    fn ports(&self) -> &[v1::ServicePort] {
        self.spec.ports.as_deref().unwrap_or_default()
    }
}

/// The pods that a service selects, ordered by name.
fn selected(pods: &Pods, service: &Service) -> Vec<Arc<Pod>> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    pods.cache
        .list(namespace)
        .into_iter()
        .map(|(_, pod)| pod)
        .filter(|pod| service.selects(pod.metadata.labels.as_ref()))
        .collect()
}

/// Enqueues services when they change, and when their pods change in a relevant way.
fn wake(queue: &Arc<Queue<Key>>, services: &Informer<Service>, pods: &Pods) {
    services.enqueue(queue, |change| Some(change.key.clone()));
    let services = services.clone();
    pods.cache.enqueue(queue, move |change| {
        if !change.alters(endpoint) {
            return Vec::new();
        }
        let (old, new) = (change.old, change.new);
        let selects = |service: &Service, pod: Option<&Arc<Pod>>| {
            pod.is_some_and(|pod| service.selects(pod.metadata.labels.as_ref()))
        };
        let services = services.list(&change.key.namespace).into_iter();
        services
            .filter(|(_, service)| selects(service, old) || selects(service, new))
            .map(|(key, _)| key)
            .collect()
    });
}

/// What of a pod decides about its endpoint.
fn endpoint(pod: &Pod) -> impl PartialEq + '_ {
    let Pod {
        metadata,
        spec,
        status,
    } = pod;
    (
        (&metadata.uid, &metadata.labels),
        &metadata.deletion_timestamp,
        (&spec.hostname, &spec.subdomain, &spec.node_name),
        (pod.is_ready(), pod.is_terminal()),
        (&status.pod_ip, &status.pod_ips),
    )
}

/// Whether a pod has an address that can be an endpoint.
fn is_reachable(pod: &Pod) -> bool {
    !pod.is_terminal() && (pod.status.pod_ip.is_some() || !pod.status.pod_ips.is_empty())
}

/// The host name of a pod in the domain of a service.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let named = pod.spec.subdomain.as_deref() == service.metadata.name.as_deref();
    pod.spec
        .hostname
        .clone()
        .filter(|name| named && !name.is_empty())
}

/// The number of the pod's port that a service port refers to.
fn find_port(pod: &Pod, port: &v1::ServicePort) -> Option<i32> {
    let name = match port.target_port.as_ref()? {
        IntOrString::Int(number) => return Some(*number),
        IntOrString::String(name) => name,
    };
    let goes_on = |container: &&PodContainer| container.restart_policy.as_deref() == Some("Always");
    let beside = pod.spec.init_containers.iter().filter(goes_on);
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    pod.spec
        .containers
        .iter()
        .chain(beside)
        .flat_map(|container| &container.ports)
        .find(|own| {
            own.name.as_ref() == Some(name) && protocol(&own.protocol) == protocol(&port.protocol)
        })
        .map(|own| own.container_port)
}

fn reference(pod: &Pod) -> v1::ObjectReference {
    v1::ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..v1::ObjectReference::default()
    }
}

/// Tracks the times of the changes that cause updates.
#[derive(Default)]
struct Triggers(Mutex<HashMap<Key, Known>>);

#[derive(Default)]
struct Known {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Triggers {
    fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    /// The earliest time of the changes since the last call.
    fn earliest(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let mut all = self.0.lock();
        let known = all.entry(key.clone()).or_default();
        let ready = |pod: &Pod| {
            let mut conditions = pod.status.conditions.iter();
            let condition = conditions.find(|condition| condition.type_ == "Ready")?;
            condition.last_transition_time.as_ref().map(|time| time.0)
        };
        let now: HashMap<String, Timestamp> = pods
            .iter()
            .filter_map(|pod| Some((pod.name_any(), ready(pod)?)))
            .collect();
        let created = service
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0);
        let new_pods = now
            .iter()
            .filter(|(name, time)| known.pods.get(*name).is_none_or(|before| *time > before));
        let new_service = created.filter(|time| known.service.is_none_or(|before| *time > before));
        let earliest = new_pods.map(|(_, time)| *time).chain(new_service).min();
        *known = Known {
            service: created,
            pods: now,
        };
        earliest
    }
}

/// A time as Go prints it.
fn printed(time: Timestamp) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_replaces_another_is_another_endpoint() {
        let pod = |uid: &str, label: &str, message: &str| -> Pod {
            let text = format!(
                r#"{{"metadata":{{"name":"p","uid":"{uid}","labels":{{"a":"{label}"}}}},"status":{{"phase":"Running","podIP":"10.0.0.1","reason":"{message}"}}}}"#
            );
            serde_json::from_str(&text).expect("a pod")
        };
        let old = pod("1", "x", "");
        for (new, same) in [
            (pod("1", "x", "of no interest"), true),
            (pod("2", "x", ""), false),
            (pod("1", "y", ""), false),
        ] {
            assert_eq!(endpoint(&old) == endpoint(&new), same, "{new:?}");
        }
    }
}
