//! Checks of what a pod shares with its host.

use std::collections::BTreeSet;

use super::breach::{Breach, breach, plural, quote};
use super::pod::Pod;

pub(super) fn host_namespaces(pod: Pod<'_>) -> Option<Breach> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| pod.spec.bool(key))
        .map(|key| format!("{key}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    breach("host namespaces", shared.join(", "))
}

pub(super) fn host_ports(pod: Pod<'_>) -> Option<Breach> {
    let mut ports = BTreeSet::new();
    let names = pod.named(|container| {
        let used = container
            .list("ports")
            .iter()
            .map(|port| port.int("hostPort"));
        let used: Vec<String> = used
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        ports.extend(used.iter().cloned());
        !used.is_empty()
    })?;
    let ports: Vec<String> = ports.into_iter().collect();
    breach(
        "hostPort",
        format!(
            "{} {} {} {}",
            names.containers(),
            plural(names.0.len(), "uses", "use"),
            plural(ports.len(), "hostPort", "hostPorts"),
            ports.join(", ")
        ),
    )
}

pub(super) fn probe_hosts(pod: Pod<'_>) -> Option<Breach> {
    let mut hosts = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in pod.containers() {
        let probes =
            ["livenessProbe", "readinessProbe", "startupProbe"].map(|key| container.at(key));
        let hooks = ["postStart", "preStop"].map(|key| container.at("lifecycle").at(key));
        for action in probes.into_iter().chain(hooks) {
            for host in ["httpGet", "tcpSocket"].map(|kind| action.at(kind).str("host")) {
                if !host.is_empty() {
                    hosts.insert(host);
                    names.insert(container.str("name"));
                }
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    breach(
        "probe or lifecycle host",
        format!(
            "{} {} {} {} {}",
            plural(names.len(), "container", "containers"),
            quote(&names),
            plural(names.len(), "uses", "use"),
            plural(
                hosts.len(),
                "probe or lifecycle host",
                "probe or lifecycle hosts"
            ),
            quote(&hosts)
        ),
    )
}

pub(super) fn host_process(pod: Pod<'_>) -> Option<Breach> {
    let setters = pod.setters(|context| context.at("windowsOptions").bool("hostProcess"))?;
    breach(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
