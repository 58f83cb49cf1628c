//! `reddwarf serve`: the API server over its store.
//!
//! [`prepare`] opens everything that a server consists of, and fails if the command line or the machine has a problem;
//! [`run`] starts everything, and shuts it down in order.

mod prepare;
mod renew;
mod run;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::ArgAction;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::prepare::Prepared;
use self::run::Running;
pub(super) use self::run::Served;
use super::identity;
use crate::auth::authorize::Mode;
use crate::auth::pki::{PkiError, server_name};
use crate::meta::addresses::{Network, parse_cidr};
use crate::schema::check::formats::go_duration;
use crate::store::OpenError;
use crate::{admission, controllers};

/// The flags of `serve`; names and meanings are kube-apiserver's where it has them.
#[derive(clap::Args)]
pub struct Arguments {
    /// The directory that holds everything: the store, keys and certificates, the administrator's kubeconfig.
    #[arg(long, default_value = "reddwarf-data")]
    pub(super) data_dir: PathBuf,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    bind_address: IpAddr,
    /// The port to serve HTTPS on; 0 picks a free one.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// The authorizers, in order of evaluation.
    #[arg(long, value_delimiter = ',', default_values_t = [Mode::Node, Mode::Rbac])]
    authorization_mode: Vec<Mode>,
    #[command(flatten)]
    identity: identity::Arguments,
    /// The address at which others reach this server; by default the one it listens on, or this machine's.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Further names and addresses by which clients reach this server, such as those of a load balancer in front of it: its
    /// serving certificate is of them, too.
    #[arg(long, value_delimiter = ',', value_parser = san)]
    tls_san: Vec<String>,
    /// The address range of services: one range, or one of IPv4 and one of IPv6 with the default one first.
    #[arg(long, value_delimiter = ',', value_parser = range, default_value = "10.96.0.0/16")]
    service_cluster_ip_range: Vec<Network>,
    /// The range of node ports of services: FIRST-LAST.
    #[arg(long, value_parser = port_range, default_value = "30000-32767")]
    service_node_port_range: (u16, u16),
    /// Serve metrics.k8s.io (resource usage of nodes and pods), as metrics-server does. Always on in an agent.
    #[arg(long)]
    pub(super) node_metrics: bool,
    /// Keep objects in memory only: they are lost when the process ends.
    #[arg(long)]
    in_memory: bool,
    /// Controllers to run, including `scheduler`: `*` for all that are on by default, NAME to add one, -NAME to remove
    /// one, -* for none.
    #[arg(
        long,
        default_value = "*",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    controllers: Vec<String>,
    /// The maximum lifetime of certificates requested by nodes and clients (8760h); a request may ask for less.
    #[arg(long, value_parser = signing_duration, default_value = "8760h")]
    cluster_signing_duration: i64,
    /// Admission plugins to run in addition to the default ones.
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Default admission plugins to disable.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// How many seconds pods stay on a node that is not ready, unless they have their own toleration.
    #[arg(long, default_value_t = 300)]
    default_not_ready_toleration_seconds: i64,
    /// How many seconds pods stay on an unreachable node, unless they have their own toleration.
    #[arg(long, default_value_t = 300)]
    default_unreachable_toleration_seconds: i64,
    /// Limit requests by flow schemas and priority levels; otherwise only by their number.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    enable_priority_and_fairness: bool,
    /// The maximum number of concurrent read-only requests, or 0 for no limit. Priority levels share the sum of this
    /// and the next number, which must not be 0.
    #[arg(long, default_value_t = 400, value_parser = in_flight)]
    max_requests_inflight: usize,
    /// The maximum number of concurrent mutating requests, or 0 for no limit.
    #[arg(long, default_value_t = 200, value_parser = in_flight)]
    max_mutating_requests_inflight: usize,
}

impl Arguments {
    /// The IPv4 range of service addresses, if there is one.
    #[cfg(target_os = "linux")]
    pub(super) fn service_range(&self) -> Option<Network> {
        let mut ranges = self.service_cluster_ip_range.iter().copied();
        ranges.find(|range| range.address.is_ipv4())
    }
}

/// Why the server cannot run. Each says what failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store cannot be opened; the text names it.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys or certificates are unusable; the text names them.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// `--controllers` names an unknown controller.
    #[error(transparent)]
    Controllers(#[from] controllers::UnknownController),
    /// A file with keys, certificates or tokens that a flag names is unusable.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// `--enable-admission-plugins` or `--disable-admission-plugins` names an unknown plugin.
    #[error(transparent)]
    Admission(#[from] admission::ChainError),
    /// `--service-cluster-ip-range` has an invalid combination of ranges.
    #[error(
        "--service-cluster-ip-range takes one range, or one of IPv4 and one of IPv6; {asked} were given"
    )]
    ServiceRanges {
        /// How many were given.
        asked: usize,
    },
    /// `--max-requests-inflight` and `--max-mutating-requests-inflight` leave no seats to priority levels.
    #[error(
        "--max-requests-inflight and --max-mutating-requests-inflight are both 0, so that no request could be served; give one of them, or --enable-priority-and-fairness=false for no limit"
    )]
    InFlight,
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {cause}; stop what uses it, or choose another --secure-port"
    )]
    Listen {
        address: SocketAddr,
        cause: std::io::Error,
    },
    /// The system cannot create threads or signal handlers.
    #[error("cannot {attempted}: {cause}")]
    System {
        attempted: &'static str,
        cause: std::io::Error,
    },
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`], before anything is served.
pub fn run(arguments: Arguments) -> Result<(), ServeError> {
    blocking(serve(arguments, |_, _| async {}))?
}

/// Runs a future on a runtime whose threads have the stacks that objects need.
///
/// # Errors
/// [`ServeError::System`]: threads cannot be created.
pub(super) fn blocking<T: Send + 'static>(
    program: impl Future<Output = T> + Send + 'static,
) -> Result<T, ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(crate::schema::STACK)
        .build()
        .map_err(|cause| ServeError::System {
            attempted: "start threads",
            cause,
        })?;
    Ok(runtime.block_on(async {
        tokio::spawn(program)
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }))
}

/// Serves until SIGTERM or SIGINT, with `beside` in the same process, which is cancelled first.
///
/// # Errors
/// [`ServeError`], before anything is served.
pub(super) async fn serve<F>(
    arguments: Arguments,
    beside: impl FnOnce(Served, CancellationToken) -> F,
) -> Result<(), ServeError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let prepared = Prepared::open(arguments).await?;
    let running = Running::start(prepared).await;
    // Installed before the server reports that it is ready, because a reader of that may send a signal.
    let ended = ended()?;
    let (served, running) = running.listen();
    let beside_ends = CancellationToken::new();
    let beside = tokio::spawn(beside(served, beside_ends.clone()));
    ended.await;
    beside_ends.cancel();
    if let Err(error) = beside.await {
        tracing::error!(%error, "the nodes of this process panicked");
    }
    running.end().await;
    Ok(())
}

/// Resolves at the first SIGTERM or SIGINT after the call.
pub(super) fn ended() -> Result<impl Future<Output = ()>, ServeError> {
    let handle = |kind| {
        signal(kind).map_err(|cause| ServeError::System {
            attempted: "handle signals",
            cause,
        })
    };
    let (mut term, mut interrupt) = (
        handle(SignalKind::terminate())?,
        handle(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Parses a name of the server.
fn san(text: &str) -> Result<String, String> {
    server_name(text).map_err(|_| "it is neither an IP address nor a DNS name".to_owned())
}

/// Parses an address range of services.
fn range(text: &str) -> Result<Network, String> {
    let (_, network) = parse_cidr(text).ok_or("it must be a range such as 10.96.0.0/16")?;
    let bits = if network.address.is_ipv4() { 32 } else { 128 } - network.prefix;
    match bits {
        0..=1 => Err("it must hold at least two addresses besides its own".to_owned()),
        65.. => Err("an IPv6 range may be at most a /64".to_owned()),
        _ => Ok(network),
    }
}

/// Seconds of a duration that a certificate can have.
fn signing_duration(text: &str) -> Result<i64, String> {
    go_duration(text)
        .map(|nanos| nanos / 1_000_000_000)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "it must be a duration such as 8760h".to_owned())
}

/// Reads a number of requests.
fn in_flight(text: &str) -> Result<usize, String> {
    let number = text
        .parse::<u32>()
        .ok()
        .filter(|number| *number <= 1_000_000);
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| "it must be a number from 0 to 1000000".to_owned())
}

/// Reads `30000-32767`.
fn port_range(text: &str) -> Result<(u16, u16), String> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && first > 0).then_some((first, last))
    });
    ends.ok_or_else(|| "it must be FIRST-LAST, ports in order".to_owned())
}
