//! Controllers: programs that bring the cluster to what its objects ask for. Each reaches the API only through a
//! [`kube::Client`], as an identity of its own, and would run the same over HTTPS.
//!
//! A controller is a file: a `run` that fills a [`Queue`](crate::client::queue::Queue) from shared
//! [`Informers`](crate::client::informer::Informers), and pure functions that decide what is to be done about one key.

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
