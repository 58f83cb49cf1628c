//! The name servers of pods.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::cluster::Cluster;
use crate::meta::names::dns1123_subdomain;
use crate::node::dns::{PORT, Server};
use crate::supervise::Task;

/// Flags about name servers.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct NameFlags {
    /// The name servers of pods, by address; by default the node's own one, which listens on the pods' network.
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    cluster_dns: Vec<IpAddr>,
    /// The DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local", value_parser = domain)]
    cluster_domain: String,
}

/// Parses a domain, with or without a final dot.
fn domain(text: &str) -> Result<String, String> {
    let domain = text.strip_suffix('.').unwrap_or(text);
    let wrong = dns1123_subdomain(domain);
    match wrong.is_empty() {
        true => Ok(domain.to_owned()),
        false => Err(wrong.join("; ")),
    }
}

impl NameFlags {
    /// The DNS domain of the cluster.
    pub fn domain(&self) -> String {
        self.cluster_domain.clone()
    }

    /// The name servers of pods, and the task of the node's own one, which listens at the host's `own` address on the
    /// pods' network. If the node has no such address, or another program listens there, pods use the name servers of
    /// the host: they run, and can resolve external names.
    pub async fn serve(
        &self,
        own: Option<Ipv4Addr>,
        cluster: &Cluster,
    ) -> (Vec<IpAddr>, Option<Task>) {
        if !self.cluster_dns.is_empty() {
            return (self.cluster_dns.clone(), None);
        }
        let Some(own) = own else {
            tracing::warn!(
                "pods cannot resolve the names of services: this host has no address on their network; name a server with --cluster-dns"
            );
            return (Vec::new(), None);
        };
        let at = SocketAddr::from((own, PORT));
        let resolv = PathBuf::from("/etc/resolv.conf");
        match Server::bind(at, &self.cluster_domain, resolv).await {
            Ok(server) => {
                let (server, cluster) = (Arc::new(server), cluster.clone());
                let task = Task::new(format!("name server at {at}"), move |ends| {
                    let (server, services) = (server.clone(), cluster.services_for(&ends));
                    async move { server.run(services, ends).await }
                });
                (vec![own.into()], Some(task))
            }
            Err(error) => {
                let remedy = match error.kind() {
                    ErrorKind::AddrInUse => {
                        "make what listens there leave that address alone (dnsmasq: bind-dynamic) and start the agent again, or name another server with --cluster-dns"
                    }
                    _ => "name another server with --cluster-dns",
                };
                tracing::warn!(
                    "pods cannot resolve the names of services: cannot listen at {at} (UDP and TCP): {error}; {remedy}"
                );
                (Vec::new(), None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_names() {
        for (text, expected) in [
            ("cluster.local", Some("cluster.local")),
            ("k8s.example.org.", Some("k8s.example.org")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("Upper", None),
        ] {
            assert_eq!(domain(text).ok().as_deref(), expected, "{text}");
        }
    }
}
