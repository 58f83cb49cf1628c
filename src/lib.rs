//! reddwarf: the Kubernetes API for a host of zones, in one binary.
//!
//! Arrows point down this list and never up: `cli → {api, controllers} → {scheduler, node} → client →
//! {resources, auth, admission, patch, schema, meta} → store`, and `node → {zone, storage, net} → illumos`. `dial`, `listen`
//! and `websocket` are below `api` and `node`, `blocking` below whatever works on files, `supervise` below whatever has tasks
//! that must not stop.

pub mod admission;
pub mod api;
pub mod auth;
mod blocking;
#[doc(hidden)]
pub mod cli;
pub mod client;
pub mod controllers;
mod descriptors;
mod dial;
pub mod fakehost;
pub mod illumos;
pub mod listen;
pub mod meta;
pub mod net;
pub mod node;
pub mod patch;
mod private;
pub mod resources;
pub mod scheduler;
pub mod schema;
pub mod storage;
pub mod store;
pub mod supervise;
mod websocket;
pub mod zone;
