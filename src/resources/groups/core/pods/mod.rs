//! Pods, pod templates and replication controllers, and what other workloads share of them: the rules of a pod
//! spec. Follows k8s.io/kubernetes/pkg/registry/core/pod/strategy.go.

pub(in crate::resources::groups) mod cells;
pub(in crate::resources::groups) mod controllers;
pub(in crate::resources::groups) mod defaults;
mod image;
pub(in crate::resources::groups) mod templates;

#[cfg(test)]
mod tests;

use crate::meta::names;
use crate::resources::{Deletion, Generation, Rules, Selectable};
use crate::schema::Value;

/// The rules of pods.
pub(super) const PODS: Rules = Rules {
    defaults: |pod, _| defaults::pod(pod),
    cells: cells::pod,
    selectable: &[
        spec_field("spec.nodeName", |pod| text(pod, "nodeName")),
        // What older clients call the same.
        spec_field("spec.host", |pod| text(pod, "nodeName")),
        spec_field("spec.restartPolicy", |pod| text(pod, "restartPolicy")),
        spec_field("spec.schedulerName", |pod| text(pod, "schedulerName")),
        spec_field("spec.serviceAccountName", |pod| {
            text(pod, "serviceAccountName")
        }),
        spec_field("spec.hostNetwork", |pod| {
            pod.at("spec").bool("hostNetwork").to_string()
        }),
        spec_field("status.phase", |pod| {
            pod.at("status").str("phase").to_owned()
        }),
        spec_field("status.podIP", |pod| {
            let addresses = pod.at("status").list("podIPs");
            addresses
                .first()
                .map_or_else(String::new, |address| address.str("ip").to_owned())
        }),
        // Accepted, but never filled by upstream.
        spec_field("status.podIPs", |_| String::new()),
        spec_field("status.nominatedNodeName", |pod| {
            pod.at("status").str("nominatedNodeName").to_owned()
        }),
    ],
    own_selector_error: true,
    trigger: Some("spec.nodeName"),
    name: names::subdomain_name,
    generation: Generation::Own,
    deletion: Deletion::Object,
    internal: "core.Pod",
    ..Rules::DEFAULT
};

const fn spec_field(name: &'static str, value: fn(&Value) -> String) -> Selectable {
    Selectable { name, value }
}

fn text(pod: &Value, key: &str) -> String {
    pod.at("spec").str(key).to_owned()
}
