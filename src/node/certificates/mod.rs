//! The certificates of a node that joined another API server: one by which the API server knows the node, and one that the
//! node shows to whoever connects to it. Both are asked for by requests to the API (see [`ask`]), kept in a file each (see
//! [`store`]), and renewed long before they end, while the agent runs (see [`upkeep`]). Follows k8s.io/client-go/util/certificate
//! and k8s.io/kubernetes/pkg/kubelet/certificate.

pub mod ask;
pub mod plan;
pub mod store;
pub mod upkeep;

use std::net::IpAddr;

use crate::auth::node::{NODES, PREFIX};
use crate::auth::pki::{Subject, Wanted};

/// What a certificate of a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The API server is to know the node by it.
    Client,
    /// Who connects to the node is to know it by it.
    Serving,
}

impl Purpose {
    /// Who vouches for it.
    pub fn signer(self) -> &'static str {
        match self {
            Purpose::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Purpose::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    /// How it is used. Keys that are not RSA encipher nothing.
    pub fn usages(self) -> [&'static str; 2] {
        match self {
            Purpose::Client => ["digital signature", "client auth"],
            Purpose::Serving => ["digital signature", "server auth"],
        }
    }

    /// What its files are called, as upstream's.
    pub fn file(self) -> &'static str {
        match self {
            Purpose::Client => "kubelet-client",
            Purpose::Serving => "kubelet-server",
        }
    }

    /// What it is, for who reads the log.
    pub fn what(self) -> &'static str {
        match self {
            Purpose::Client => "client certificate",
            Purpose::Serving => "serving certificate",
        }
    }
}

/// Whom a node's certificates are of.
pub fn subject(node: &str) -> Subject {
    Subject {
        name: format!("{PREFIX}{node}").into(),
        groups: vec![NODES.into()],
    }
}

/// What is asked for a node's client certificate.
pub fn client(node: &str) -> Wanted {
    Wanted {
        subject: subject(node),
        dns: Vec::new(),
        addresses: Vec::new(),
    }
}

/// What is asked for the certificate that a node serves with: for its name and its addresses, as its status tells them.
/// None without an address, as upstream.
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
    // As upstream orders them: by their text.
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
