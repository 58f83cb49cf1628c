//! Addresses of pods, and what leads to them. Knows no Kubernetes types: who holds an address is a text.

pub mod illumos;
mod ipam;
mod names;
pub mod routes;
pub mod services;

pub use ipam::{Ipam, IpamError, Lease};
pub use names::{link_name, mac_address};
