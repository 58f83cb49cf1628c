//! The HTTP side: maps requests to verbs, and objects and errors to bytes. Knows no kind by name.

pub mod actions;
pub mod aside;
pub mod authenticate;
pub mod available;
mod body;
pub mod bootstrap;
pub mod cached_documents;
pub mod custom;
pub mod definitions;
pub mod discovery;
pub mod documents;
mod first_line;
pub mod flow;
pub mod health;
pub mod listen;
pub mod metrics;
pub mod negotiate;
pub mod node_metrics;
pub mod openapi;
mod own_client;
pub mod own_records;
pub mod own_service;
pub mod pieces;
mod plain_text;
pub mod query;
pub mod read;
mod reconcile;
pub mod registered;
mod render;
pub mod reply;
pub mod request_info;
mod route;
pub mod server;
pub mod table;
pub mod used;
pub mod verbs;
mod watch_websocket;

/// Why a body broke off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
