//! `reddwarf agent`: a node, with the API server in the same process or joined to another.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::NonEmptyStringValueParser;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::cluster::Clients;
use super::host::{NetworkFlags, StorageFlags};
use super::illumos::{self, IllumosFlags};
use super::join::{JoinError, JoinFlags, Joining};
use super::names::NameFlags;
use super::nodes::{NodeApi, Nodes};
use super::serve::{self, ServeError, Served};
use crate::api::authenticate::Peer;
use crate::auth::{Authorizer as _, Decision};
use crate::meta::addresses::{Network, parse_cidr};
use crate::meta::names::dns1123_subdomain;
use crate::net::IpamError;
use crate::node::pressure::Thresholds;
use crate::node::{Allow, Authenticate};
use crate::storage::{ConfigError, StoragePoolConfig};
use crate::zone::simulated::Delays;

/// How nodes run their pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RuntimeName {
    /// Namespaces, control groups and overlay mounts on Linux.
    Linux,
    /// Zones on illumos.
    Illumos,
    /// Nothing real: pods go through their life cycle without processes.
    Simulated,
}

/// The flags that only apply to an API server in this process: all flags of `serve` except the data directory's.
pub(super) const SERVERS: [&str; 35] = [
    "bind_address",
    "secure_port",
    "authorization_mode",
    "anonymous_auth",
    "enable_bootstrap_token_auth",
    "enable_priority_and_fairness",
    "client_ca_file",
    "token_auth_file",
    "service_account_issuer",
    "service_account_key_file",
    "service_account_signing_key_file",
    "api_audiences",
    "service_account_max_token_expiration",
    "service_account_extend_token_expiration",
    "service_account_jwks_uri",
    "requestheader_client_ca_file",
    "requestheader_allowed_names",
    "requestheader_username_headers",
    "requestheader_uid_headers",
    "requestheader_group_headers",
    "requestheader_extra_headers_prefix",
    "advertise_address",
    "tls_san",
    "service_cluster_ip_range",
    "service_node_port_range",
    "node_metrics",
    "in_memory",
    "max_mutating_requests_inflight",
    "max_requests_inflight",
    "controllers",
    "cluster_signing_duration",
    "enable_admission_plugins",
    "disable_admission_plugins",
    "default_not_ready_toleration_seconds",
    "default_unreachable_toleration_seconds",
];

/// Parses the name of a node, with the API's rules.
fn node_name(text: &str) -> Result<String, String> {
    let wrong = dns1123_subdomain(text);
    match wrong.is_empty() {
        true => Ok(text.to_owned()),
        false => Err(wrong.join("; ")),
    }
}

/// Parses an IPv4 address that this host has.
fn own_address(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr = text.parse().map_err(|_| "it is not an address of IPv4")?;
    // Only the host's own addresses can be bound.
    std::net::UdpSocket::bind((address, 0))
        .map_err(|_| "it is not an address of this host".to_owned())?;
    match address.is_unspecified() {
        true => Err("it is every address of this host".to_owned()),
        false => Ok(address),
    }
}

/// Parses an IPv4 range.
fn range(text: &str) -> Result<Network, String> {
    let (address, range) = parse_cidr(text).ok_or("it is not a range: ADDRESS/BITS")?;
    match address.is_ipv4() {
        true => Ok(range),
        false => Err("it is not a range of IPv4".to_owned()),
    }
}

/// Parses up to four numbers of milliseconds.
fn delays(text: &str) -> Result<Delays, String> {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(str::parse).collect();
    let numbers = numbers.map_err(|error| error.to_string())?;
    if numbers.len() > 4 {
        return Err("there are four operations: CREATE,BOOT,START,REMOVE".into());
    }
    let delay = |index: usize| Duration::from_millis(numbers.get(index).copied().unwrap_or(0));
    Ok(Delays {
        create: delay(0),
        boot: delay(1),
        start: delay(2),
        remove: delay(3),
    })
}

/// The flags of `agent`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) serve: serve::Arguments,
    #[command(flatten)]
    pub(super) join: JoinFlags,
    /// How pods are run; by default `linux` or `illumos` for root on these systems, otherwise `simulated`.
    #[arg(long)]
    pub(super) runtime: Option<RuntimeName>,
    /// Run this many simulated nodes instead of a node for this host.
    #[arg(long, default_value_t = 0)]
    pub(super) simulated_nodes: u32,
    /// How long simulated operations take, in milliseconds: creating a zone, booting it, starting a container,
    /// removing.
    #[arg(long, value_parser = delays, default_value = "0")]
    pub(super) simulated_delays: Delays,
    /// The name of this node; by default the host's name.
    #[arg(long, value_parser = node_name, conflicts_with = "simulated_nodes")]
    pub(super) node_name: Option<String>,
    /// The address at which other hosts reach this node; by default the source address of the default route.
    #[arg(long, value_parser = own_address, conflicts_with = "simulated_nodes")]
    pub(super) node_ip: Option<Ipv4Addr>,
    #[command(flatten)]
    pub(super) storage: StorageFlags,
    /// The range from which pods of this node get addresses.
    #[arg(long, default_value = "10.244.0.0/24")]
    pub(super) pod_cidr: String,
    /// The range that contains the pod ranges of all nodes (Linux). Traffic to it keeps the pods' own addresses; ranges
    /// of nodes outside of it are ignored. By default the ranges that nodes publish are used.
    #[arg(long, value_parser = range)]
    pub(super) cluster_cidr: Option<Network>,
    /// Add a route to the pods of each other node, through the node's address (Linux). Turn it off if routers do this.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) configure_node_routes: bool,
    #[command(flatten)]
    pub(super) network: NetworkFlags,
    #[command(flatten)]
    pub(super) names: NameFlags,
    #[command(flatten)]
    pub(super) illumos: IllumosFlags,
    /// When pods are evicted: SIGNAL<QUANTITY or SIGNAL<PERCENT%, where SIGNAL is memory.available, nodefs.available,
    /// nodefs.inodesFree, imagefs.available, imagefs.inodesFree or pid.available. Empty: never.
    #[arg(long, default_value_t)]
    pub(super) eviction_hard: Thresholds,
    /// Kernel settings that pods may use besides the safe ones: namespaced sysctls (net.*, kernel.shm*, kernel.msg*,
    /// kernel.sem, fs.mqueue.*), or prefixes ending in *. At your own risk.
    #[arg(long, value_delimiter = ',')]
    pub(super) allowed_unsafe_sysctls: Vec<String>,
    /// Registries (HOST:PORT) to contact over plain HTTP.
    #[arg(long, value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(super) insecure_registry: Vec<String>,
    /// For joined nodes: a PEM file with the CAs whose client certificates the node's API accepts; by default the CA in
    /// the node's kubeconfig.
    #[arg(long = "kubelet-client-ca-file", requires = "joins")]
    pub(super) client_ca: Option<PathBuf>,
    /// The port of the node's own API; 0 picks a free one.
    #[arg(long, default_value_t = 10250)]
    pub(super) kubelet_port: u16,
    /// The port of kube-proxy's health check for load balancers (/healthz, /livez); 0 turns it off.
    #[arg(long, default_value_t = 10256)]
    pub(super) proxy_healthz_port: u16,
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The API server in this process failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The address pool cannot be opened.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// A storage flag is invalid.
    #[error(transparent)]
    Storage(#[from] ConfigError),
    /// The API server cannot be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
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

/// Runs nodes until SIGTERM or SIGINT; their pods keep running.
///
/// # Errors
/// [`AgentError`], before any node is registered.
pub fn run(mut arguments: Arguments) -> Result<(), AgentError> {
    arguments.serve.node_metrics = true;
    let plan = plan(arguments)?;
    let nodes = Nodes::prepare(&plan)?;
    match plan.arguments.join.joins() {
        false => {
            let work = serve::serve(
                plan.arguments.serve,
                move |served: Served, ends| async move {
                    super::say(&nodes.next_line(&served.kubeconfig));
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
                        joined: None,
                    };
                    nodes
                        .run(
                            Clients::InProcess(transport, address),
                            Some(api),
                            Vec::new(),
                            ends,
                        )
                        .await;
                },
            );
            Ok(serve::blocking(work)??)
        }
        true => serve::blocking(async move {
            let data = std::path::absolute(&plan.arguments.serve.data_dir)
                .unwrap_or_else(|_| plan.arguments.serve.data_dir.clone());
            let joining = Joining {
                flags: &plan.arguments.join,
                data: &data,
                names: &plan.names,
            };
            // A signal also ends the agent while it waits for its certificate.
            let early = serve::ended()?;
            let joined = tokio::select! {
                joined = joining.join() => joined?,
                () = early => return Ok(()),
            };
            let client_ca = plan.arguments.client_ca.clone();
            let (api, beside) = nodes.joined_api(&joined, client_ca)?;
            super::say(&nodes.next_line(&joined.kubeconfig));
            let ends = CancellationToken::new();
            let running = tokio::spawn(nodes.run(
                Clients::Remote(joined.client.clone()),
                Some(api),
                beside,
                ends.clone(),
            ));
            serve::ended()?.await;
            let again = serve::ended()?;
            ends.cancel();
            // Unfinished work is found again at the next start, so do not wait for an API server that does not respond.
            tokio::select! {
                _ = running => {}
                () = again => {}
                () = tokio::time::sleep(PARTING) => {}
            }
            Ok(())
        })?,
    }
}

/// How long unfinished work may take after a signal.
const PARTING: Duration = Duration::from_secs(5);
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
                "reddwarf: this host's pods are simulated: zones need root on {}; use --runtime to choose",
                std::env::consts::OS
            );
            RuntimeName::Simulated
        }
    };
    let name = match &arguments.node_name {
        Some(name) => name.clone(),
        None => {
            let host = rustix::system::uname();
            let host = host.nodename().to_string_lossy().to_lowercase();
            node_name(&host).map_err(|wrong| {
                AgentError::Host(format!(
                    "this host is called {host:?}, which no node can be; give a --node-name: {wrong}"
                ))
            })?
        }
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

#[cfg(test)]
mod tests;
