//! `reddwarf agent`: a node, with the API server in the same process or joined to another.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::cluster::Clients;
use super::host::{NetworkFlags, StorageFlags};
use super::illumos::{self, IllumosFlags};
use super::names::NameFlags;
use super::nodes::{NodeApi, Nodes};
use super::serve::{self, ServeError, Served};
use crate::api::authenticate::Peer;
use crate::auth::{Authorizer as _, Decision};
use crate::net::IpamError;
use crate::node::pressure::Thresholds;
use crate::node::{Allow, Authenticate};
use crate::storage::{ConfigError, StoragePoolConfig};

/// How nodes run their pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RuntimeName {
    /// Namespaces, cgroups and overlay mounts of this Linux.
    Linux,
    /// Zones of this illumos.
    Illumos,
    /// Nothing real: pods run through their lives without processes.
    Simulated,
}

/// What `agent` takes.
#[derive(clap::Args)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) serve: serve::Arguments,
    /// Join the API server of this kubeconfig instead of running one.
    #[arg(long)]
    pub(super) kubeconfig: Option<PathBuf>,
    /// How pods are run; by default what this host can: `linux` or `illumos` for root there, else `simulated`.
    #[arg(long)]
    pub(super) runtime: Option<RuntimeName>,
    /// Run this many simulated nodes instead of this host.
    #[arg(long, default_value_t = 0)]
    pub(super) simulated_nodes: u32,
    /// How long simulated operations take, in milliseconds: making a zone, booting it, starting a container, removing.
    #[arg(long, value_delimiter = ',', num_args = 1..=4, default_values_t = [0u64])]
    pub(super) simulated_delays: Vec<u64>,
    /// The name of this node; by default the host's name.
    #[arg(long)]
    pub(super) node_name: Option<String>,
    #[command(flatten)]
    pub(super) storage: StorageFlags,
    /// The range that pods of this node get addresses from.
    #[arg(long, default_value = "10.244.0.0/24")]
    pub(super) pod_cidr: String,
    #[command(flatten)]
    pub(super) network: NetworkFlags,
    #[command(flatten)]
    pub(super) names: NameFlags,
    #[command(flatten)]
    pub(super) illumos: IllumosFlags,
    /// When pods are evicted: SIGNAL<QUANTITY or SIGNAL<PERCENT%, of memory.available, nodefs.available,
    /// nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available. Empty: never.
    #[arg(long, default_value_t)]
    pub(super) eviction_hard: Thresholds,
    /// Settings of the kernel that pods may have besides those that are safe: names of their namespaces' own (net.*,
    /// kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*), or the beginnings of such, ending in *. At your own risk.
    #[arg(long, value_delimiter = ',')]
    pub(super) allowed_unsafe_sysctls: Vec<String>,
    /// Registries (HOST:PORT) that are asked by plain HTTP.
    #[arg(long, value_delimiter = ',')]
    pub(super) insecure_registry: Vec<String>,
    /// With --kubeconfig: whose client certificates the node's own API takes, a PEM file; by default the authority in the
    /// kubeconfig.
    #[arg(long = "kubelet-client-ca-file")]
    pub(super) client_ca: Option<PathBuf>,
    /// The port of the node's own API; 0 takes a free one.
    #[arg(long, default_value_t = 10250)]
    pub(super) kubelet_port: u16,
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The API server in this process.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Addresses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Places.
    #[error(transparent)]
    Storage(#[from] ConfigError),
    /// The kubeconfig.
    #[error("cannot use the kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Something this host cannot do.
    #[error("{0}")]
    Host(String),
}

/// The nodes of this process and what they need.
pub(super) struct Plan {
    pub runtime: RuntimeName,
    pub names: Vec<String>,
    pub arguments: Arguments,
    pub storage: StoragePoolConfig,
}

/// Runs nodes until SIGTERM or SIGINT; their pods go on.
///
/// # Errors
/// [`AgentError`] before any node was registered.
pub fn run(mut arguments: Arguments) -> Result<(), AgentError> {
    arguments.serve.node_metrics = true;
    let plan = plan(arguments)?;
    let nodes = Nodes::prepare(&plan)?;
    match plan.arguments.kubeconfig.clone() {
        None => {
            let work = serve::serve(
                plan.arguments.serve,
                move |served: Served, ends| async move {
                    super::serve::say(&nodes.next_line(&served.kubeconfig));
                    let Served {
                        transport,
                        address,
                        agents,
                        tls,
                        authentication,
                        authorizer,
                        ..
                    } = served;
                    let authenticate: Authenticate = Arc::new(move |shown| {
                        let (authentication, peer) = (authentication.clone(), Peer::new(shown));
                        Box::new(move |headers| {
                            let known = authentication.authenticate(&mut headers.clone(), &peer);
                            std::future::ready(known.ok().map(|(user, _)| user)).boxed()
                        })
                    });
                    let allow: Allow = Arc::new(move |user, wants| {
                        let decision = authorizer.authorize(user, wants);
                        std::future::ready(matches!(decision, Decision::Allow(_))).boxed()
                    });
                    let api = NodeApi {
                        agents: Some(agents),
                        tls,
                        authenticate,
                        allow,
                    };
                    nodes
                        .run(Clients::InProcess(transport, address), Some(api), ends)
                        .await;
                },
            );
            Ok(serve::blocking(work)??)
        }
        Some(path) => serve::blocking(async move {
            let client_ca = plan.arguments.client_ca.clone();
            let wrong = |cause: String| AgentError::Kubeconfig {
                path: path.clone(),
                cause,
            };
            let config = kube::config::Kubeconfig::read_from(&path)
                .map_err(|error| wrong(error.to_string()))?;
            let config = kube::Config::from_custom_kubeconfig(config, &Default::default())
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let authority = config.root_cert.clone().unwrap_or_default();
            let client =
                kube::Client::try_from(config).map_err(|error| wrong(error.to_string()))?;
            let api = Some(nodes.joined_api(&path, authority, client.clone(), client_ca)?);
            super::serve::say(&nodes.next_line(&path));
            let ends = CancellationToken::new();
            let running = tokio::spawn(nodes.run(Clients::Remote(client), api, ends.clone()));
            serve::ended()?.await;
            ends.cancel();
            let _ = running.await;
            Ok(())
        })?,
    }
}

fn plan(arguments: Arguments) -> Result<Plan, AgentError> {
    let root = rustix::process::geteuid().is_root();
    let simulated = arguments.simulated_nodes > 0;
    let runtime = match (arguments.runtime, simulated) {
        (Some(RuntimeName::Linux | RuntimeName::Illumos), true) => {
            return Err(AgentError::Host(
                "--simulated-nodes runs no real pods; leave --runtime away, or give --runtime simulated".into(),
            ));
        }
        (_, true) => RuntimeName::Simulated,
        (Some(named), _) => named,
        (None, _) if cfg!(target_os = "linux") && root => RuntimeName::Linux,
        (None, _) if cfg!(target_os = "illumos") && root => RuntimeName::Illumos,
        (None, _) => {
            eprintln!(
                "reddwarf: this host's pods are simulated: zones need root on {}; say --runtime to decide yourself",
                std::env::consts::OS
            );
            RuntimeName::Simulated
        }
    };
    let name = match &arguments.node_name {
        Some(name) => name.clone(),
        None => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_lowercase(),
    };
    let names = match arguments.simulated_nodes {
        0 => vec![name],
        count => (0..count)
            .map(|number| format!("simulated-{number}"))
            .collect(),
    };
    let data = std::path::absolute(&arguments.serve.data_dir)
        .unwrap_or_else(|_| arguments.serve.data_dir.clone());
    let storage = arguments.storage.config(&match runtime {
        RuntimeName::Illumos => illumos::POOL.to_owned(),
        _ => data.join("storage").display().to_string(),
    })?;
    Ok(Plan {
        runtime,
        names,
        arguments,
        storage,
    })
}
