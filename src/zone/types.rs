//! The values that describe zones and processes.

mod process;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::process::{
    CAPABILITIES, Ending, ExecSpec, Identity, Process, ProcessId, ProcessSpec, Rights, Signal,
    SignalNumber, System, USUAL_CAPABILITIES,
};

/// The name of a zone: 1 to 63 of `[a-zA-Z0-9_.-]`, a letter or digit first, not `global` and not beginning with
/// `SUNW` (zonecfg(8)). Linux has no rule of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ZoneName(String);

impl ZoneName {
    /// A name; None if it is invalid.
    pub fn new(name: &str) -> Option<Self> {
        let legal = !name.is_empty()
            && name.len() <= 63
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
            && name != "global"
            && !name.starts_with("SUNW");
        legal.then(|| ZoneName(name.into()))
    }
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ZoneName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The network of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZoneNetwork {
    /// The host's own network stack.
    Host,
    /// Its own network stack with one interface.
    Own {
        /// The address of the interface.
        address: IpAddr,
        /// The prefix length of the network.
        prefix: u8,
        /// The default route.
        gateway: IpAddr,
        /// The MAC address, `02:…`.
        mac: String,
        /// The name of the link on the host's side; a legal VNIC name.
        link: String,
        /// Ports of the host that lead into the zone.
        ports: Vec<HostPort>,
        /// The bandwidth limit of the link, in bits per second, if the platform supports that.
        #[serde(default)]
        bandwidth: Option<u64>,
    },
}

/// A host port that leads to a port of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The host's listening address; None for all.
    pub host_address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The zone's port.
    pub zone: u16,
}

/// The specification of a zone. Except for its limits it never changes once the zone is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneSpec {
    /// Its name on the host.
    pub name: ZoneName,
    /// The caller's own data; kept and returned without interpretation.
    pub labels: BTreeMap<String, String>,
    /// The host name inside the zone.
    pub hostname: String,
    /// Its network.
    pub network: ZoneNetwork,
    /// The brand, as the platform names it; None for the platform's default.
    #[serde(default)]
    pub brand: Option<String>,
    /// Processes see the host's processes (`hostPID`).
    pub host_processes: bool,
    /// System V and POSIX IPC are the host's (`hostIPC`).
    pub host_ipc: bool,
    /// The containers of the zone see one another's processes.
    pub shared_processes: bool,
    /// Namespaced sysctls, `net.ipv4.ip_forward = 1`.
    pub sysctls: BTreeMap<String, String>,
    /// Directories and files of the host that processes of the zone will mount, besides those of the zone itself.
    #[serde(default)]
    pub shares: Vec<PathBuf>,
    /// Datasets that are delegated to the zone, if the platform supports it: it mounts them itself.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// Directories in memory that exist for one boot, by path on the host, each with its size limit in bytes.
    pub memory_directories: BTreeMap<PathBuf, Option<u64>>,
    /// The group that these directories and everything made in them belong to, if any.
    #[serde(default)]
    pub memory_group: Option<u32>,
    /// Limits of all processes together.
    pub limits: Limits,
}

impl ZoneSpec {
    /// A zone with a network, and default values for everything else.
    pub fn new(name: ZoneName, network: ZoneNetwork) -> Self {
        ZoneSpec {
            name,
            labels: BTreeMap::new(),
            hostname: String::new(),
            network,
            brand: None,
            host_processes: false,
            host_ipc: false,
            shared_processes: false,
            sysctls: BTreeMap::new(),
            shares: Vec::new(),
            datasets: Vec::new(),
            memory_directories: BTreeMap::new(),
            memory_group: None,
            limits: Limits::default(),
        }
    }
}

/// The state of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZoneState {
    /// A step of its creation or removal failed; only deletion is possible.
    Incomplete,
    /// It can be booted.
    Installed,
    /// Processes can be started in it.
    Running,
    /// It is running but cannot be reached (yet): its supervisor has not connected.
    Unreachable,
}

impl std::fmt::Display for ZoneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ZoneState::Incomplete => "incomplete",
            ZoneState::Installed => "installed",
            ZoneState::Running => "running",
            ZoneState::Unreachable => "unreachable",
        })
    }
}

/// The observed state of a zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its specification.
    pub spec: ZoneSpec,
    /// Its state.
    pub state: ZoneState,
    /// Identifies the boot; None if it does not run. A different value means that everything in it ended.
    pub boot: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Its processes, oldest generation first.
    pub processes: Vec<Process>,
}

/// Limits of a process or a zone. None means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The share of contended CPUs, in units of cgroup v1: 1024 stands for one CPU.
    pub cpu_shares: Option<u64>,
    /// The CPU limit in millicores.
    pub cpu_millis: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// The number of processes and threads.
    pub pids: Option<u64>,
    /// The kernel's OOM score adjustment, -1000 to 1000.
    pub oom_score: Option<i32>,
}

impl Limits {
    /// These limits, with missing ones taken from `others`.
    pub fn or(&self, others: &Limits) -> Limits {
        Limits {
            cpu_shares: self.cpu_shares.or(others.cpu_shares),
            cpu_millis: self.cpu_millis.or(others.cpu_millis),
            memory: self.memory.or(others.memory),
            pids: self.pids.or(others.pids),
            oom_score: self.oom_score.or(others.oom_score),
        }
    }
}

/// The subject of a change of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// All processes of the zone together.
    Zone,
    /// One process, with labels to add to those it has.
    Process(ProcessId, BTreeMap<String, String>),
}

/// A change of limits: missing ones stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The subject.
    pub of: Of,
    /// The new limits.
    pub limits: Limits,
}

/// The file tree that a process sees as its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// A complete directory.
    Directory(PathBuf),
    /// Layers under a writable one, mounted where the process starts, so that nothing stays mounted on the host.
    Overlay {
        /// Read-only layers, uppermost first.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// The work directory of the overlay.
        work: PathBuf,
    },
}

/// A directory or file of the host mounted in a process's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The path on the host. One of the zone's datasets is given by name, without a leading slash.
    pub source: PathBuf,
    /// Directories that are overlaid below `source`, uppermost first; the result is read-only.
    #[serde(default)]
    pub below: Vec<PathBuf>,
    /// A path below `source` that is resolved without leaving it (`subPath`); created if missing.
    pub inside: Option<PathBuf>,
    /// The path in the root.
    pub target: PathBuf,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether submounts are read-only, too.
    pub recursive_read_only: bool,
    /// The mount propagation.
    pub propagation: Propagation,
}

/// How later mounts propagate between a process and the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host to the process.
    HostToProcess,
    /// Both ways.
    Bidirectional,
}

/// The resource usage of a process or zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since its start, in nanoseconds.
    pub cpu: u64,
    /// Memory in use, in bytes.
    pub memory: u64,
    /// Memory that cannot be reclaimed, in bytes.
    pub working_set: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// The resource usage of a zone and its processes, at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneUsage {
    /// When it was measured.
    pub at: Timestamp,
    /// The total.
    pub total: Usage,
    /// By process.
    pub processes: BTreeMap<ProcessId, Usage>,
    /// Bytes received and sent by the zone's interface.
    pub network: (u64, u64),
}
