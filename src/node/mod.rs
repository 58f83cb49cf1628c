//! The node agent: a kubelet whose pods are zones.
//!
//! ```text
//!  API server --watch--> agent --newest pod--> worker (one a pod) --asks--> machine (pure) --actions--> worker
//!                          |                    ^   ^                                                     |
//!  runtime ----changes-----'--------------------'   '--- pulls, probes, hooks (tasks of the worker) <-----'
//! ```
//! State reaches a worker through `watch` channels (the newest counts), results of its tasks through a bounded queue.

pub mod agent;
pub mod events;
#[cfg(target_os = "linux")]
pub mod host;
#[cfg(target_os = "linux")]
pub mod images;
#[cfg(target_os = "linux")]
pub mod kubelet;
pub mod machine;
mod probes;
pub mod register;
mod report;
pub mod simulated;
pub mod supplies;
mod worker;

use std::sync::Arc;

use crate::zone::ZoneName;

/// Who may ask the node's own API: a judge of headers and client certificates, who refuses with 401 or 403.
pub type Allowed = Arc<
    dyn Fn(&http::HeaderMap, &[rustls::pki_types::CertificateDer<'static>]) -> Result<(), u16>
        + Send
        + Sync,
>;

/// The name of a pod's zone: `rd-` and its uid.
pub fn zone_name(uid: &str) -> ZoneName {
    let plain: String = uid
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(60)
        .collect();
    ZoneName::new(&format!("rd-{plain}")).expect("`rd-` and up to 60 plain characters are legal")
}
