//! A host that runs its pods in zones: everything that its node is set up with.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::super::agent::AgentError;
use super::super::cluster::Cluster;
use super::super::names::NameFlags;
use crate::meta::addresses::{Network, parse_cidr};
use crate::net::Ipam;
use crate::net::routes::NodeRouter;
use crate::net::services::ServiceRouter;
use crate::node::addresses::Addresses;
use crate::node::agent::Setup;
use crate::node::host::{Claims, Host, Logs, Objects, Paths, Uses};
use crate::node::images::{Images, Registries};
use crate::node::kubelet::configz::Settings;
use crate::node::pod_certificates::Certificates;
use crate::node::pressure::Thresholds;
use crate::node::register::{Registration, host_capacity, host_info};
use crate::node::services::place::{self, Place};
use crate::node::services::plan::Here;
use crate::node::services::proxy;
use crate::node::services::readiness::{self, Readiness};
use crate::node::sysctls::Sysctls;
use crate::node::{ranges, routes};
use crate::private;
use crate::storage::StorageEngine;
use crate::supervise::Task;
use crate::zone::ZoneRuntime;

/// A host that runs its pods in zones, and everything it uses for them.
pub(in super::super) struct RealHost {
    /// The node object to register.
    pub registration: Registration,
    /// The directory of pods' homes, if they have any: zones write their logs there.
    pub homes: Option<PathBuf>,
    /// The agent's directory.
    pub data: PathBuf,
    /// Addresses of pods.
    pub ipam: Ipam,
    /// The host's own address on the pods' network, if it has one.
    pub address: Option<Ipv4Addr>,
    /// Flags about name servers.
    pub names: NameFlags,
    /// Images, roots and volumes.
    pub storage: Arc<dyn StorageEngine>,
    /// The images of this host.
    pub images: Images,
    /// Registries to contact over plain HTTP.
    pub insecure: Vec<String>,
    /// The zones.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// Implements services; None if another program does.
    pub router: Option<Arc<dyn ServiceRouter>>,
    /// Routes to the pods of other nodes; None if another program adds them.
    pub routes: Option<Routes>,
    /// The port of kube-proxy's health check for load balancers; 0 for none.
    pub proxy_healthz_port: u16,
    /// Further tasks that run as long as the agent.
    pub beside: Vec<Task>,
    /// When pods are evicted.
    pub thresholds: Thresholds,
    /// The sysctls that pods may set.
    pub sysctls: Sysctls,
}

/// How the pods of other nodes are reached.
pub(in super::super) struct Routes {
    /// Adds and removes the routes.
    pub router: Arc<dyn NodeRouter>,
    /// The range of all pods, if given.
    pub cluster: Option<Network>,
    /// Whether to add routes.
    pub are_made: bool,
}

impl RealHost {
    /// The parts of the node; first removes what an earlier agent left of unfinished images.
    pub(in super::super) async fn setup(self, cluster: Cluster) -> Result<Setup, AgentError> {
        let client = cluster.client.clone();
        let (node, cidr) = (&self.registration.name, self.ipam.cidr());
        let tells = ranges::check(cluster.observer.clone(), node, &cidr).await;
        let tells = tells.map_err(AgentError::Host)?;
        if let Err(error) = self.images.sweep().await {
            tracing::warn!(%error, "cannot remove unfinished images");
        }
        let (cluster_dns, names) = self.names.serve(self.address, &cluster).await;
        let logs = match &self.homes {
            Some(homes) => Logs::Homes(homes.clone()),
            None => Logs::Together(self.data.join("logs")),
        };
        let mut beside = self.beside;
        beside.extend(names);
        if let Some(router) = self.router {
            let addresses = self.registration.addresses.clone();
            let here = Here {
                node: self.registration.name.clone(),
                addresses: addresses.ipv4(),
                api_server: cluster.api_server,
            };
            let (told, place) = watch::channel(Place::default());
            let (client, node) = (client.clone(), here.node.clone());
            beside.push(Task::new("place of the node", move |ends| {
                place::tell(client.clone(), node.clone(), told.clone(), ends)
            }));
            let (readiness, port) = (Readiness::default(), self.proxy_healthz_port);
            let (asked, asked_of) = (readiness.clone(), place.clone());
            beside.push(Task::new("health of the service proxy", move |ends| {
                readiness::serve(port, asked.clone(), asked_of.clone(), ends)
            }));
            let cluster = cluster.clone();
            beside.push(Task::new("service proxy", move |ends| {
                let services = cluster.services_for(&ends);
                let (here, addresses, place) = (here.clone(), addresses.clone(), place.clone());
                let (router, readiness) = (router.clone(), readiness.clone());
                proxy::keep(services, here, addresses, place, router, readiness, ends)
            }));
        }
        let (told, reach) = watch::channel(None);
        if let (Some(routes), Some((_, range))) = (self.routes, parse_cidr(&cidr)) {
            let addresses = self.registration.addresses.clone();
            let here = routes::Here {
                node: self.registration.name.clone(),
                addresses: addresses.ipv4(),
                range,
                cluster: routes.cluster,
                makes_routes: routes.are_made,
            };
            let cluster = cluster.clone();
            let host = routes::Side {
                router: routes.router,
                runtime: self.runtime.clone(),
            };
            beside.push(Task::new("routes to other nodes", move |ends| {
                let (nodes, recorder) = (cluster.nodes_for(&ends), cluster.recorder.clone());
                let (here, addresses) = (here.clone(), addresses.clone());
                let (host, told) = (host.clone(), told.clone());
                routes::keep(nodes, here, addresses, host, told, recorder, ends)
            }));
        }
        let mut registration = self.registration;
        registration.pod_cidr = tells.then_some(cidr);
        registration.allocatable = self.thresholds.leave(&registration.capacity);
        let certificates = Certificates::new(
            client.clone(),
            registration.name.clone(),
            cluster.recorder.clone(),
        );
        let kept = certificates.clone();
        beside.push(Task::new("certificates of pods", move |ends| {
            kept.clone().keep(ends)
        }));
        let settings = Settings {
            cluster_dns: cluster_dns.clone(),
            cluster_domain: self.names.domain(),
            logs: match &logs {
                Logs::Together(all) => Some(all.clone()),
                Logs::Homes(_) => None,
            },
            ..settings_of(&registration, &self.thresholds, &self.sysctls)
        };
        let supplies = Host {
            client: client.clone(),
            homes: self.homes,
            logs: logs.clone(),
            data: self.data,
            ipam: self.ipam,
            storage: self.storage,
            images: self.images,
            registries: Registries::new(self.insecure).map_err(AgentError::Host)?,
            runtime: self.runtime.clone(),
            addresses: registration.addresses.clone(),
            cluster_dns,
            cluster_domain: self.names.domain(),
            services: cluster.services().services,
            allocatable: registration.allocatable.clone(),
            recorder: cluster.recorder.clone(),
            objects: Objects::default(),
            claims: Claims::default(),
            paths: Paths::default(),
            uses: Uses::default(),
            certificates,
        };
        Ok(Setup {
            client,
            recorder: cluster.recorder,
            registration,
            runtime: self.runtime,
            supplies: Arc::new(supplies),
            logs: Some(logs),
            reach,
            thresholds: self.thresholds,
            sysctls: self.sysctls,
            settings,
            beside,
        })
    }
}

/// What the API of a node of any kind tells of its configuration.
pub(super) fn settings_of(
    registration: &Registration,
    thresholds: &Thresholds,
    sysctls: &Sysctls,
) -> Settings {
    let pods = registration.capacity.get("pods");
    Settings {
        pods: pods.and_then(|pods| pods.parse().ok()).unwrap_or_default(),
        eviction: thresholds.limits(),
        sysctls: sysctls.allowed().to_vec(),
        ..Settings::default()
    }
}

/// The addresses at which other hosts reach this one: that of `--node-ip`, or its own, which the task follows.
pub(super) fn addresses(node_ip: Option<Ipv4Addr>) -> (Addresses, Option<Task>) {
    if let Some(address) = node_ip {
        return (Addresses::fixed([address.to_string()]), None);
    }
    #[cfg(target_os = "linux")]
    let changes = crate::zone::linux::address_changes;
    #[cfg(not(target_os = "linux"))]
    let changes = crate::node::addresses::silent;
    let (addresses, follower) = Addresses::of_host(changes);
    let follower = Arc::new(follower);
    let task = Task::new("addresses of this host", move |ends| {
        let follower = follower.clone();
        async move { follower.follow(ends).await }
    });
    (addresses, Some(task))
}

/// This host's node object, without what only its runtime knows. `data` is the agent's directory, `addresses` those at
/// which other hosts reach it.
pub(in super::super) fn this_host(
    name: &str,
    addresses: Addresses,
    brand: &str,
    data: &Path,
) -> Registration {
    let capacity = host_capacity(data);
    Registration {
        name: name.to_owned(),
        addresses,
        labels: BTreeMap::new(),
        pod_cidr: None,
        taints: Vec::new(),
        allocatable: capacity.clone(),
        capacity,
        port: None,
        info: host_info(brand),
    }
}

/// Creates the agent's directory and those for pods in it, closed to other users of this host: they hold secrets and
/// logs.
pub(super) fn own_directory(path: &Path) -> Result<PathBuf, AgentError> {
    let data = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = ["pods", "zones", "logs"].map(|part| data.join(part));
    for path in [&data].into_iter().chain(&parts) {
        let failed = |error| AgentError::Host(format!("cannot make {}: {error}", path.display()));
        private::directory(path).map_err(failed)?;
    }
    Ok(data)
}
