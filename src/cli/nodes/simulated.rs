//! Simulated nodes: any number of them, without zones.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::watch;

use super::super::agent::{AgentError, Plan};
use super::node::{Maker, Node};
use super::real::settings_of;
use super::{Nodes, sysctls};
use crate::net::Ipam;
use crate::node::addresses::Addresses;
use crate::node::agent::Setup;
use crate::node::pressure::Thresholds;
use crate::node::register::{Registration, host_info};
use crate::node::simulated::SimulatedSupplies;
use crate::zone::simulated::Simulated;

impl Nodes {
    pub(super) fn simulated(plan: &Plan) -> Result<Self, AgentError> {
        let ipam = Ipam::in_memory(match plan.names.len() {
            1 => &plan.arguments.pod_cidr,
            // Many nodes need many addresses.
            _ if plan.arguments.pod_cidr == "10.244.0.0/24" => "10.244.0.0/14",
            _ => &plan.arguments.pod_cidr,
        })?;
        let delays = plan.arguments.simulated_delays.clone();
        let info = host_info("simulated");
        let sysctls = sysctls(plan)?;
        let capacity = BTreeMap::from([
            ("cpu".to_owned(), "32".to_owned()),
            ("memory".to_owned(), "256Gi".to_owned()),
            ("pods".to_owned(), "110".to_owned()),
            ("ephemeral-storage".to_owned(), "1Ti".to_owned()),
        ]);
        let nodes = plan
            .names
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let registration = Registration {
                    name: name.clone(),
                    addresses: Addresses::fixed([format!("192.0.2.{}", number % 254 + 1)]),
                    labels: BTreeMap::from([("type".into(), "simulated".into())]),
                    pod_cidr: None,
                    taints: Vec::new(),
                    capacity: capacity.clone(),
                    allocatable: capacity.clone(),
                    port: None,
                    info: info.clone(),
                };
                let (ipam, delays, made) = (ipam.clone(), delays.clone(), registration.clone());
                let sysctls = sysctls.clone();
                let maker: Maker = Box::new(move |cluster| {
                    let thresholds = Thresholds::default();
                    let setup = Setup {
                        settings: settings_of(&made, &thresholds, &sysctls),
                        client: cluster.client,
                        recorder: cluster.recorder,
                        registration: made.clone(),
                        runtime: Arc::new(Simulated::new(delays.clone())),
                        supplies: Arc::new(SimulatedSupplies::new(ipam.clone())),
                        logs: None,
                        reach: watch::channel(None).1,
                        thresholds,
                        sysctls: sysctls.clone(),
                        beside: Vec::new(),
                    };
                    async { Ok(setup) }.boxed()
                });
                Node {
                    registration,
                    maker,
                }
            })
            .collect();
        Ok(Nodes {
            nodes,
            storage: None,
            follows: None,
            listener: None,
        })
    }
}
