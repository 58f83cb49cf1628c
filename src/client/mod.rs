//! The building blocks of every program that works on the cluster: clients, shared caches, queues, events. Controllers,
//! scheduler and nodes use them; nothing here depends on those. Follows k8s.io/client-go/tools.

mod changing;
mod context;
pub mod discovery;
pub mod errors;
pub mod events;
pub mod follow;
pub mod index;
pub mod informer;
pub mod kinds;
pub mod owners;
pub mod queue;
pub mod selector;
mod transport;

pub use changing::Changing;
pub use context::{Context, Settings};
pub use transport::{Transport, write, write_for_version};
