//! `reddwarf serve`: the API server over its store.
//!
//! [`prepare`] opens what a server is made of, and fails with what is wrong with the command line or the machine; [`run`]
//! starts what runs, and ends it in order.

mod prepare;
mod renew;
mod run;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::prepare::Prepared;
use self::run::Running;
pub(super) use self::run::Served;
use super::identity;
use crate::auth::authorize::Mode;
use crate::auth::pki::PkiError;
use crate::meta::addresses::{Network, parse_cidr};
use crate::schema::check::formats::go_duration;
use crate::store::OpenError;
use crate::{admission, controllers};

/// What `serve` takes. Names and meanings are kube-apiserver's where it has them.
#[derive(clap::Args)]
pub struct Arguments {
    /// The directory that holds everything: the store, keys and certificates, the administrator's kubeconfig.
    #[arg(long, default_value = "reddwarf-data")]
    pub(super) data_dir: PathBuf,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    bind_address: IpAddr,
    /// The port to serve HTTPS on; 0 takes a free one.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Which authorizers decide, in this order.
    #[arg(long, value_delimiter = ',', default_values_t = [Mode::Node, Mode::Rbac])]
    authorization_mode: Vec<Mode>,
    #[command(flatten)]
    identity: identity::Arguments,
    /// The address by which others reach this server; the address it listens on, or this machine's, if not given.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// The range of addresses for services, or one of IPv4 and one of IPv6, the default one first.
    #[arg(long, value_delimiter = ',', value_parser = range, default_value = "10.96.0.0/16")]
    service_cluster_ip_range: Vec<Network>,
    /// Ports of nodes that services may have: FIRST-LAST.
    #[arg(long, value_parser = port_range, default_value = "30000-32767")]
    service_node_port_range: (u16, u16),
    /// Serve what nodes and pods use as metrics.k8s.io, as metrics-server does; an agent does in any case.
    #[arg(long)]
    pub(super) node_metrics: bool,
    /// Keep objects in memory only: nothing of them is left when the process ends.
    #[arg(long)]
    in_memory: bool,
    /// Controllers to run, of which `scheduler` is one: `*` for all that are on by default, NAME for one, -NAME for all
    /// but one, -* for none.
    #[arg(
        long,
        default_value = "*",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    controllers: Vec<String>,
    /// How long certificates are valid that nodes and clients ask for (8760h); those that ask for less get less.
    #[arg(long, value_parser = signing_duration, default_value = "8760h")]
    cluster_signing_duration: i64,
    /// Admission plugins to run besides those that are on by default.
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are on by default and are not to run.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// For how many seconds pods stay on a node that is not ready, unless they say something else.
    #[arg(long, default_value_t = 300)]
    default_not_ready_toleration_seconds: i64,
    /// For how many seconds pods stay on a node that cannot be reached, unless they say something else.
    #[arg(long, default_value_t = 300)]
    default_unreachable_toleration_seconds: i64,
}

impl Arguments {
    /// The IPv4 range of service addresses, if there is one.
    #[cfg(target_os = "linux")]
    pub(super) fn service_range(&self) -> Option<Network> {
        let mut ranges = self.service_cluster_ip_range.iter().copied();
        ranges.find(|range| range.address.is_ipv4())
    }
}

/// Why the server cannot run. Each says on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store, which names itself.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys and certificates, which name themselves.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// `--controllers` names one that there is not; it says which.
    #[error(transparent)]
    Controllers(#[from] controllers::UnknownController),
    /// Keys, certificates and tokens that flags name; each says its file.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// `--enable-admission-plugins` or `--disable-admission-plugins` names one that there is not; it says which.
    #[error(transparent)]
    Admission(#[from] admission::ChainError),
    /// `--service-cluster-ip-range` has ranges that services cannot have together.
    #[error(
        "--service-cluster-ip-range takes one range, or one of IPv4 and one of IPv6; {asked} were given"
    )]
    ServiceRanges {
        /// How many were given.
        asked: usize,
    },
    /// The listener.
    #[error(
        "cannot listen on {address}: {cause}; stop what uses it, or choose another --secure-port"
    )]
    Listen {
        address: SocketAddr,
        cause: std::io::Error,
    },
    /// The system refuses threads or signals.
    #[error("cannot {attempted}: {cause}")]
    System {
        attempted: &'static str,
        cause: std::io::Error,
    },
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`] before anything was served.
pub fn run(arguments: Arguments) -> Result<(), ServeError> {
    blocking(serve(arguments, |_, _| async {}))?
}

/// Runs a program on threads that may handle objects.
///
/// # Errors
/// [`ServeError::System`]: no threads.
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

/// Serves until SIGTERM or SIGINT, and `beside` with it: that is told to end first.
///
/// # Errors
/// [`ServeError`] before anything was served.
pub(super) async fn serve<F>(
    arguments: Arguments,
    beside: impl FnOnce(Served, CancellationToken) -> F,
) -> Result<(), ServeError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let prepared = Prepared::open(arguments).await?;
    let running = Running::start(prepared).await;
    // Whoever reads that it serves may tell it to end.
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

/// Reads a range of addresses for services.
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

/// Reads `30000-32767`.
fn port_range(text: &str) -> Result<(u16, u16), String> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && first > 0).then_some((first, last))
    });
    ends.ok_or_else(|| "it must be FIRST-LAST, ports in order".to_owned())
}
