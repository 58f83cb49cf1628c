//! zonecfg: the command interpreter of zone configurations.
//!
//! The rules follow illumos' `usr/src/cmd/zonecfg` and `libzonecfg`: what is kept after an error, what exits with 0 in
//! spite of a message, what is lost without a final newline. All cases recorded from the real program
//! (`tests/illumos/zonecfg.jsonl`) give the same result.

mod adding;
mod doc;
mod ending;
mod global;
mod lexer;
mod parser;
mod removing;
mod resource;
mod session;
mod setting;
mod show;
mod verify;

#[cfg(test)]
mod tests;

use std::path::Path;

use super::store::ConfigStore;
use super::{Reply, exit};
use session::{Mode, Session};

pub use doc::{valid_dataset_name, valid_link_name, valid_zone_name};

/// Global properties that `info` shows after those of every zone, in order.
const Z_GLOBAL: &[&str] = &[
    "pool",
    "limitpriv",
    "scheduling-class",
    "ip-type",
    "hostid",
    "fs-allowed",
    "max-lwps",
    "max-processes",
    "max-shm-memory",
    "max-shm-ids",
    "max-msg-ids",
    "max-sem-ids",
    "cpu-shares",
    "zfs-io-priority",
];

/// The distribution whose zonecfg is implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Flavour {
    /// OmniOS, with `global-nic`, `mac-addr`, `vlan-id`, `property` and `zfs-io-priority`.
    #[default]
    Omnios,
    /// illumos-gate of 2022.
    Gate,
}

/// The host as seen by zonecfg.
pub trait Host {
    /// The kernel's name of a running zone's state (`ready`, `running`, ...).
    fn kernel_state(&self, zone: &str) -> Option<&'static str>;
    /// Whether the brand is installed and well-formed.
    fn has_brand(&self, brand: &str) -> bool;
    /// The brand's own check of a document.
    fn verify_brand(&self, document: &super::xml::Element) -> Result<(), String>;
    /// Checks whether a zone of the document's brand can have the requested privileges; otherwise returns the name of
    /// the first one that is unknown, prohibited or missing.
    fn verify_privileges(&self, document: &super::xml::Element) -> Result<(), String>;
    /// The configurations in an alternate root.
    fn alternate(&self, root: &Path) -> ConfigStore;
    /// Reads a file named on the command line.
    fn read_file(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    /// Writes a file named by a command.
    fn write_file(&self, path: &Path, text: &str) -> std::io::Result<()>;
    /// Whether a directory exists.
    fn is_directory(&self, path: &Path) -> bool;
}

/// The file with the configuration of a detached zone, in its zonepath.
pub const DETACHED: &str = "SUNWdetached.xml";

/// Runs `zonecfg args...` against a configuration store.
pub fn run(
    host: &dyn Host,
    store: &ConfigStore,
    flavour: Flavour,
    args: &[String],
    stdin: &[u8],
) -> Reply {
    let mut session = Session::new(host, store, flavour);
    let code = session.main(args, stdin);
    Reply {
        code: code.unwrap_or(exit::ERROR),
        stdout: session.out.into_bytes(),
        stderr: session.err.into_bytes(),
        ..Reply::default()
    }
}

impl Mode {
    fn file_name(&self) -> Option<&str> {
        match self {
            Self::File(name) => Some(name),
            _ => None,
        }
    }

    /// The position of a line, if messages include it.
    fn place(&self, line: u32) -> Option<String> {
        match self {
            Self::File(name) => Some(format!("line {line} of {name}")),
            Self::Stdin { numbered: true } => Some(format!("line {line}")),
            Self::Stdin { numbered: false } | Self::Args => None,
        }
    }
}
