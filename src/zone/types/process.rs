//! The values that describe processes of zones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Limits, Mount, Root};

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

/// The observed state of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub id: ProcessId,
    /// The caller's own data.
    pub labels: BTreeMap<String, String>,
    /// When it was started.
    pub started: Timestamp,
    /// How it ended; None while it runs.
    pub ended: Option<Ending>,
    /// The user that it runs as, if known.
    #[serde(default)]
    pub identity: Option<Identity>,
}

/// The credentials of a program when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The primary group.
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
    /// Whether it was killed for exceeding the memory limit.
    pub out_of_memory: bool,
    /// When.
    pub at: Timestamp,
    /// An error other than its own end: it could not be started.
    pub error: Option<String>,
}

impl Ending {
    /// An ordinary exit with a status.
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

/// The user of a process, and its privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// The user id; None to use `user`.
    pub uid: Option<u32>,
    /// The group id; None for the user's group in the root's /etc/passwd, else 0.
    pub gid: Option<u32>,
    /// A user and group from the image: `USER[:GROUP]`, looked up in the root.
    pub user: String,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether groups of the user in the root's /etc/group are ignored.
    pub strict_groups: bool,
    /// Capabilities, `NET_BIND_SERVICE`, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Whether everything is allowed.
    pub privileged: bool,
    /// Whether programs cannot gain privileges (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Whether the root is read-only.
    pub read_only_root: bool,
    /// Whether `/proc` shows paths that are usually hidden (`procMount: Unmasked`).
    pub unmasked_proc: bool,
    /// Whether the default system call filter applies.
    pub seccomp: bool,
}

/// Every capability of Linux, at the index of its number.
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

/// The default capabilities of a container, as in other runtimes.
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
    /// Its id.
    pub id: ProcessId,
    /// The caller's own data.
    pub labels: BTreeMap<String, String>,
    /// A running container whose processes it sees; None for the zone's default.
    #[serde(default)]
    pub beside: Option<String>,
    /// Its root.
    pub root: Root,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Its environment, `NAME=value`.
    pub environment: Vec<String>,
    /// The working directory; created if missing.
    pub directory: PathBuf,
    /// Its mounts of the host's files.
    pub mounts: Vec<Mount>,
    /// Its user and privileges.
    pub rights: Rights,
    /// Its limits.
    pub limits: Limits,
    /// Whether its input stays open for `attach`.
    pub stdin: bool,
    /// Whether the input closes when the first attached client disconnects.
    pub stdin_once: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The path of its log, in CRI format.
    pub log: PathBuf,
}

/// A program to run beside a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Whether it gets input.
    pub stdin: bool,
    /// Whether its output is wanted.
    pub stdout: bool,
    /// Whether its errors are wanted.
    pub stderr: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it is killed when the session's client disconnects.
    #[serde(default)]
    pub ends_with_session: bool,
}

/// The systems that zones run, which have numbers of their own for many signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Linux, of whichever kernel: lx translates numbers itself (`ltos_signo`).
    Linux,
    /// illumos.
    Illumos,
}

/// A signal by its number on the zone's system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalNumber(pub i32);

impl SignalNumber {
    /// The terminal is gone.
    pub const HANG_UP: SignalNumber = SignalNumber(1);
    /// Ends at once.
    pub const KILL: SignalNumber = SignalNumber(9);
    /// Asks the process to end.
    pub const TERM: SignalNumber = SignalNumber(15);
}

/// A signal, before it is known which system it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// By a number of the system that the process runs on.
    Number(i32),
    /// By a name of [`SIGNALS`].
    Named(&'static str),
}

/// Signals with their numbers on Linux (x86 and ARM) and on illumos (`sys/iso/signal_iso.h`), where they have one.
const SIGNALS: [(&str, Option<i32>, Option<i32>); 35] = [
    ("HUP", Some(1), Some(1)),
    ("INT", Some(2), Some(2)),
    ("QUIT", Some(3), Some(3)),
    ("ILL", Some(4), Some(4)),
    ("TRAP", Some(5), Some(5)),
    ("ABRT", Some(6), Some(6)),
    ("IOT", Some(6), Some(6)),
    ("EMT", None, Some(7)),
    ("FPE", Some(8), Some(8)),
    ("KILL", Some(9), Some(9)),
    ("BUS", Some(7), Some(10)),
    ("SEGV", Some(11), Some(11)),
    ("SYS", Some(31), Some(12)),
    ("PIPE", Some(13), Some(13)),
    ("ALRM", Some(14), Some(14)),
    ("TERM", Some(15), Some(15)),
    ("STKFLT", Some(16), None),
    ("USR1", Some(10), Some(16)),
    ("USR2", Some(12), Some(17)),
    ("CHLD", Some(17), Some(18)),
    ("CLD", Some(17), Some(18)),
    ("PWR", Some(30), Some(19)),
    ("WINCH", Some(28), Some(20)),
    ("URG", Some(23), Some(21)),
    ("POLL", Some(29), Some(22)),
    ("IO", Some(29), Some(22)),
    ("STOP", Some(19), Some(23)),
    ("TSTP", Some(20), Some(24)),
    ("CONT", Some(18), Some(25)),
    ("TTIN", Some(21), Some(26)),
    ("TTOU", Some(22), Some(27)),
    ("VTALRM", Some(26), Some(28)),
    ("PROF", Some(27), Some(29)),
    ("XCPU", Some(24), Some(30)),
    ("XFSZ", Some(25), Some(31)),
];

impl Signal {
    /// Ends at once.
    pub const KILL: Signal = Signal::Number(SignalNumber::KILL.0);
    /// Asks the process to end.
    pub const TERM: Signal = Signal::Number(SignalNumber::TERM.0);

    /// The signal named by an image: `SIGQUIT`, `QUIT`, `3`. None if it does not exist or has no fixed number
    /// (`SIGRTMIN+3`).
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_uppercase();
        if let Ok(number) = name.parse() {
            return (1..32).contains(&number).then_some(Signal::Number(number));
        }
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let found = SIGNALS.iter().find(|(known, ..)| *known == name);
        found.map(|(known, ..)| Signal::Named(known))
    }

    /// Its number on a system; that of `TERM` if the system does not have it.
    pub fn on(self, system: System) -> SignalNumber {
        match self {
            Signal::Number(number) => SignalNumber(number),
            Signal::Named(name) => {
                let found = SIGNALS.iter().find(|(known, ..)| *known == name);
                let number = found.and_then(|(_, linux, illumos)| match system {
                    System::Linux => *linux,
                    System::Illumos => *illumos,
                });
                number.map_or(SignalNumber::TERM, SignalNumber)
            }
        }
    }
}
