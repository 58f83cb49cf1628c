//! Ports of hosts that pods take. Follows k8s.io/kube-scheduler/framework/types.go.

use compact_str::CompactString;

use crate::schema::Value;

/// A port of a host that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    protocol: CompactString,
    /// `0.0.0.0` for all.
    address: CompactString,
    port: i64,
}

const ALL_ADDRESSES: &str = "0.0.0.0";

impl HostPort {
    /// Reads a container's port; none where it is not one of the host.
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

    /// Whether both cannot be taken at once.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address
                || self.address == ALL_ADDRESSES
                || other.address == ALL_ADDRESSES)
    }
}

/// The ports of its host that a pod of this `spec` takes.
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
