//! Tests of the whole server, over HTTPS. One binary, since each links everything.

mod scenarios;
mod server;
mod wire;
