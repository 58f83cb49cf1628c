//! The nodes of an agent: what each runs its pods with, and its own API.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{self, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::agent::{AgentError, Plan, RuntimeName};
use super::cluster::{Clients, Cluster};
use super::illumos;
use super::join::Joined;
use super::names::NameFlags;
use crate::api::actions::kubelet::Agents;
use crate::blocking::patiently;
use crate::client::events::{self, Events};
use crate::meta::addresses::{Network, parse_cidr};
use crate::net::Ipam;
use crate::net::routes::NodeRouter;
use crate::net::services::ServiceRouter;
use crate::node::addresses::Addresses;
use crate::node::agent::{self, Pods, Setup};
use crate::node::host::{Host, Logs, Objects};
use crate::node::images::{Images, Registries};
use crate::node::kubelet::configz::{JoinedBy, Settings};
use crate::node::pod_certificates::Certificates;
use crate::node::pressure::Thresholds;
use crate::node::register::{self, Fitness, Registration, host_capacity, host_info};
use crate::node::services::place::{self, Place};
use crate::node::services::plan::Here;
use crate::node::services::proxy;
use crate::node::services::readiness::{self, Readiness};
use crate::node::simulated::SimulatedSupplies;
use crate::node::sysctls::Sysctls;
use crate::node::volumes::Volumes;
use crate::node::{Allow, Authenticate};
use crate::node::{ranges, routes};
use crate::private;
use crate::storage::{StorageEngine, ZfsStorageEngine};
use crate::supervise::{Supervisor, Task};
use crate::zone::ZoneRuntime;
use crate::zone::simulated::Simulated;

/// A host that runs its pods in zones, and everything it uses for them.
pub(super) struct RealHost {
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
    /// Implements services; None if nobody does.
    pub router: Option<Arc<dyn ServiceRouter>>,
    /// Routes to the pods of other nodes; None if nobody adds them.
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
pub(super) struct Routes {
    /// Adds and removes the routes.
    pub router: Arc<dyn NodeRouter>,
    /// The range of all pods, if given.
    pub cluster: Option<Network>,
    /// Whether routes are to be added.
    pub are_made: bool,
}

impl RealHost {
    /// The parts of the node; first removes what an earlier agent left of unfinished images.
    pub(super) async fn setup(self, cluster: Cluster) -> Result<Setup, AgentError> {
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
fn settings_of(
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
fn addresses(node_ip: Option<Ipv4Addr>) -> (Addresses, Option<Task>) {
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

/// This host's node object, without what only its runtime knows. `data` is the agent's directory, `addresses` those at which
/// other hosts reach it.
pub(super) fn this_host(
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

/// The sysctls that pods of these nodes may set: simulated nodes allow those of a new Linux, zones of illumos have
/// none.
fn sysctls(plan: &Plan) -> Result<Sysctls, AgentError> {
    let host = rustix::system::uname();
    let release = host.release().to_string_lossy();
    let kernel = match plan.runtime {
        RuntimeName::Linux => Some(&*release),
        RuntimeName::Simulated => Some("6.0"),
        RuntimeName::Illumos => None,
    };
    Sysctls::new(kernel, &plan.arguments.allowed_unsafe_sysctls)
        .map_err(|error| AgentError::Host(format!("--allowed-unsafe-sysctls: {error}")))
}

/// Creates the agent's directory and those for pods in it, closed to other users of this host: they hold secrets and
/// logs.
fn own_directory(path: &Path) -> Result<PathBuf, AgentError> {
    let data = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = ["pods", "zones", "logs"].map(|part| data.join(part));
    for path in [&data].into_iter().chain(&parts) {
        let failed = |error| AgentError::Host(format!("cannot make {}: {error}", path.display()));
        private::directory(path).map_err(failed)?;
    }
    Ok(data)
}

/// Sets up one node, once there is a cluster; called again if the host failed.
type Maker = Box<dyn Fn(Cluster) -> BoxFuture<'static, Result<Setup, AgentError>> + Send + Sync>;

/// A node that is to run.
struct Node {
    /// The node object to register as long as the host cannot run the node.
    registration: Registration,
    maker: Maker,
}

/// The pause before the host is tried again after a failure.
const AGAIN: Duration = Duration::from_secs(10);

impl Node {
    /// Sets up the node. If the host fails, reports it by the node's condition and an event, and tries again. Returns
    /// None if `ends` is cancelled first.
    async fn make(&self, cluster: impl Fn() -> Cluster, ends: &CancellationToken) -> Option<Setup> {
        let name = &self.registration.name;
        let mut unfit: Option<(String, Supervisor)> = None;
        loop {
            let (client, recorder, error) = {
                let cluster = cluster();
                let (client, recorder) = (cluster.client.clone(), cluster.recorder.clone());
                match (self.maker)(cluster).await {
                    Ok(setup) => {
                        if let Some((_, telling)) = unfit {
                            telling.end().await;
                        }
                        return Some(setup);
                    }
                    Err(error) => (client, recorder, error.to_string()),
                }
            };
            if unfit.as_ref().is_none_or(|(known, _)| *known != error) {
                tracing::error!(node = name, "the node cannot run: {error}");
                if let Some((_, telling)) = unfit.take() {
                    telling.end().await;
                }
                let telling = Supervisor::new(ends.child_token());
                let (registration, fitness) =
                    (self.registration.clone(), Fitness::Unfit(error.clone()));
                telling.keep(format!("status and lease of node {name}"), move |ends| {
                    let (client, recorder) = (client.clone(), recorder.clone());
                    let (registration, fitness) = (registration.clone(), fitness.clone());
                    let (observed, reach) = (Arc::default(), watch::channel(None).1);
                    register::keep(
                        client,
                        registration,
                        fitness,
                        observed,
                        reach,
                        recorder,
                        ends,
                    )
                });
                unfit = Some((error, telling));
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = ends.cancelled() => return None,
            }
        }
    }
}

impl Node {
    /// Sets up the node and runs its agent until `ends` is cancelled.
    async fn run(
        &self,
        clients: &Clients,
        events: &Events,
        api: Option<NodeApi>,
        listener: Option<Arc<TcpListener>>,
        ends: CancellationToken,
    ) {
        let name = &self.registration.name;
        let cluster = || clients.cluster(name, events, &ends);
        let Some(mut setup) = self.make(cluster, &ends).await else {
            return;
        };
        let pods = Pods::default();
        if let Some(api) = api {
            api.serve(name, listener, &mut setup, &pods);
        }
        agent::run(setup, pods, ends).await;
    }
}

/// The nodes of this process.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// The storage of their volumes; None for simulated nodes.
    storage: Option<Arc<dyn StorageEngine>>,
    /// Follows the address of the host, if it was not given.
    follows: Option<Task>,
    /// The listener for the API of a real node.
    listener: Option<net::TcpListener>,
}

/// What the nodes' own API needs.
#[derive(Clone)]
pub(super) struct NodeApi {
    /// The registry of nodes without a port, if the API server is in this process.
    pub agents: Option<Arc<Agents>>,
    /// Its TLS configuration.
    pub tls: rustls::ServerConfig,
    /// Authenticates requests.
    pub authenticate: Authenticate,
    /// Authorizes requests.
    pub allow: Allow,
    /// How a node that joined vouches for itself; None if the API server is in this process.
    pub joined: Option<JoinedBy>,
}

impl NodeApi {
    /// Serves the API of a node on `listener` if it is a real one, otherwise within this process.
    fn serve(self, name: &str, listener: Option<Arc<TcpListener>>, setup: &mut Setup, pods: &Pods) {
        let at = listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        if setup.logs.is_some() {
            setup.registration.port = at.map(|at| at.port());
        }
        let kubelet = crate::node::kubelet::Kubelet {
            pods: pods.clone(),
            runtime: setup.runtime.clone(),
            supplies: setup.supplies.clone(),
            logs: setup.logs.clone(),
            node: name.to_owned(),
            settings: Settings {
                port: setup.registration.port,
                joined: self.joined,
                ..setup.settings.clone()
            },
            authenticate: self.authenticate,
            allow: self.allow,
        };
        if kubelet.logs.is_none() {
            if let Some(agents) = self.agents {
                agents.add(name, Box::new(move || kubelet.dial()));
            }
            return;
        }
        let Some(listener) = listener else { return };
        let tls = self.tls;
        setup.beside.push(Task::new("API of the node", move |ends| {
            let (listener, tls, kubelet) = (listener.clone(), tls.clone(), kubelet.clone());
            async move { crate::node::kubelet::serve(&listener, tls, kubelet, ends).await }
        }));
    }
}

/// Takes the port of the node's own API, without which nobody would see what its pods say.
fn listen(port: u16) -> Result<net::TcpListener, AgentError> {
    let is_held = |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse;
    let taken = patiently(is_held, || net::TcpListener::bind(("0.0.0.0", port)));
    let listener = taken.and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        AgentError::Host(format!(
            "cannot serve the node's own API on port {port}: {error}; stop what uses it, or choose another --kubelet-port"
        ))
    })
}

impl Nodes {
    /// Prepares everything that nodes need before there is a cluster.
    ///
    /// # Errors
    /// Something that this host cannot do.
    pub(super) fn prepare(plan: &Plan) -> Result<Self, AgentError> {
        match plan.runtime {
            RuntimeName::Simulated => Self::simulated(plan),
            RuntimeName::Linux => Self::linux(plan),
            RuntimeName::Illumos => Self::illumos(plan),
        }
    }

    fn simulated(plan: &Plan) -> Result<Self, AgentError> {
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

    fn illumos(plan: &Plan) -> Result<Self, AgentError> {
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

    #[cfg(not(target_os = "linux"))]
    fn linux(_: &Plan) -> Result<Self, AgentError> {
        Err(AgentError::Host(format!(
            "--runtime linux needs Linux, and this is {}",
            std::env::consts::OS
        )))
    }

    #[cfg(target_os = "linux")]
    fn linux(plan: &Plan) -> Result<Self, AgentError> {
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
        let engine: Arc<dyn StorageEngine> = Arc::new(Directories::new(&storage));
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
                let runtime =
                    Linux::open(&data.join("zones"), groups, network).map_err(AgentError::Host)?;
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

    /// What the API of nodes that joined is served with (the API server there judges who asks), and the tasks that keep
    /// their certificates.
    ///
    /// # Errors
    /// Certificates or files that cannot be used.
    pub(super) fn joined_api(
        &self,
        joined: &Joined,
        client_ca: Option<PathBuf>,
    ) -> Result<(NodeApi, Vec<Task>), AgentError> {
        use crate::auth::pki::{ClientCertificates, Serving, authorities, of_node};
        use crate::node::kubelet::reviews::Reviews;
        let wrong = |error: &dyn std::fmt::Display| AgentError::Host(error.to_string());
        let told = JoinedBy {
            client_ca: client_ca.clone(),
            ..joined.certificates()
        };
        let (named, trusted) = match client_ca {
            Some(file) => (
                file.clone(),
                authorities(&file).map_err(|error| wrong(&error))?,
            ),
            None => {
                let trusted = joined.authority.iter().cloned().map(Into::into).collect();
                (joined.kubeconfig.clone(), trusted)
            }
        };
        let clients = ClientCertificates::new(&trusted, &named).map_err(|error| wrong(&error))?;
        let mut names = Vec::new();
        for Node { registration, .. } in &self.nodes {
            names.push(registration.name.clone());
            names.extend(registration.addresses.all().iter().cloned());
        }
        let reviews = Reviews::new(joined.client.clone(), clients.clone());
        let serving = Arc::new(Serving::self_signed(&names).map_err(|error| wrong(&error))?);
        // Simulated nodes are reached within their process.
        let shows = match self.nodes.as_slice() {
            [node] if self.listener.is_some() => {
                Some((serving.clone(), node.registration.addresses.clone()))
            }
            _ => None,
        };
        let api = NodeApi {
            agents: None,
            tls: of_node(serving, &clients).map_err(|error| wrong(&error))?,
            authenticate: reviews.authenticate(),
            allow: reviews.allow(),
            joined: Some(told),
        };
        Ok((api, joined.tasks(shows)?))
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.nodes.iter().map(|node| node.registration.name.clone())
    }

    /// The command for the operator to type next.
    pub(super) fn next_line(&self, kubeconfig: &Path) -> String {
        let what = match self.nodes.as_slice() {
            [node] => format!("node {}", node.registration.name),
            many => format!("{} simulated nodes", many.len()),
        };
        format!(
            "reddwarf runs {what}; now type:\n  export KUBECONFIG={}; kubectl apply -f examples/web.yaml; kubectl get pods -o wide --watch",
            kubeconfig.display()
        )
    }

    /// Runs them, and what is to be done beside them, until `ends` is cancelled.
    pub(super) async fn run(
        self,
        clients: Clients,
        api: Option<NodeApi>,
        beside: Vec<Task>,
        ends: CancellationToken,
    ) {
        clients.make_class().await;
        let tasks = Supervisor::new(ends.clone());
        let names = self.names().collect();
        for task in beside.into_iter().chain(self.follows) {
            tasks.keep_task(task);
        }
        let volumes = Arc::new(Volumes {
            client: clients.for_volumes(),
            nodes: names,
            storage: self.storage,
        });
        tasks.keep("volumes of this host", move |ends| {
            let volumes = volumes.clone();
            async move { volumes.keep(ends).await }
        });
        let (clients, events) = (Arc::new(clients), events::start(ends.clone()));
        let listener = self.listener.map(TcpListener::from_std).transpose();
        let listener = listener.unwrap_or_else(|error| {
            tracing::error!(%error, "logs, exec and port-forward are not served");
            None
        });
        let mut listener = listener.map(Arc::new);
        for node in self.nodes {
            let name = format!("node {}", node.registration.name);
            let node = Arc::new(node);
            let (clients, events, api) = (clients.clone(), events.clone(), api.clone());
            let listener = listener.take();
            tasks.keep(name, move |ends| {
                let (node, clients, events) = (node.clone(), clients.clone(), events.clone());
                let (api, listener) = (api.clone(), listener.clone());
                async move { node.run(&clients, &events, api, listener, ends).await }
            });
        }
        tasks.ended().await;
    }
}
