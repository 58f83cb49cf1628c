//! Controllers: programs that bring the cluster to the state that its objects describe. Each uses the API only through
//! a [`kube::Client`], with its own identity, and would work the same over HTTPS.
//!
//! A controller is a file with a `run` that fills a [`Queue`](crate::client::queue::Queue) from shared
//! [`Informers`](crate::client::informer::Informers), and pure functions that decide what to do about one key.

pub mod manager;
mod names;

mod account_tokens;
mod autoscaling;
mod bootstrap_tokens;
mod ca_publisher;
mod certificates;
mod cluster_roles;
mod cron_jobs;
mod daemon_sets;
mod deployments;
mod disruption;
mod endpoints;
mod garbage;
pub mod history;
mod jobs;
mod namespaces;
mod node_lifecycle;
mod node_ttl;
mod pod_garbage;
pub mod pods;
mod quotas;
mod replicas;
mod service_accounts;
mod stateful_sets;
mod taint_eviction;
mod ttl_after_finished;
mod volumes;
mod workload;

use futures::future::BoxFuture;

use crate::client::Context;

pub use names::{CONTROLLERS, UnknownController, select};

/// A controller, by its upstream name.
pub struct Controller {
    /// `deployment-controller`
    pub name: &'static str,
    /// Older names that `--controllers` also accepts, separated by spaces.
    pub aliases: &'static str,
    /// Whether `*` includes it.
    pub default: bool,
    /// Its identity and program; None for a controller that this server does not have.
    pub program: Option<(Identity, Program)>,
}

/// The identity of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A service account in kube-system.
    Account(&'static str),
    /// A user `system:NAME`; NAME is also its field manager.
    User(&'static str),
}

/// Runs until its context ends.
pub type Program = fn(Context) -> BoxFuture<'static, ()>;
