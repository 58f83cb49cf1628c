//! Tests of the whole server, over HTTPS. One binary, since each links everything.

mod fakehost;
mod flow;
mod join;
mod noise;
mod programs;
mod random;
mod scenarios;
mod server;
mod shared;
mod start;
mod watches;
mod wire;
