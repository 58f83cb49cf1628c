//! What every program that works on the cluster is made of: a client, caches that all share, a queue, events.
//! Controllers, scheduler and nodes stand on it, and it knows none of them. Follows k8s.io/client-go/tools.

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
pub use transport::{Transport, write};
