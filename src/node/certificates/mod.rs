//! The certificates of a node that joined another API server: a client certificate, and a serving certificate for the
//! kubelet's API. Both are requested from the API (see [`ask`]), stored in one file each (see [`store`]), and renewed
//! well before they expire (see [`upkeep`]). Follows k8s.io/client-go/util/certificate and
//! k8s.io/kubernetes/pkg/kubelet/certificate.

pub mod ask;
pub mod plan;
pub mod store;
pub mod upkeep;

use std::net::IpAddr;

use crate::auth::node::{NODES, PREFIX};
use crate::auth::pki::{Subject, Wanted};

/// The purpose of a node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Identifies the node to the API server.
    Client,
    /// Identifies the node to clients of the kubelet's API.
    Serving,
}

impl Purpose {
    /// The signer.
    pub fn signer(self) -> &'static str {
        match self {
            Purpose::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Purpose::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    /// The key usages. Without key encipherment, which only applies to RSA keys.
    pub fn usages(self) -> [&'static str; 2] {
        match self {
            Purpose::Client => ["digital signature", "client auth"],
            Purpose::Serving => ["digital signature", "server auth"],
        }
    }

    /// The prefix of its files' names, as upstream.
    pub fn file(self) -> &'static str {
        match self {
            Purpose::Client => "kubelet-client",
            Purpose::Serving => "kubelet-server",
        }
    }

    /// Its description, for logs.
    pub fn what(self) -> &'static str {
        match self {
            Purpose::Client => "client certificate",
            Purpose::Serving => "serving certificate",
        }
    }
}

/// The subject of a node's certificates.
pub fn subject(node: &str) -> Subject {
    Subject {
        name: format!("{PREFIX}{node}").into(),
        groups: vec![NODES.into()],
    }
}

/// The contents of a node's client certificate.
pub fn client(node: &str) -> Wanted {
    Wanted {
        subject: subject(node),
        dns: Vec::new(),
        addresses: Vec::new(),
    }
}

/// The contents of a node's serving certificate: its name and the addresses in its status. `None` without addresses, as
/// upstream.
pub fn serving(node: &str, addresses: &[String]) -> Option<Wanted> {
    let mut parsed: Vec<IpAddr> = addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    let mut dns = Vec::new();
    match node.parse() {
        Ok(address) => parsed.push(address),
        Err(_) => dns.push(node.to_owned()),
    }
    // Upstream sorts them as text.
    parsed.sort_by_key(IpAddr::to_string);
    parsed.dedup();
    (!parsed.is_empty()).then(|| Wanted {
        subject: subject(node),
        dns,
        addresses: parsed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_serves_under_its_name_and_addresses() {
        let told = |node: &str, addresses: &[&str]| {
            let addresses: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
            let wanted = serving(node, &addresses)?;
            let addresses = wanted.addresses.iter().map(IpAddr::to_string);
            let names = wanted.dns.into_iter().chain(addresses);
            Some(names.collect::<Vec<_>>().join(" "))
        };
        for (node, addresses, expected) in [
            ("n", &["192.0.2.1"][..], Some("n 192.0.2.1")),
            (
                "n",
                &["192.0.2.2", "10.0.0.1", "192.0.2.2"],
                Some("n 10.0.0.1 192.0.2.2"),
            ),
            ("n", &[], None),
            ("n", &["n.example"], None),
            ("192.0.2.1", &["192.0.2.1"], Some("192.0.2.1")),
        ] {
            assert_eq!(told(node, addresses).as_deref(), expected, "{node}");
        }
        let subject = subject("n");
        assert_eq!(subject.name, "system:node:n");
        assert_eq!(subject.groups, ["system:nodes"]);
    }
}
