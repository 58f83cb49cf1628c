//! Classifies failures of tools.

use super::Tool;

/// The meaning of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The thing to create exists already.
    Exists,
    /// The thing to change or show does not exist.
    NotFound,
    /// It is in use; retrying later may work.
    Busy,
    /// It is not in a state that allows this.
    State,
    /// Clones or children depend on it.
    Dependents,
    /// The pool or a quota is full.
    NoSpace,
    /// The pool or dataset is read-only.
    ReadOnly,
    /// The pool's devices do not respond.
    Suspended,
    /// The service behind the tool is not running.
    Disabled,
    /// The caller lacks privileges.
    Permission,
    /// Created, but not mounted.
    NotMounted,
    /// The brand is not installed.
    Brand,
    /// The command line or configuration is invalid: retrying is useless.
    Usage,
    /// The command took too long and was killed.
    TimedOut,
    /// The command was killed by somebody else.
    Killed,
    /// There is no such tool here.
    NoTool,
    /// Something else.
    Other,
}

impl Class {
    /// What to do about it, to be appended to the tool's message; empty if there is no general advice.
    pub fn remedy(self) -> &'static str {
        match self {
            Class::NoSpace => "; free space in the pool or raise the quota",
            Class::ReadOnly => "; import the pool so that it can be written (zpool import)",
            Class::Suspended => {
                "; see `zpool status -x`, repair the devices and `zpool clear` the pool"
            }
            Class::Disabled => "; enable the service (svcadm enable)",
            Class::Permission => "; run the agent as root in the global zone, with all privileges",
            Class::Brand => "; install the brand's package, or choose another --brand",
            Class::TimedOut => "; see what holds it up (zoneadm list -cv, zpool status, ps)",
            Class::NoTool => "; this host has no such tool: zones need an illumos global zone",
            Class::Exists
            | Class::NotFound
            | Class::Busy
            | Class::State
            | Class::Dependents
            | Class::NotMounted
            | Class::Usage
            | Class::Killed
            | Class::Other => "",
        }
    }
}

/// Messages of tools and their meaning, the most specific first. They are from illumos-gate 2022 and OmniOS 2021
/// (`cmd/zfs`, `lib/libzfs`, `cmd/zoneadm`, `cmd/zoneadmd`, `cmd/zonecfg`, `lib/libdladm`, `lib/libipadm`).
const WORDS: &[(&[Tool], &str, Class)] = &[
    // ZFS
    (
        ZFS,
        "successfully created, but not mounted",
        Class::NotMounted,
    ),
    (
        ZFS,
        "successfully created, but not shared",
        Class::NotMounted,
    ),
    (ZFS, "pool I/O is currently suspended", Class::Suspended),
    (ZFS, "pool is unavailable", Class::Suspended),
    (ZFS, "I/O error", Class::Suspended),
    (ZFS, "dataset already exists", Class::Exists),
    (ZFS, "pool or dataset exists", Class::Exists),
    (ZFS, "pool already exists", Class::Exists),
    (ZFS, "snapshot already exists", Class::Exists),
    (ZFS, "tag already exists", Class::Exists),
    (ZFS, "does not exist", Class::NotFound),
    (
        ZFS,
        "could not find any snapshots to destroy",
        Class::NotFound,
    ),
    (ZFS, "no such pool", Class::NotFound),
    (ZFS, "no such tag", Class::NotFound),
    (ZFS, "has dependent clones", Class::Dependents),
    (ZFS, "has children", Class::Dependents),
    (ZFS, "dataset is busy", Class::Busy),
    (ZFS, "Device busy", Class::Busy),
    (ZFS, "device busy", Class::Busy),
    (ZFS, "pool is busy", Class::Busy),
    (ZFS, "pool or dataset is busy", Class::Busy),
    (ZFS, "dataset in use by local zone", Class::Busy),
    (ZFS, "directory is not empty", Class::State),
    (ZFS, "not a mountpoint", Class::State),
    (ZFS, "out of space", Class::NoSpace),
    (ZFS, "size is greater than available space", Class::NoSpace),
    (
        ZFS,
        "size is less than current used or reserved space",
        Class::NoSpace,
    ),
    (ZFS, "quota exceeded", Class::NoSpace),
    (ZFS, "read-only property", Class::Usage),
    (ZFS, "pool is read-only", Class::ReadOnly),
    (ZFS, "read-only", Class::ReadOnly),
    (ZFS, "Read-only file system", Class::ReadOnly),
    (ZFS, "permission denied", Class::Permission),
    (ZFS, "Permission denied", Class::Permission),
    (ZFS, "insufficient privileges", Class::Permission),
    (ZFS, "invalid", Class::Usage),
    (ZFS, "name is too long", Class::Usage),
    // zones
    (ZONES, "No such zone configured", Class::NotFound),
    (ZONES, "No such zone", Class::NotFound),
    (ZONES, "zone is incomplete", Class::State),
    (ZONES, "is already installed", Class::State),
    (ZONES, "already in use by zone", Class::Busy),
    (ZONES, "address in use by zone", Class::Busy),
    (ZONES, "is already ", Class::State),
    (ZONES, "must be configured before", Class::State),
    (ZONES, "must be installed before", Class::State),
    (ZONES, "must be ready before", Class::State),
    (ZONES, "is required.", Class::State),
    (
        ZONES,
        "cannot manage a zone which is in state",
        Class::State,
    ),
    (ZONES, "Zone state is invalid", Class::State),
    (ZONES, "shutdown already in progress", Class::Busy),
    (ZONES, "must be running", Class::State),
    (ZONES, "must be halted", Class::State),
    (ZONES, "not running", Class::State),
    (ZONES, "is invalid for running zones", Class::State),
    (ZONES, "is invalid for ready zones", Class::State),
    (ZONES, "operation is invalid for", Class::State),
    (ZONES, "already installed", Class::Exists),
    (ZONES, "Zone exists, input not from terminal", Class::Exists),
    (
        ZONES,
        "another zoneadm may have an operation in progress",
        Class::Busy,
    ),
    (ZONES, "mounted on subdirectories of", Class::Busy),
    (ZONES, "Device busy", Class::Busy),
    (ZONES, "dataset is busy", Class::Busy),
    (ZONES, "is used by another zone", Class::Busy),
    (ZONES, "failed to add network device", Class::Busy),
    (ZONES, "unknown brand", Class::Brand),
    (ZONES, "error loading brand", Class::Brand),
    (ZONES, "brand is missing or invalid", Class::Brand),
    (ZONES, "unable to determine zone's brand", Class::Brand),
    (ZONES, "insufficient privilege", Class::Permission),
    (ZONES, "Insufficient privilege", Class::Permission),
    (ZONES, "lack sufficient privilege", Class::Permission),
    (ZONES, "only a privileged user may", Class::Permission),
    (ZONES, "must be a privileged user", Class::Permission),
    (ZONES, "is not authorized to", Class::Permission),
    (ZONES, "you do not have write access", Class::Permission),
    (ZONES, "must be in the global zone to", Class::Permission),
    (ZONES, "permission denied", Class::Permission),
    (ZONES, "Permission denied", Class::Permission),
    (ZONES, "Not owner", Class::Permission),
    (
        ZONES,
        "may only be run from the global zone",
        Class::Permission,
    ),
    (
        ZONES,
        "can only be run from the global zone",
        Class::Permission,
    ),
    (ZONES, "No space left on device", Class::NoSpace),
    (ZONES, "out of space", Class::NoSpace),
    (ZONES, "pool I/O is currently suspended", Class::Suspended),
    (ZONES, "Read-only file system", Class::ReadOnly),
    (ZONES, "Bogus zone name", Class::Usage),
    (ZONES, "syntax error", Class::Usage),
    (ZONES, "the zone's privilege set", Class::Usage),
    (ZONES, "invalid property", Class::Usage),
    // links and addresses
    (LINKS, "object already exists", Class::Exists),
    (LINKS, "Interface already exists", Class::Exists),
    (LINKS, "Address object already exists", Class::Exists),
    (LINKS, "ddress already in use", Class::Exists),
    (LINKS, "MAC address is already in use", Class::Exists),
    (LINKS, "Already exists", Class::Exists),
    (LINKS, "object not found", Class::NotFound),
    (LINKS, "Object not found", Class::NotFound),
    (LINKS, "No such interface", Class::NotFound),
    (LINKS, "Interface does not exist", Class::NotFound),
    (LINKS, "Datalink does not exist", Class::NotFound),
    (LINKS, "Value does not exist", Class::NotFound),
    (LINKS, "link not found", Class::NotFound),
    (LINKS, "invalid link property", Class::Usage),
    (LINKS, "invalid link", Class::NotFound),
    (LINKS, "link busy", Class::Busy),
    (LINKS, "Interface busy", Class::Busy),
    (LINKS, "Interface already in use", Class::Busy),
    (LINKS, "already in progress", Class::Busy),
    (LINKS, "operation timed out", Class::Busy),
    (LINKS, "Could not communicate with ipmgmtd", Class::Disabled),
    (LINKS, "try again", Class::Busy),
    (LINKS, "temporarily unavailable", Class::Busy),
    (LINKS, "insufficient privileges", Class::Permission),
    (LINKS, "Insufficient privileges", Class::Permission),
    (LINKS, "Insufficient user authorizations", Class::Permission),
    (
        LINKS,
        "not permitted on from-gz interface",
        Class::Permission,
    ),
    (LINKS, "Permission denied", Class::Permission),
    (LINKS, "permission denied", Class::Permission),
    (
        LINKS,
        "can't create persistent object on top of temporary object",
        Class::State,
    ),
    (LINKS, "operation on temporary object", Class::State),
    (LINKS, "change cannot be persistent", Class::State),
    (LINKS, "change must be persistent", Class::State),
    (LINKS, "invalid", Class::Usage),
    (LINKS, "Invalid", Class::Usage),
    (LINKS, "MTU check failed", Class::Usage),
    (LINKS, "must be one of", Class::Usage),
    // NAT and services
    (NAT, "File exists", Class::Exists),
    (NAT, "No such file or directory", Class::Disabled),
    (NAT, "No such device", Class::Disabled),
    // The result of iplioctl while ipfilter is off, or is being turned on or off.
    (NAT, "I/O error", Class::Disabled),
    (NAT, "Device busy", Class::Busy),
    (NAT, "Permission denied", Class::Permission),
    (NAT, "syntax error", Class::Usage),
    (NAT, "No such process", Class::NotFound),
    (SERVICES, "doesn't match any instances", Class::NotFound),
    (
        CONTROLS,
        "no matching resource control to replace",
        Class::NotFound,
    ),
];

const ZFS: &[Tool] = &[Tool::Zfs, Tool::Zpool];
const ZONES: &[Tool] = &[Tool::Zoneadm, Tool::Zonecfg];
const LINKS: &[Tool] = &[Tool::Dladm, Tool::Ipadm];
const NAT: &[Tool] = &[Tool::Ipnat];
const CONTROLS: &[Tool] = &[Tool::Prctl];
const SERVICES: &[Tool] = &[Tool::Svcs, Tool::Routeadm, Tool::Kstat, Tool::Route];

/// Classifies a failure of `tool` with exit code `code` and the message `words`.
pub fn classify(tool: Tool, code: i32, words: &str) -> Class {
    let known = WORDS
        .iter()
        .find(|(tools, part, _)| tools.contains(&tool) && words.contains(part));
    match known {
        Some((_, _, class)) => *class,
        None if code == 2 => Class::Usage,
        None => Class::Other,
    }
}
