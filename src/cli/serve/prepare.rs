//! Opens and checks everything that a server consists of: nothing runs yet, but the listener queues connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Arguments, ServeError};
use crate::admission::{self, Plugin};
use crate::api::actions::kubelet::{Agents, Kubelets};
use crate::api::flow::{Flow, Limits};
use crate::api::metrics::Metrics;
use crate::api::node_metrics::NodeMetrics;
use crate::api::own_records::Records;
use crate::api::server::Server;
use crate::auth::MASTERS;
use crate::auth::authorize::Authorizers;
use crate::auth::impersonate::Impersonation;
use crate::auth::kubeconfig;
use crate::auth::pki::{Issued, Pki, PkiError};
use crate::blocking::patiently;
use crate::controllers::{self, Controller};
use crate::meta::addresses::Network;
use crate::meta::{time, version};
use crate::resources::cluster::{Cluster, Settings};
use crate::schema::Object;
use crate::store::{self, OpenError, Store};
use crate::supervise::Supervisor;

/// A server that is not started.
pub(super) struct Prepared {
    /// The controllers to run.
    pub controllers: Vec<&'static Controller>,
    /// Where it listens.
    pub listener: TcpListener,
    /// The address that was asked for, with the port that was given.
    pub address: SocketAddr,
    /// Its URL on this host.
    pub url: String,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its keys and certificates.
    pub pki: Arc<Pki>,
    /// How long certificates are valid that are asked for, in seconds.
    pub signing_seconds: i64,
    /// What its listener shows, and takes.
    pub tls: rustls::ServerConfig,
    /// The nodes in this process.
    pub agents: Arc<Agents>,
    /// The API.
    pub server: Arc<Server>,
    /// The server's own objects in the cluster.
    pub records: Records,
    /// Its tasks, not started yet.
    pub tasks: Supervisor,
}

impl Prepared {
    /// Opens everything that the command line names.
    ///
    /// # Errors
    /// [`ServeError`]: what failed, and what to do.
    pub(super) async fn open(arguments: Arguments) -> Result<Self, ServeError> {
        let controllers = controllers::select(&arguments.controllers)?;
        let mut plugins = plugins(&arguments)?;
        let service_ranges = both_versions(&arguments.service_cluster_ip_range)?;
        let (listener, address) = listen(&arguments).await?;
        let port = address.port();
        let store = match arguments.in_memory {
            true => store::memory(),
            false => {
                let is_held = |error: &OpenError| matches!(error, OpenError::InUse { .. });
                // Nothing else is done yet that it could hold up.
                patiently(is_held, || store::open(&arguments.data_dir))?
            }
        };
        let advertised = arguments
            .advertise_address
            .unwrap_or_else(|| advertised(arguments.bind_address));
        let own = [arguments.bind_address, advertised].map(|address| address.to_string());
        let names = own.iter().chain(&arguments.tls_san);
        let mut pki = Pki::open(&arguments.data_dir, names)?;
        let url = url(address);
        let kubeconfig = arguments.data_dir.join("kubeconfig");
        kubeconfig::write_admin(&kubeconfig, &url, &pki)?;
        let settings = Settings {
            secure_port: port,
            issuer: arguments.identity.issuer(),
            service_ranges,
            node_ports: arguments.service_node_port_range,
            advertise_address: advertised,
            node_metrics: arguments.node_metrics,
            ..Settings::default()
        };
        let external = format!("{advertised}:{port}");
        let identity = &arguments.identity;
        let tokens = identity.tokens(store.clone(), &arguments.data_dir, &external)?;
        let tokens = Arc::new(tokens);
        let authentication = Arc::new(identity.authentication(&mut pki, tokens.clone())?);
        let front_proxy = authentication.front_proxy.as_ref();
        let tls = pki.server_config(front_proxy.map(|proxy| &proxy.clients))?;
        let records = records(identity.published(&pki)?);
        let (agents, kubelets) = kubelets(&pki)?;
        let flow = flow(&arguments)?;
        let modes = arguments.authorization_mode;
        let authorizer = Arc::new(Authorizers::new(store.clone(), modes));
        plugins.push(Box::new(admission::grants::Grants(authorizer.clone())));
        let metrics = Arc::new(Metrics::default());
        let told = flow.clone();
        metrics
            .others
            .set("flow control", move |out| told.tell(out));
        let ends = CancellationToken::new();
        let tasks = Supervisor::new(ends.clone());
        let server = Arc::new(Server {
            cluster: Arc::new(Cluster::new(store.clone(), settings)),
            authorizer,
            impersonation: Impersonation::default(),
            tokens,
            authentication,
            plugins,
            version: told_version(),
            kubelets: Some(kubelets),
            node_metrics: arguments.node_metrics.then(NodeMetrics::default),
            documents: Default::default(),
            metrics,
            flow,
            tasks: tasks.health(),
            ends,
        });
        Ok(Prepared {
            controllers,
            listener,
            address,
            url,
            kubeconfig,
            store,
            pki: Arc::new(pki),
            signing_seconds: arguments.cluster_signing_duration,
            tls,
            agents,
            server,
            records,
            tasks,
        })
    }
}

/// The admission plugins, in order.
fn plugins(arguments: &Arguments) -> Result<Vec<Box<dyn Plugin>>, ServeError> {
    let settings = admission::Settings {
        not_ready_seconds: arguments.default_not_ready_toleration_seconds,
        unreachable_seconds: arguments.default_unreachable_toleration_seconds,
    };
    let (on, off) = (
        &arguments.enable_admission_plugins,
        &arguments.disable_admission_plugins,
    );
    Ok(admission::chain(on, off, &settings)?)
}

/// How many requests are answered at once.
fn flow(arguments: &Arguments) -> Result<Flow, ServeError> {
    let limits = Limits {
        fair: arguments.enable_priority_and_fairness,
        reading: arguments.max_requests_inflight,
        changing: arguments.max_mutating_requests_inflight,
    };
    if limits.fair && limits.reading + limits.changing == 0 {
        return Err(ServeError::InFlight);
    }
    Ok(Flow::new(limits))
}

/// Starts to listen; returns the actual address, because the port may be any free one.
async fn listen(arguments: &Arguments) -> Result<(TcpListener, SocketAddr), ServeError> {
    let address = SocketAddr::new(arguments.bind_address, arguments.secure_port);
    let failed = |cause| ServeError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, SocketAddr::new(address.ip(), port)))
}

/// The URL at which this host reaches a listening address.
fn url(address: SocketAddr) -> String {
    let host = match address.ip().is_unspecified() {
        true => IpAddr::V4(Ipv4Addr::LOCALHOST),
        false => address.ip(),
    };
    format!("https://{}", SocketAddr::new(host, address.port()))
}

/// The way to nodes, and agents in this process, which have none yet. The identity is renewed while the server runs; an
/// agent asks for it on each connection.
fn kubelets(pki: &Pki) -> Result<(Arc<Agents>, Kubelets), ServeError> {
    let agents = Arc::new(Agents::default());
    let kubelets =
        Kubelets::new(&towards_nodes(pki, time::now())?, agents.clone()).map_err(unusable)?;
    Ok((agents, kubelets))
}

/// Who this server is to nodes, from `now` on for a year.
pub(super) fn towards_nodes(pki: &Pki, now: i64) -> Result<Issued, PkiError> {
    pki.issue_client("kube-apiserver-kubelet-client", MASTERS, now, 365)
}

/// TLS does not take that.
pub(super) fn unusable(cause: String) -> PkiError {
    PkiError::Issue {
        what: "the identity towards nodes".into(),
        cause,
    }
}

/// The server's own objects in the cluster; `trust` is the data of `extension-apiserver-authentication`.
fn records(trust: Object) -> Records {
    let host = rustix::system::uname();
    Records::new(&host.nodename().to_string_lossy(), trust)
}

/// Ranges that services can have together.
fn both_versions(ranges: &[Network]) -> Result<Vec<Network>, ServeError> {
    match ranges {
        [_] => Ok(ranges.to_vec()),
        [one, other] if one.address.is_ipv4() != other.address.is_ipv4() => Ok(ranges.to_vec()),
        _ => Err(ServeError::ServiceRanges {
            asked: ranges.len(),
        }),
    }
}

/// The address to advertise: the one that is listened on, or, if that is the wildcard, the one from which this machine
/// would reach another.
fn advertised(bound: IpAddr) -> IpAddr {
    if !bound.is_unspecified() {
        return bound;
    }
    let towards = Ipv4Addr::new(192, 0, 2, 1);
    crate::net::own_address(towards).unwrap_or_else(|| {
        tracing::warn!(
            "this machine has no external address, so the service kubernetes has no endpoint; set one with --advertise-address"
        );
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    })
}

/// The content of `/version`: upstream's version, because clients use it to decide what they may request.
fn told_version() -> crate::schema::Value {
    crate::value!({
        "major": (version::MAJOR),
        "minor": (version::MINOR),
        "emulationMajor": (version::MAJOR),
        "emulationMinor": (version::MINOR),
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": (version::UPSTREAM),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26.8",
        "compiler": "gc",
        "platform": (version::platform())
    })
}
