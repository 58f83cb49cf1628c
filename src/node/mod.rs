//! The node agent: a kubelet whose pods are zones.
//!
//! ```text
//!  API server --watch--> agent --newest pod--> worker (one per pod) -asks-> machine (pure) --actions--> worker
//!                          |                    ^   ^                                                     |
//!  runtime ----changes-----'--------------------'   '--- pulls, probes, hooks (tasks of the worker) <-----'
//! ```
//! State reaches a worker through `watch` channels (the newest counts), results of its tasks through a bounded queue.

pub mod addresses;
pub mod agent;
mod allocations;
pub mod certificates;
pub mod describe;
pub mod dns;
mod failing;
pub mod host;
pub mod images;
pub mod kubelet;
pub mod machine;
pub mod pod_certificates;
pub mod pressure;
mod probes;
pub mod ranges;
pub mod register;
mod report;
pub mod routes;
pub mod services;
mod shown;
pub mod simulated;
pub mod supplies;
pub mod sysctls;
pub mod volumes;
mod worker;

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::auth::{Attributes, User};
use crate::zone::ZoneName;

/// Authenticates a request by its headers; None if its credentials are invalid.
pub type Who = Box<dyn Fn(&http::HeaderMap) -> BoxFuture<'static, Option<User>> + Send + Sync>;
/// Authenticates the requests of a connection, given its client certificates.
pub type Authenticate =
    Arc<dyn Fn(Vec<rustls::pki_types::CertificateDer<'static>>) -> Who + Send + Sync>;
/// Whether a user may do something.
pub type Allow = Arc<dyn Fn(&User, &Attributes<'_>) -> BoxFuture<'static, bool> + Send + Sync>;

/// The name of a pod's zone: `rd-` and its uid.
pub fn zone_name(uid: &str) -> ZoneName {
    let plain: String = uid
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(60)
        .collect();
    ZoneName::new(&format!("rd-{plain}")).expect("`rd-` and up to 60 plain characters are legal")
}
