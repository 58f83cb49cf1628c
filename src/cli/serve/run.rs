//! A running server, and its shutdown in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::prepare::Prepared;
use super::renew::{self, Renewal};
use crate::api::actions::kubelet::Agents;
use crate::api::aside::{self, Aside};
use crate::api::authenticate::Authentication;
use crate::api::flow::stored;
use crate::api::own_records::{self, Records};
use crate::api::server::Server;
use crate::api::{
    available, bootstrap, definitions, listen, node_metrics, own_service, registered, used,
};
use crate::auth::authorize::Authorizers;
use crate::auth::pki::Issued;
use crate::client::{Settings, Transport};
use crate::controllers::manager::Manager;
use crate::meta::time;
use crate::store::{Store, upkeep};
use crate::supervise::Supervisor;

/// A running server, as seen by the other parts of the process.
pub(in crate::cli) struct Served {
    /// Makes clients of it.
    pub transport: Transport,
    /// Where it listens.
    pub address: SocketAddr,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The nodes in this process, which have no port.
    pub agents: Arc<Agents>,
    /// The TLS configuration for other listeners in this process.
    pub tls: rustls::ServerConfig,
    /// Authenticates requests there.
    pub authentication: Arc<Authentication>,
    /// Authorizes requests there.
    pub authorizer: Arc<Authorizers>,
}

/// A server whose controllers and tasks run, before it accepts requests from others.
pub(super) struct Running {
    listener: TcpListener,
    url: String,
    served: Served,
    server: Arc<Server>,
    listening: Listening,
}

/// What has to end, in order: controllers, then the server's own tasks, including the listener, then the store.
pub(super) struct Listening {
    manager: Manager,
    tasks: Supervisor,
    store: Arc<dyn Store>,
}

impl Running {
    /// Creates the objects of a new cluster, and starts controllers and tasks.
    pub(super) async fn start(prepared: Prepared) -> Running {
        let server = prepared.server;
        bootstrap::objects_of_a_new_cluster(&server).await;
        own_service::ensure(&server).await;
        stored::ensure(&server).await;
        if server.node_metrics.is_some() {
            node_metrics::ensure(&server).await;
        }
        prepared.records.ensure(&server).await;
        let api = server.clone();
        let aside = Aside::default();
        let transport = Transport::new(move |request, user| {
            let is_large = aside::is_large(&request);
            aside.answer(is_large, api.clone().handle(request, Ok(user)))
        });
        let manager = Manager::start(
            &prepared.controllers,
            &transport,
            Settings {
                root_ca: prepared.pki.ca_pem().to_owned(),
                pki: Some(prepared.pki.clone()),
                signing_seconds: prepared.signing_seconds,
                tokens: Some(server.tokens.clone()),
                metrics: server.metrics.others.clone(),
            },
            CancellationToken::new(),
        );
        keep(&prepared.tasks, &server, prepared.records, &prepared.store);
        let renewal = Arc::new(Renewal {
            pki: prepared.pki,
            kubeconfig: prepared.kubeconfig.clone(),
            url: prepared.url.clone(),
            identify: Box::new({
                let server = server.clone();
                move |issued: &Issued| match &server.kubelets {
                    Some(kubelets) => kubelets.identify(issued),
                    None => Ok(()),
                }
            }),
            clock: Box::new(time::now),
        });
        prepared.tasks.keep(renew::TASK, move |ends| {
            let renewal = renewal.clone();
            async move { renewal.keep(ends).await }
        });
        Running {
            listener: prepared.listener,
            url: prepared.url,
            served: Served {
                transport,
                address: prepared.address,
                kubeconfig: std::path::absolute(&prepared.kubeconfig)
                    .unwrap_or(prepared.kubeconfig),
                agents: prepared.agents,
                tls: prepared.tls,
                authentication: server.authentication.clone(),
                authorizer: server.authorizer.clone(),
            },
            server,
            listening: Listening {
                manager,
                tasks: prepared.tasks,
                store: prepared.store,
            },
        }
    }

    /// Starts to accept requests, and logs it.
    pub(super) fn listen(self) -> (Served, Listening) {
        crate::cli::say(&format!(
            "reddwarf serves {}; now type:\n  export KUBECONFIG={}; kubectl get namespaces",
            self.url,
            self.served.kubeconfig.display()
        ));
        let shared = Arc::new((self.listener, self.served.tls.clone(), self.server));
        self.listening.tasks.keep("listener", move |ends| {
            let shared = shared.clone();
            async move {
                let (listener, tls, server) = &*shared;
                let authentication = server.authentication.clone();
                listen::serve(listener, tls.clone(), server.clone(), authentication, ends).await;
            }
        });
        (self.served, self.listening)
    }
}

impl Listening {
    /// Shuts everything down; running requests may finish.
    pub(super) async fn end(self) {
        tracing::info!("shutting down: accepting no new connections, running requests may finish");
        self.manager.stop().await;
        self.tasks.end().await;
        self.store.close().await;
    }
}

/// Starts the server's own tasks.
fn keep(tasks: &Supervisor, server: &Arc<Server>, records: Records, store: &Arc<dyn Store>) {
    let keep = |name, run: fn(Arc<Server>, CancellationToken) -> BoxFuture<'static, ()>| {
        let server = server.clone();
        tasks.keep(name, move |ends| run(server.clone(), ends));
    };
    keep(definitions::TASK, |server, ends| {
        definitions::keep(server, ends).boxed()
    });
    keep(available::TASK, |server, ends| {
        available::keep(server, ends).boxed()
    });
    keep(registered::TASK, |server, ends| {
        registered::keep(server, ends).boxed()
    });
    keep(used::TASK, |server, ends| used::keep(server, ends).boxed());
    keep(own_service::TASK, |server, ends| {
        own_service::keep(server, ends).boxed()
    });
    keep(stored::TASK, |server, ends| {
        stored::keep(server, ends).boxed()
    });
    let (records, server) = (Arc::new(records), server.clone());
    tasks.keep(own_records::TASK, move |ends| {
        let (records, server) = (records.clone(), server.clone());
        async move { records.keep(server, ends).await }
    });
    let store = store.clone();
    tasks.keep(upkeep::TASK, move |ends| upkeep::keep(store.clone(), ends));
}
