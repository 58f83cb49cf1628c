//! The values that describe zones and processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The name of a zone: 1 to 63 of `[a-zA-Z0-9_.-]`, a letter or digit first, not `global` and not beginning with
/// `SUNW` (zonecfg(8)). Linux has no rule of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ZoneName(String);

impl ZoneName {
    /// A name as given, or nothing if it is not a legal one.
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
    /// The host's own stack.
    Host,
    /// A stack of its own with one interface.
    Own {
        /// Address of the interface.
        address: IpAddr,
        /// Bits of the network's prefix.
        prefix: u8,
        /// The default route.
        gateway: IpAddr,
        /// Hardware address, `02:…`.
        mac: String,
        /// Name of the link on the host's side; a legal VNIC name.
        link: String,
        /// Ports of the host that lead into the zone.
        ports: Vec<HostPort>,
        /// The most that may pass the link, in bits a second, where the platform can limit that.
        #[serde(default)]
        bandwidth: Option<u64>,
    },
}

/// A port of the host that leads to one of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The host's address that listens; nothing means all.
    pub host_address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The zone's port.
    pub zone: u16,
}

/// What a zone is made of. But for its limits never changed once the zone is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneSpec {
    /// Its name on the host.
    pub name: ZoneName,
    /// What the caller wants to find again; kept and handed back unread.
    pub labels: BTreeMap<String, String>,
    /// The host name seen inside.
    pub hostname: String,
    /// Its network.
    pub network: ZoneNetwork,
    /// The brand that it is to be of, as the platform names it; nothing means the one that the platform makes.
    #[serde(default)]
    pub brand: Option<String>,
    /// Processes see those of the host (`hostPID`).
    pub host_processes: bool,
    /// System V and POSIX queues are the host's (`hostIPC`).
    pub host_ipc: bool,
    /// The processes of the zone see one another.
    pub shared_processes: bool,
    /// Kernel parameters of the zone's own, `net.ipv4.ip_forward = 1`.
    pub sysctls: BTreeMap<String, String>,
    /// Directories and files of the host that processes of the zone will mount, beside those of the zone itself.
    #[serde(default)]
    pub shares: Vec<PathBuf>,
    /// Datasets that are the zone's whole, where the platform has such: it mounts them itself.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// Directories kept in memory for the life of a boot, by path on the host, each with its size limit in bytes.
    pub memory_directories: BTreeMap<PathBuf, Option<u64>>,
    /// Limits of all processes together.
    pub limits: Limits,
}

impl ZoneSpec {
    /// A zone that has a network, and nothing else that a zone can have.
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
            limits: Limits::default(),
        }
    }
}

/// What a zone as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZoneState {
    /// A step of its making or removal failed; only deletion leads on.
    Incomplete,
    /// It can be booted.
    Installed,
    /// Processes can be started in it.
    Running,
    /// It is running but cannot be reached (yet): its supervisor has not said hello.
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

/// A zone as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// What it was made of.
    pub spec: ZoneSpec,
    /// What it is doing.
    pub state: ZoneState,
    /// Which boot this is; nothing if it does not run. Another value means that everything in it ended.
    pub boot: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Its processes, oldest generation first.
    pub processes: Vec<Process>,
}

/// A process: the name of its container, and which start of the container it is, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The container's name.
    pub name: String,
    /// Its generation: how often it was started before.
    pub generation: u32,
}

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.generation)
    }
}

/// A process as it was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Which.
    pub id: ProcessId,
    /// What the caller wants to find again.
    pub labels: BTreeMap<String, String>,
    /// When it was started.
    pub started: Timestamp,
    /// How it ended, or nothing while it runs.
    pub ended: Option<Ending>,
    /// Who it was begun as, where that is known.
    #[serde(default)]
    pub identity: Option<Identity>,
}

/// Who a program is to the kernel, when it begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The first group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The exit status; 128 and the signal's number if one ended it.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// The memory limit was what ended it.
    pub out_of_memory: bool,
    /// When.
    pub at: Timestamp,
    /// A reason other than its own end: it could not be started.
    pub error: Option<String>,
}

impl Ending {
    /// An ordinary end with a status.
    pub fn exited(code: i32, at: Timestamp) -> Self {
        Ending {
            code,
            signal: 0,
            out_of_memory: false,
            at,
            error: None,
        }
    }
}

/// Limits of a process or a zone. Nothing means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of a contended processor, as cgroup v1 counts: 1024 is one processor's worth.
    pub cpu_shares: Option<u64>,
    /// Processor time in thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How gladly the kernel ends it when memory is short, -1000 to 1000.
    pub oom_score: Option<i32>,
}

impl Limits {
    /// These, and of `others` those that these do not name.
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

/// Whose limits change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// All processes of the zone together.
    Zone,
    /// One process, with the labels that it has from then on beside those it had.
    Process(ProcessId, BTreeMap<String, String>),
}

/// A change of limits: one that is not named stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub of: Of,
    /// To what.
    pub limits: Limits,
}

/// The file tree that a process sees as its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// A directory that is ready as it is.
    Directory(PathBuf),
    /// Layers under a writable one, mounted where the process starts, so that nothing is left mounted on the host.
    Overlay {
        /// Read-only layers, uppermost first.
        lower: Vec<PathBuf>,
        /// What the process writes.
        upper: PathBuf,
        /// The file system's own scratch directory beside it.
        work: PathBuf,
    },
}

/// A directory or file of the host seen in a process's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host. One of the zone's datasets is named as it is, without a slash first.
    pub source: PathBuf,
    /// Directories that are seen below what `source` holds, uppermost first; together they can only be read.
    #[serde(default)]
    pub below: Vec<PathBuf>,
    /// A path below `source` that is looked up without leaving it (`subPath`); made if missing.
    pub inside: Option<PathBuf>,
    /// In the root.
    pub target: PathBuf,
    /// Writing is refused.
    pub read_only: bool,
    /// Read-only for what is mounted below too.
    pub recursive_read_only: bool,
    /// How later mounts travel.
    pub propagation: Propagation,
}

/// How mounts made later travel between a process and the host.
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

/// Who a process runs as, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// User id; nothing means what `user` says.
    pub uid: Option<u32>,
    /// Group id; nothing means the user's in the root's /etc/passwd, else 0.
    pub gid: Option<u32>,
    /// A user and group as an image names them: `USER[:GROUP]`, looked up in the root.
    pub user: String,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Groups that the root's /etc/group gives the user are not added.
    pub strict_groups: bool,
    /// Capabilities, `NET_BIND_SERVICE`, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Everything is allowed.
    pub privileged: bool,
    /// No program may gain rights (`no_new_privs`).
    pub no_new_privileges: bool,
    /// The root is read-only.
    pub read_only_root: bool,
    /// `/proc` shows what is usually hidden (`procMount: Unmasked`).
    pub unmasked_proc: bool,
    /// The usual filter of system calls applies.
    pub seccomp: bool,
}

/// Every capability of Linux, by its number.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container may do unless it says otherwise, as of other runtimes.
pub const USUAL_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Which.
    pub id: ProcessId,
    /// What the caller wants to find again.
    pub labels: BTreeMap<String, String>,
    /// It sees the processes of this one, which must run; nothing means what the zone says.
    #[serde(default)]
    pub beside: Option<String>,
    /// Its root.
    pub root: Root,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Its environment, `NAME=value`.
    pub environment: Vec<String>,
    /// The directory it starts in; made if missing.
    pub directory: PathBuf,
    /// What it sees of the host's files.
    pub mounts: Vec<Mount>,
    /// Who it runs as.
    pub rights: Rights,
    /// Its limits.
    pub limits: Limits,
    /// Its input stays open for `attach`.
    pub stdin: bool,
    /// The input closes when the first who attached leaves.
    pub stdin_once: bool,
    /// It has a terminal.
    pub tty: bool,
    /// Where its output goes, in the CRI log format.
    pub log: PathBuf,
}

/// A program to run beside a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Its input is fed.
    pub stdin: bool,
    /// Its output is wanted.
    pub stdout: bool,
    /// Its errors are wanted.
    pub stderr: bool,
    /// It has a terminal.
    pub tty: bool,
    /// It is ended when nobody follows it any more: who asked gave up.
    #[serde(default)]
    pub ends_with_session: bool,
}

/// A signal by its number on the zone's system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal(pub i32);

impl Signal {
    /// Its terminal is gone.
    pub const HANG_UP: Signal = Signal(1);
    /// Ends at once.
    pub const KILL: Signal = Signal(9);
    /// Asks to end.
    pub const TERM: Signal = Signal(15);

    /// The signal that an image names: `SIGQUIT`, `QUIT`, `3`. None if there is no such, or it is one of those without
    /// names (`SIGRTMIN+3`).
    pub fn named(name: &str) -> Option<Self> {
        /// They have the same numbers on every system.
        const EVERYWHERE: [(&str, i32); 7] = [
            ("HUP", 1),
            ("INT", 2),
            ("QUIT", 3),
            ("ABRT", 6),
            ("KILL", 9),
            ("ALRM", 14),
            ("TERM", 15),
        ];
        const LINUX: [(&str, i32); 7] = [
            ("USR1", 10),
            ("USR2", 12),
            ("CHLD", 17),
            ("CONT", 18),
            ("WINCH", 28),
            ("IO", 29),
            ("PWR", 30),
        ];
        let name = name.trim().to_ascii_uppercase();
        if let Ok(number) = name.parse() {
            return (1..32).contains(&number).then_some(Signal(number));
        }
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let linux = LINUX.iter().filter(|_| cfg!(target_os = "linux"));
        let mut known = EVERYWHERE.iter().chain(linux);
        known
            .find(|(known, _)| *known == name)
            .map(|(_, number)| Signal(*number))
    }
}

/// What something uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since its start, in nanoseconds.
    pub cpu: u64,
    /// Memory in use, in bytes.
    pub memory: u64,
    /// Memory that cannot be taken back, in bytes.
    pub working_set: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What a zone and each of its processes use, at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneUsage {
    /// When it was measured.
    pub at: Timestamp,
    /// All together.
    pub total: Usage,
    /// Each process.
    pub processes: BTreeMap<ProcessId, Usage>,
    /// Bytes received and sent by the zone's interface.
    pub network: (u64, u64),
}
