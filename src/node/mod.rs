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
pub mod machine;
mod probes;
pub mod register;
mod report;
pub mod simulated;
pub mod supplies;
mod worker;

use crate::zone::ZoneName;

/// The name of a pod's zone: `rd-` and its uid.
pub fn zone_name(uid: &str) -> ZoneName {
    let plain: String = uid
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(60)
        .collect();
    ZoneName::new(&format!("rd-{plain}")).expect("`rd-` and up to 60 plain characters are legal")
}
