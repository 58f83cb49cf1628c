//! A host that answers as an illumos host does, for tests on any platform.

/// Exit statuses of the zone tools.
pub mod exit {
    /// Done.
    pub const OK: i32 = 0;
    /// Refused or failed.
    pub const ERROR: i32 = 1;
    /// A wrong command line.
    pub const USAGE: i32 = 2;
}

pub mod store;
pub mod xml;
pub mod zonecfg;

/// What a tool printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}
