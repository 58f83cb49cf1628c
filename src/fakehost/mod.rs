//! A fake illumos host, for tests on any platform.
//!
//! [`Machine`] is a directory that contains such a host: its state as one value ([`Host`]), its zone configurations as
//! zonecfg(8) stores them, and the files of its datasets at their mountpoints. Every tool is a grammar and a transition
//! of that value; [`Run`] is the environment of a running tool: the value under the host's lock, and the points between
//! two steps at which it can be killed, stalled or overtaken, like the real one.
//!
//! ```text
//! ROOT/etc/zones            configurations and the index        ROOT/var/fakehost/host.json    everything else
//! ROOT/usr/lib/brand        brands                              ROOT/var/fakehost/data/ID      unmounted datasets, snapshots
//! ROOT/tank/...             mounted datasets                    ROOT/var/fakehost/log          the start and end of each command
//! ```

/// Exit statuses of the zone tools.
pub mod exit {
    /// Success.
    pub const OK: i32 = 0;
    /// An error.
    pub const ERROR: i32 = 1;
    /// An invalid command line.
    pub const USAGE: i32 = 2;
    /// The fake host does not implement this feature of the real tool.
    pub const NOT_PLAYED: i32 = 70;
}

mod control;
mod controls;
mod disk;
mod dladm;
mod events;
mod faults;
mod getopt;
mod host;
mod inside;
mod ipadm;
mod machine;
mod nat;
mod ofmt;
mod packets;
mod privileges;
mod real;
mod run;
mod smf;
mod statistics;
pub mod store;
#[cfg(test)]
mod tests;
mod tools;
pub mod xml;
mod zfs;
mod zlogin;
mod zoneadm;
pub mod zonecfg;

pub use control::init;
pub use disk::Disk;
pub use faults::{Action, Fault, When};
pub use host::*;
pub use inside::supervise;
pub use machine::{Layout, Machine};
pub use packets::{Packet, Table};
pub use run::{Run, Stop};
pub use tools::{TOOLS, reads_stdin};
#[cfg(test)]
pub use zfs::with_zone;

/// The output of a tool, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// The exit status; meaningless if it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Whether it was killed by `SIGKILL`.
    pub killed: bool,
}
