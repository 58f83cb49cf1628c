//! The node of an illumos host.

use std::sync::Arc;

use futures::FutureExt as _;

use super::super::agent::{AgentError, Plan};
use super::super::illumos;
use super::api::listen;
use super::node::{Maker, Node};
use super::real::{addresses, own_directory, this_host};
use super::{Nodes, sysctls};
use crate::net::Ipam;
use crate::storage::{StorageEngine, ZfsStorageEngine};

impl Nodes {
    pub(super) fn illumos(plan: &Plan) -> Result<Self, AgentError> {
        let arguments = &plan.arguments;
        if arguments.illumos.tools_of_this_host() && !cfg!(target_os = "illumos") {
            return Err(AgentError::Host(format!(
                "--runtime illumos needs an illumos host, and this is {}; --illumos-tools names the tools of a fake one",
                std::env::consts::OS
            )));
        }
        let data = own_directory(&arguments.serve.data_dir)?;
        let name = plan.names.first().cloned().unwrap_or_default();
        let tools = arguments.illumos.tools(&data)?;
        let engine = ZfsStorageEngine::new(
            tools.clone(),
            plan.storage.clone(),
            arguments.illumos.reserves_volumes(),
        )?;
        let engine = Arc::new(engine);
        let volumes: Arc<dyn StorageEngine> = engine.clone();
        let (addresses, follows) = addresses(arguments.node_ip);
        let registration = this_host(
            &name,
            addresses.clone(),
            arguments.illumos.brand().name(),
            &data,
        );
        let host = illumos::Plan {
            name,
            addresses,
            proxy_healthz_port: arguments.proxy_healthz_port,
            ipam: arguments
                .network
                .addresses(Ipam::open(&data.join("ipam.redb"), &arguments.pod_cidr)?)?,
            data,
            tools,
            engine,
            storage: plan.storage.clone(),
            network: arguments.network.clone(),
            names: arguments.names.clone(),
            flags: arguments.illumos.clone(),
            insecure: arguments.insecure_registry.clone(),
            thresholds: arguments.eviction_hard.clone(),
            sysctls: sysctls(plan)?,
        };
        let maker: Maker = Box::new(move |cluster| host.clone().setup(cluster).boxed());
        Ok(Nodes {
            nodes: vec![Node {
                registration,
                maker,
            }],
            storage: Some(volumes),
            follows,
            listener: Some(listen(arguments.kubelet_port)?),
        })
    }
}
