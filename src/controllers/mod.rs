//! Controllers: programs that bring the cluster to what its objects ask for. Each reaches the API only through a
//! [`kube::Client`], as an identity of its own, and would run the same over HTTPS.
//!
//! A controller is a file: a `run` that fills a [`queue::Queue`] from shared [`informer::Informers`], and pure
//! functions that decide what is to be done about one key.

pub mod client;
pub mod follow;
pub mod informer;
pub mod manager;
mod names;
pub mod queue;

mod account_tokens;
mod autoscaling;
mod ca_publisher;
mod certificates;
mod cluster_roles;
mod cron_jobs;
mod daemon_sets;
mod deployments;
pub mod discovery;
mod disruption;
mod endpoints;
pub mod errors;
pub mod events;
mod garbage;
pub mod history;
pub mod index;
mod jobs;
pub mod kinds;
mod namespaces;
mod node_lifecycle;
mod node_ttl;
pub mod owners;
mod pod_garbage;
pub mod pods;
mod quotas;
mod replicas;
pub mod selector;
mod service_accounts;
mod stateful_sets;
mod taint_eviction;
mod ttl_after_finished;
mod volumes;
mod workload;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use names::{CONTROLLERS, UnknownController, select};

/// What a controller works with.
#[derive(Clone)]
pub struct Context {
    /// The API, as this controller.
    pub client: kube::Client,
    /// The caches that controllers share.
    pub informers: informer::Informers,
    /// The way in for events.
    pub events: events::Events,
    /// Facts about the cluster.
    pub settings: Arc<Settings>,
    /// When to end.
    pub ends: CancellationToken,
}

/// Facts about the cluster that controllers need.
#[derive(Clone, Default)]
pub struct Settings {
    /// The certificates that clients in the cluster trust, in PEM.
    pub root_ca: String,
    /// Who signs certificates; none where nobody does.
    pub pki: Option<Arc<crate::auth::pki::Pki>>,
    /// Who signs tokens of service accounts; none where nobody does.
    pub tokens: Option<Arc<crate::auth::tokens::Tokens>>,
    /// Where controllers tell what they count.
    pub metrics: crate::meta::prometheus::Sources,
}

/// A controller by its upstream name.
pub struct Controller {
    /// `deployment-controller`
    pub name: &'static str,
    /// Older names that `--controllers` takes too; separated by spaces.
    pub aliases: &'static str,
    /// Whether `*` means it too.
    pub default: bool,
    /// Who it is, and the program; none for a controller that is not in this server.
    pub program: Option<(Identity, Program)>,
}

/// Who a controller is to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A service account in kube-system.
    Account(&'static str),
    /// A user `system:NAME`; NAME is also what it is called as a manager of fields.
    User(&'static str),
}

/// Runs until its context ends.
pub type Program = fn(Context) -> BoxFuture<'static, ()>;
