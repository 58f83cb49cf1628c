//! What the init of a reddwarf zone does before it supervises: there is no SMF in it, so nobody else starts the address
//! daemon or mounts datasets. The commands are decided here, from the observed state of the zone.

use std::net::Ipv4Addr;
use std::path::Path;

use super::layout::dataset_directory;
use crate::illumos::{Command, Tool, Tools, parse};
use crate::storage::zfs::names::{self, Row, zfs};

/// The zone's init: its supervisor, and the program of its containers' first processes. It is in the zone's `/usr`,
/// which is the host's.
pub const INIT: &str = "/usr/lib/brand/reddwarf/init";
/// The daemon that ipadm(8) talks to. In a zone without an emulated system it does not configure the link by itself: at
/// its start it only records, for the SMF that this zone does not have, that there is an interface (`ipmgmt_ngz_init`,
/// `i_ipadm_zone_network_attr`). It cannot even do that here, because `/etc/ipadm` in our sandbox belongs to root and
/// the daemon does not run as root. That is intended: a recorded interface that is not enabled would block a temporary
/// one.
pub const IPMGMTD: &str = "/lib/inet/ipmgmtd";
/// Without the name of its service it would not run.
pub const IPMGMTD_ENVIRONMENT: (&str, &str) =
    ("SMF_FMRI", "svc:/network/ip-interface-management:default");

/// What a container's root gets from the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Directories of the zone that are mounted; only those in `/dev` are writable.
    pub shown: &'static [&'static str],
    /// Kernel file systems to mount.
    pub mounted: &'static [KernelMount],
    /// Files of the zone that a root gets if it has none of that name.
    pub given: &'static [&'static str],
    /// Files that no image may contain: libc must be the kernel's own.
    pub foreign: &'static [&'static str],
}

/// A kernel file system in a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMount {
    /// The file system type.
    pub kind: &'static str,
    /// The special name in the mount table.
    pub source: &'static str,
    /// The mount point.
    pub at: &'static str,
    /// Whether the mount point is a directory, not a file.
    pub directory: bool,
    /// Whether it is read-only.
    pub read_only: bool,
}

const fn of(kind: &'static str, source: &'static str, at: &'static str) -> KernelMount {
    KernelMount {
        kind,
        source,
        at,
        directory: true,
        read_only: false,
    }
}

/// In an lx zone: programs need `/native` to be executed (lx_elfexec), and `/var/ld` to link their native part.
pub const LX: Surroundings = Surroundings {
    shown: &["/native", "/var/ld", "/dev"],
    mounted: &[
        of("proc", "proc", "/proc"),
        KernelMount {
            read_only: true,
            ..of("sysfs", "sysfs", "/sys")
        },
    ],
    given: &[],
    foreign: &[],
};

/// In a reddwarf zone: the host's libraries and programs, as in the zone itself (platform.xml).
pub const NATIVE: Surroundings = Surroundings {
    shown: &["/lib", "/usr", "/sbin", "/dev"],
    mounted: &[
        of("proc", "proc", "/proc"),
        of("ctfs", "ctfs", "/system/contract"),
        of("objfs", "objfs", "/system/object"),
        KernelMount {
            directory: false,
            ..of("mntfs", "mnttab", "/etc/mnttab")
        },
        of("tmpfs", "swap", "/var/run"),
    ],
    given: &[
        "/etc/group",
        "/etc/netconfig",
        "/etc/nsswitch.conf",
        "/etc/passwd",
    ],
    foreign: &[
        "/lib/libc.so.1",
        "/lib/amd64/libc.so.1",
        "/usr/lib/libc.so.1",
        "/usr/lib/amd64/libc.so.1",
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/ld-musl-x86_64.so.1",
    ],
};

/// The desired configuration of the zone's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its link.
    pub link: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The prefix length of the network.
    pub prefix: u8,
    /// The router.
    pub gateway: Ipv4Addr,
}

/// Shows the addresses in the zone, for [`network`].
pub fn show_addresses() -> Command {
    let words = ["show-addr", "-p", "-o", "addrobj,state,addr"];
    Command::new(Tool::Ipadm, words)
}

/// Shows the default route in the zone; fails if there is none.
pub fn show_route() -> Command {
    Command::new(Tool::Route, ["-n", "get", "default"])
}

/// The commands that add missing addresses and the default route, given the output of [`show_addresses`]. For a new
/// zone all are missing; a restarted init finds what the first one added.
pub fn network(interface: &Interface, addresses: &str, routed: bool) -> Vec<Command> {
    let there = parse::addresses(addresses);
    let own = format!("{}/{}", interface.address, interface.prefix);
    let wanted = [("lo0", "127.0.0.1/8"), (&interface.link, &own)];
    let mut commands: Vec<Command> = wanted
        .into_iter()
        .filter(|(_, address)| there.iter().all(|(_, _, known)| known != address))
        .map(|(link, address)| {
            let object = format!("{link}/v4");
            let words = ["create-addr", "-t", "-T", "static", "-a", address, &object];
            Command::new(Tool::Ipadm, words)
        })
        .collect();
    if !routed {
        let gateway = interface.gateway.to_string();
        commands.push(Command::new(Tool::Route, ["add", "default", &gateway]));
    }
    commands
}

/// Whether a dataset of the zone is mounted `at` a directory.
fn is_mounted(at: &Path, row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.mounted && row.mountpoint.as_deref() == Some(at))
}

/// The commands that bring a dataset of the zone nearer to being mounted `at` a directory, given its state; none if it
/// is. Root in an earlier zone may have set what it liked.
pub fn mount(dataset: &str, at: &Path, row: Option<&Row>) -> Vec<Command> {
    if is_mounted(at, row) {
        return Vec::new();
    }
    let mut commands = Vec::new();
    if row.is_some_and(|row| !row.mounts_itself) {
        commands.push(names::set(dataset, "canmount", "on"));
    }
    let placed = row.is_some_and(|row| row.mountpoint.as_deref() == Some(at));
    commands.push(match placed {
        // Another mountpoint mounts what was mounted, or had none (`changelist_postfix`); the rest is then only placed.
        false => names::set(dataset, "mountpoint", &at.display().to_string()),
        true => zfs(["mount", dataset]),
    });
    commands
}

/// Mounts the zone's datasets at their directories, in the zone.
///
/// # Errors
/// What failed; or a dataset that is not mounted there although nothing failed: what pods write would be lost with the
/// zone's root.
pub async fn mount_datasets(tools: &dyn Tools, datasets: &[String]) -> Result<(), String> {
    for (number, dataset) in datasets.iter().enumerate() {
        let at = dataset_directory(number);
        // One that is placed and not mounted thereby is mounted after another look.
        for _ in 0..2 {
            let row = look(tools, dataset).await?;
            for command in &mount(dataset, &at, row.as_ref()) {
                let done = tools.run(command).await;
                done.map_err(|failure| failure.to_string())?;
            }
        }
        if !is_mounted(&at, look(tools, dataset).await?.as_ref()) {
            return Err(format!("{dataset} is not mounted at {}", at.display()));
        }
    }
    Ok(())
}

async fn look(tools: &dyn Tools, dataset: &str) -> Result<Option<Row>, String> {
    let listed = tools.run(&names::list(dataset, false)).await;
    let listed = listed.map_err(|failure| failure.to_string())?.stdout;
    Ok(names::rows(&listed).into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(commands: Vec<Command>) -> Vec<String> {
        commands.iter().map(Command::to_string).collect()
    }

    #[test]
    fn only_what_is_missing_is_done() {
        let interface = Interface {
            link: "rdbn0".into(),
            address: Ipv4Addr::new(10, 88, 0, 2),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 88, 0, 1),
        };
        let loopback = "ipadm create-addr -t -T static -a 127.0.0.1/8 lo0/v4";
        let own = "ipadm create-addr -t -T static -a 10.88.0.2/24 rdbn0/v4";
        let route = "route add default 10.88.0.1";
        for (addresses, routed, expected) in [
            ("", false, vec![loopback, own, route]),
            ("rdbn0/?:ok:10.88.0.2/24\n", true, vec![loopback]),
            (
                "lo0/v4:ok:127.0.0.1/8\nrdbn0/?:ok:10.88.0.2/24\n",
                true,
                vec![],
            ),
            // The prefix length counts, too.
            (
                "lo0/v4:ok:127.0.0.1/8\nrdbn0/?:ok:10.88.0.2/8\n",
                true,
                vec![own],
            ),
        ] {
            let commands = network(&interface, addresses, routed);
            assert_eq!(texts(commands), expected, "{addresses}");
        }
    }

    #[test]
    fn a_dataset_is_placed_and_then_mounted() {
        let at = Path::new("/rd/d/0");
        let row = |mountpoint: &str, mounted: &str, canmount: &str| {
            let line =
                format!("p/v\t{mountpoint}\t{mounted}\t-\toff\t0\tvolume\ton\t0\t{canmount}\n");
            names::rows(&line).remove(0)
        };
        let (on, set) = ("zfs set canmount=on p/v", "zfs set mountpoint=/rd/d/0 p/v");
        for (row, expected) in [
            (None, vec![set]),
            (Some(row("none", "no", "on")), vec![set]),
            (Some(row("none", "no", "off")), vec![on, set]),
            (Some(row("/elsewhere", "yes", "on")), vec![set]),
            (Some(row("/rd/d/0", "no", "on")), vec!["zfs mount p/v"]),
            (
                Some(row("/rd/d/0", "no", "noauto")),
                vec![on, "zfs mount p/v"],
            ),
            (Some(row("/rd/d/0", "yes", "on")), vec![]),
        ] {
            assert_eq!(texts(mount("p/v", at, row.as_ref())), expected, "{row:?}");
        }
    }
}
