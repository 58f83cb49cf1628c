//! Host ports of pods. Follows k8s.io/kube-scheduler/framework/types.go.

use compact_str::CompactString;

use crate::schema::Value;

/// A host port that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    protocol: CompactString,
    /// `0.0.0.0` for all.
    address: CompactString,
    port: i64,
}

const ALL_ADDRESSES: &str = "0.0.0.0";

impl HostPort {
    /// Reads a container's port; `None` if it is not a host port.
    pub fn read(port: &Value) -> Option<HostPort> {
        let or = |text: &str, default: &str| {
            CompactString::from(if text.is_empty() { default } else { text })
        };
        (port.int("hostPort") > 0).then(|| HostPort {
            protocol: or(port.str("protocol"), "TCP"),
            address: or(port.str("hostIP"), ALL_ADDRESSES),
            port: port.int("hostPort"),
        })
    }

    /// Whether the two cannot be used on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address
                || self.address == ALL_ADDRESSES
                || other.address == ALL_ADDRESSES)
    }
}

/// The host ports of a pod with this `spec`.
pub fn host_ports(spec: &Value) -> Vec<HostPort> {
    let going_on = spec
        .list("initContainers")
        .iter()
        .filter(|container| container.str("restartPolicy") == "Always");
    going_on
        .chain(spec.list("containers"))
        .flat_map(|container| container.list("ports"))
        .filter_map(HostPort::read)
        .collect()
}
