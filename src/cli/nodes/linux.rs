//! The node of a Linux host.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;

use super::super::agent::{AgentError, Plan};
use super::api::listen;
use super::node::{Maker, Node};
use super::real::{RealHost, Routes, addresses, own_directory, this_host};
use super::{Nodes, sysctls};
use crate::blocking::blocking;
use crate::meta::addresses::parse_cidr;
use crate::net::Ipam;
use crate::node::images::Images;
use crate::storage::StorageEngine;
use crate::supervise::Task;

impl Nodes {
    pub(super) fn linux(plan: &Plan) -> Result<Self, AgentError> {
        use crate::net::routes::apart;
        use crate::storage::Directories;
        use crate::zone::linux::{self, Groups, HostRoutes, Linux};

        if !rustix::process::geteuid().is_root() {
            return Err(AgentError::Host(
                "--runtime linux needs root: run the agent as root, or say --runtime simulated"
                    .into(),
            ));
        }
        let data = own_directory(&plan.arguments.serve.data_dir)?;
        let ipam = Ipam::open(&data.join("ipam.redb"), &plan.arguments.pod_cidr)?;
        let (gateway, prefix) = ipam.gateway();
        let cidr = ipam.cidr();
        let (whole, are_made) = (
            plan.arguments.cluster_cidr,
            plan.arguments.configure_node_routes,
        );
        let own = parse_cidr(&cidr).map(|(_, range)| range);
        let network = linux::Network::new(
            &plan.arguments.network.etherstub_name,
            (gateway, prefix),
            &cidr,
            apart(own.into_iter().chain(whole)).into(),
        );
        // Each agent on a host has its own control groups, as it has its own bridge.
        let groups = Groups::find(&format!(
            "reddwarf-{}",
            plan.arguments.network.etherstub_name
        ))
        .map_err(AgentError::Host)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if let Err(error) = groups.share(cpus as u64 * 1000) {
            tracing::warn!(%error, "pods together weigh as much as one service of this host");
        }
        let proxy_healthz_port = plan.arguments.proxy_healthz_port;
        let storage = plan.storage.clone();
        let thresholds = plan.arguments.eviction_hard.clone();
        let sysctls = sysctls(plan)?;
        let insecure = plan.arguments.insecure_registry.clone();
        let services = match plan.arguments.join.joins() {
            false => plan.arguments.serve.service_range(),
            true => None,
        };
        let services = services.map(|range| range.to_string());
        let names = plan.arguments.names.clone();
        let name = plan.names.first().cloned().unwrap_or_default();
        let (addresses, follows) = addresses(plan.arguments.node_ip);
        let registration = this_host(&name, addresses.clone(), "linux", &data);
        let engine = Directories::new(&storage).with_notes(data.join("volumes"));
        let engine: Arc<dyn StorageEngine> = Arc::new(engine);
        let volumes = engine.clone();
        let maker: Maker = Box::new(move |cluster| {
            let (name, data, ipam) = (name.clone(), data.clone(), ipam.clone());
            let (groups, network) = (groups.clone(), network.clone());
            let (engine, storage) = (engine.clone(), storage.clone());
            let (names, insecure) = (names.clone(), insecure.clone());
            let (thresholds, sysctls) = (thresholds.clone(), sysctls.clone());
            let (services, addresses) = (services.clone(), addresses.clone());
            async move {
                let router = network.services(addresses.ipv4(), services);
                let registration = this_host(&name, addresses, "linux", &data);
                let routes = Routes {
                    router: Arc::new(HostRoutes::new(network.clone(), router.clone())),
                    cluster: whole,
                    are_made,
                };
                let zones = data.join("zones");
                let opened = blocking(move || Linux::open(&zones, groups, network));
                let runtime = opened.await.map_err(AgentError::Host)?;
                engine
                    .prepare()
                    .await
                    .map_err(|error| AgentError::Host(error.to_string()))?;
                let images = Images::new(
                    &PathBuf::from(&storage.images).join("records"),
                    engine.clone(),
                );
                let kept = runtime.clone();
                let network = Task::new("rules of the pods' network", move |ends| {
                    kept.clone().keep_network(ends)
                });
                let host = RealHost {
                    registration,
                    homes: None,
                    data,
                    ipam,
                    address: Some(gateway),
                    names,
                    storage: engine,
                    images,
                    insecure,
                    runtime: Arc::new(runtime),
                    router: Some(Arc::new(router)),
                    routes: Some(routes),
                    proxy_healthz_port,
                    beside: vec![network],
                    thresholds,
                    sysctls,
                };
                host.setup(cluster).await
            }
            .boxed()
        });
        Ok(Nodes {
            nodes: vec![Node {
                registration,
                maker,
            }],
            storage: Some(volumes),
            follows,
            listener: Some(listen(plan.arguments.kubelet_port)?),
        })
    }
}
