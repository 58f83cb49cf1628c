//! `reddwarf serve`: the API server over its store.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::identity;
use crate::admission;
use crate::api::actions::kubelet::{Agents, Kubelets};
use crate::api::authenticate::Authentication;
use crate::api::listen;
use crate::api::node_metrics::{self, NodeMetrics};
use crate::api::own_records::Records;
use crate::api::server::Server;
use crate::auth::authorize::{Authorizers, Mode};
use crate::auth::impersonate::Impersonation;
use crate::auth::kubeconfig;
use crate::auth::pki::{Pki, PkiError};
use crate::controllers::client::Transport;
use crate::controllers::manager::Manager;
use crate::controllers::{self};
use crate::meta::addresses::{Network, parse_cidr};
use crate::resources::cluster::{Cluster, Settings};
use crate::store::{self, OpenError};

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

/// Why the server cannot run. Each says on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The command line.
    #[error(transparent)]
    Controllers(#[from] controllers::UnknownController),
    /// Keys, certificates and tokens that the command line names.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The command line.
    #[error(transparent)]
    Admission(#[from] admission::ChainError),
    /// The command line.
    #[error(
        "--service-cluster-ip-range takes one range, or one of IPv4 and one of IPv6; {asked} were given"
    )]
    ServiceRanges {
        /// How many.
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

/// A server that is up, for what runs beside it in the same process.
pub(super) struct Served {
    /// Clients of it.
    pub transport: Transport,
    /// Where it listens.
    pub address: SocketAddr,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Agents in this process that have no port.
    pub agents: Arc<Agents>,
    /// TLS of what is served beside it in this process.
    pub tls: rustls::ServerConfig,
    /// Who asks there.
    pub authentication: Arc<Authentication>,
    /// Who may do what.
    pub authorizer: Arc<Authorizers>,
}

/// Serves until SIGTERM or SIGINT, and `beside` with it: that is told to end first.
pub(super) async fn serve<F>(
    arguments: Arguments,
    beside: impl FnOnce(Served, CancellationToken) -> F,
) -> Result<(), ServeError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let chosen = controllers::select(&arguments.controllers)?;
    let mut plugins = admission::chain(
        &arguments.enable_admission_plugins,
        &arguments.disable_admission_plugins,
        &admission::Settings {
            not_ready_seconds: arguments.default_not_ready_toleration_seconds,
            unreachable_seconds: arguments.default_unreachable_toleration_seconds,
        },
    )?;
    let address = SocketAddr::new(arguments.bind_address, arguments.secure_port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|cause| ServeError::Listen { address, cause })?;
    let port = listener
        .local_addr()
        .map_or(arguments.secure_port, |address| address.port());
    let store = if arguments.in_memory {
        store::memory()
    } else {
        open_store(&arguments.data_dir).await?
    };
    let advertised = arguments
        .advertise_address
        .unwrap_or_else(|| advertised(arguments.bind_address));
    let names = [arguments.bind_address, advertised].map(|address| address.to_string());
    let mut pki = Pki::open(&arguments.data_dir, names)?;
    let host = if arguments.bind_address.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        arguments.bind_address
    };
    let url = format!("https://{}", SocketAddr::new(host, port));
    let path = arguments.data_dir.join("kubeconfig");
    kubeconfig::write_admin(&path, &url, &pki)?;

    let settings = Settings {
        secure_port: port,
        issuer: arguments.identity.issuer(),
        service_ranges: both_versions(arguments.service_cluster_ip_range)?,
        node_ports: arguments.service_node_port_range,
        advertise_address: advertised,
        node_metrics: arguments.node_metrics,
        ..Settings::default()
    };
    let cluster = Arc::new(Cluster::new(store.clone(), settings));
    // Renewed with every start; an agent asks for it on each connection.
    let identity = pki.issue_client("kube-apiserver-kubelet-client", "system:masters", 365)?;
    let agents = Arc::new(Agents::default());
    let kubelets = Kubelets::new(&identity, agents.clone()).map_err(|cause| PkiError::Issue {
        what: "the identity towards nodes".into(),
        cause,
    })?;
    let authorizer = Arc::new(Authorizers::new(
        store.clone(),
        arguments.authorization_mode,
    ));
    plugins.push(Box::new(admission::grants::Grants(authorizer.clone())));
    let settings = &cluster.settings;
    let external = format!("{}:{port}", settings.advertise_address);
    let tokens = Arc::new(arguments.identity.tokens(
        store.clone(),
        &arguments.data_dir,
        &external,
    )?);
    let authentication = Arc::new(
        arguments
            .identity
            .authentication(&mut pki, tokens.clone())?,
    );
    let tls = pki.server_config(
        authentication
            .front_proxy
            .as_ref()
            .map(|proxy| &proxy.clients),
    )?;
    let ends = CancellationToken::new();
    let server = Arc::new(Server {
        cluster,
        authorizer: authorizer.clone(),
        impersonation: Impersonation::default(),
        tokens,
        authentication: authentication.clone(),
        plugins,
        version: version(),
        kubelets: Some(kubelets),
        node_metrics: arguments.node_metrics.then(NodeMetrics::default),
        documents: Default::default(),
        metrics: Arc::default(),
        in_flight: Default::default(),
        ends: ends.clone(),
    });
    crate::api::bootstrap::objects_of_a_new_cluster(&server).await;
    crate::api::own_service::ensure(&server).await;
    crate::api::flow_schemas::ensure(&server).await;
    if server.node_metrics.is_some() {
        node_metrics::ensure(&server).await;
    }
    let host = rustix::system::uname();
    let records = Records::new(
        &host.nodename().to_string_lossy(),
        arguments.identity.published(&pki)?,
    );
    records.ensure(&server).await;
    let api = server.clone();
    let transport = Transport::new(move |request, user| api.clone().handle(request, user));
    let manager = Manager::start(
        &chosen,
        &transport,
        controllers::Settings {
            root_ca: pki.ca_pem().to_owned(),
            pki: Some(Arc::new(pki)),
            tokens: Some(server.tokens.clone()),
            metrics: server.metrics.others.clone(),
        },
        CancellationToken::new(),
    );
    let definitions = tokio::spawn(crate::api::definitions::run(server.clone(), ends.clone()));
    let available = tokio::spawn(crate::api::available::run(server.clone(), ends.clone()));
    let own_service = tokio::spawn(crate::api::own_service::keep(server.clone(), ends.clone()));
    let flow_schemas = tokio::spawn(crate::api::flow_schemas::keep(server.clone(), ends.clone()));
    let own_records = tokio::spawn(records.keep(server.clone(), ends.clone()));
    let upkeep = tokio::spawn(store::upkeep::keep(store.clone(), ends.clone()));
    // Whoever reads that it serves may tell it to end.
    let ended = ended()?;
    announce(&url, &path);
    let serving = {
        let (tls, authentication) = (tls.clone(), authentication.clone());
        let ends = ends.clone();
        tokio::spawn(async move {
            listen::serve(&listener, tls, server, authentication, ends).await;
        })
    };
    let beside_ends = CancellationToken::new();
    let beside = tokio::spawn(beside(
        Served {
            transport: transport.clone(),
            address: SocketAddr::new(arguments.bind_address, port),
            agents,
            kubeconfig: std::path::absolute(&path).unwrap_or(path),
            tls,
            authentication: authentication.clone(),
            authorizer,
        },
        beside_ends.clone(),
    ));
    ended.await;
    beside_ends.cancel();
    if let Err(error) = beside.await {
        tracing::error!(%error, "what ran beside the API server broke");
    }
    tracing::info!("ending: no new connections, requests under way may finish");
    manager.stop().await;
    ends.cancel();
    let _ = serving.await;
    let _ = definitions.await;
    let _ = available.await;
    let _ = own_service.await;
    let _ = own_records.await;
    let _ = flow_schemas.await;
    let _ = upkeep.await;
    store.close().await;
    Ok(())
}

/// How long a store is waited for that another process has.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Opens the store. A process that was killed holds it for a moment longer than it is seen.
async fn open_store(directory: &Path) -> Result<Arc<dyn store::Store>, OpenError> {
    let begun = std::time::Instant::now();
    loop {
        match store::open(directory) {
            Err(error @ OpenError::InUse { .. }) if begun.elapsed() < PATIENCE => {
                tracing::debug!(%error, "waiting for it");
                tokio::time::sleep(PATIENCE / 50).await;
            }
            other => return other,
        }
    }
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

/// Reads `30000-32767`.
fn port_range(text: &str) -> Result<(u16, u16), String> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && first > 0).then_some((first, last))
    });
    ends.ok_or_else(|| "it must be FIRST-LAST, ports in order".to_owned())
}

/// Ranges that services can have together.
fn both_versions(ranges: Vec<Network>) -> Result<Vec<Network>, ServeError> {
    match &ranges[..] {
        [_] => Ok(ranges),
        [one, other] if one.address.is_ipv4() != other.address.is_ipv4() => Ok(ranges),
        _ => Err(ServeError::ServiceRanges {
            asked: ranges.len(),
        }),
    }
}

/// The address to tell others: the one that is listened on, or, where that is all of them, the one by which this
/// machine would reach another.
fn advertised(bound: IpAddr) -> IpAddr {
    if !bound.is_unspecified() {
        return bound;
    }
    // Nothing is sent: a connected socket only knows its own side.
    let own = || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    own().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Says where the server is, and what to type next.
fn announce(url: &str, kubeconfig: &Path) {
    let path = std::path::absolute(kubeconfig).unwrap_or_else(|_| kubeconfig.to_owned());
    super::say(&format!(
        "reddwarf serves {url}; now type:\n  export KUBECONFIG={}; kubectl get namespaces",
        path.display()
    ));
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

/// What `/version` says: upstream's version, since clients decide by it what they may ask for.
fn version() -> crate::schema::Value {
    crate::value!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": "v1.37.2",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26.8",
        "compiler": "gc",
        "platform": "linux/amd64"
    })
}
