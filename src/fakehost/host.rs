//! The state of a host as one value.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::disk::DiskOp;
use super::faults::Fault;
use super::zonecfg::Flavour;

/// The state of a host, except for zone configurations, which are files in `/etc/zones`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The distribution.
    pub flavour: Flavour,
    /// What happens when a zone boots.
    pub inits: Inits,
    /// How often the host was booted.
    pub boots: u64,
    /// The last id or number that was assigned.
    pub last: u64,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// File systems by name.
    pub datasets: BTreeMap<String, Dataset>,
    /// Datalinks by name.
    pub links: BTreeMap<String, Link>,
    /// IP interfaces of the global zone by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Routes of the global zone.
    pub routes: Vec<Route>,
    /// Rules of ipnat(8), in order.
    pub nat: Vec<String>,
    /// Tunables of ipfilter that were set.
    #[serde(default)]
    pub tunables: BTreeMap<String, u64>,
    /// The default scheduling class, if one was set (dispadmin(8)).
    #[serde(default)]
    pub scheduling: Option<String>,
    /// Services by FMRI.
    pub services: BTreeMap<String, Service>,
    /// Zones in the kernel.
    pub zones: BTreeMap<String, KernelZone>,
    /// Debug ids of configured zones.
    pub debug_ids: BTreeMap<String, u64>,
    /// Injected faults.
    pub faults: Vec<Fault>,
    /// Changes on disk that belong to this state and may not have been made yet.
    pub pending: Vec<DiskOp>,
}

/// How a zone's init is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Inits {
    /// Nothing runs: a test plays the zone's processes.
    #[default]
    Simulated,
    /// The program in the zone's root is started in its own namespaces (Linux, as root).
    Real,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The size in bytes.
    pub size: u64,
    /// Bytes used by others than its datasets.
    pub taken: u64,
    /// Its health.
    pub health: Health,
    /// Whether it is imported.
    pub imported: bool,
    /// Whether it is missing after the next boot of the host, until it is imported.
    pub late: bool,
}

/// The health of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Well.
    Online,
    /// Its devices do not respond.
    Suspended,
    /// It was imported read-only.
    ReadOnly,
}

/// A file system of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// The name of its files in `var/fakehost/data`.
    pub id: u64,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Its local properties.
    pub properties: BTreeMap<String, String>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
    /// Its current mountpoint in the global zone.
    pub mounted: Option<String>,
    /// Bytes that it uses beyond its files.
    pub filled: u64,
    /// Whether a process holds one of its files open.
    pub held_open: bool,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The part after `@`.
    pub name: String,
    /// The name of its files in `var/fakehost/data`.
    pub id: u64,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Its user properties.
    pub properties: BTreeMap<String, String>,
    /// Holds, and when each was created.
    pub holds: BTreeMap<String, u64>,
    /// Whether it is destroyed once nothing needs it.
    pub deferred: bool,
}

/// A datalink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its class.
    pub class: LinkClass,
    /// The link below it.
    pub over: Option<String>,
    /// Its MAC address, without leading zeros.
    pub mac: String,
    /// `fixed`, `random` or `factory, slot n`.
    pub mac_kind: String,
    /// Its VLAN id, or 0.
    pub vlan: u16,
    /// Whether it disappears at the next boot of the host.
    pub temporary: bool,
    /// Whether it exists now; otherwise it comes back at the next boot of the host.
    pub active: bool,
    /// Its current properties.
    pub properties: BTreeMap<String, String>,
    /// Its properties after the next boot of the host.
    pub persistent: BTreeMap<String, String>,
    /// The zone that has it.
    pub zone: Option<String>,
}

/// The class of a datalink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkClass {
    /// A physical NIC.
    Phys,
    /// A virtual NIC.
    Vnic,
    /// A switch without a NIC.
    Etherstub,
    /// An aggregation of several NICs.
    Aggr,
    /// A VLAN on a NIC.
    Vlan,
}

impl Link {
    /// A link with default properties.
    pub fn new(class: LinkClass, over: Option<String>, mac: String) -> Self {
        Link {
            class,
            over,
            mac,
            mac_kind: "fixed".to_owned(),
            vlan: 0,
            temporary: false,
            active: true,
            properties: BTreeMap::new(),
            persistent: BTreeMap::new(),
            zone: None,
        }
    }
}

impl LinkClass {
    /// Its name in `dladm show-link`.
    pub fn word(self) -> &'static str {
        match self {
            LinkClass::Phys => "phys",
            LinkClass::Vnic => "vnic",
            LinkClass::Etherstub => "etherstub",
            LinkClass::Aggr => "aggr",
            LinkClass::Vlan => "vlan",
        }
    }
}

/// An IP interface of the global zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interface {
    /// Whether it disappears at the next boot of the host.
    pub temporary: bool,
    /// Its addresses by the name after the slash.
    pub addresses: BTreeMap<String, Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `static`, `dhcp`, `addrconf`.
    pub kind: String,
    /// With its prefix length.
    pub address: String,
    /// Whether it disappears at the next boot of the host.
    pub temporary: bool,
    /// `ok`, `duplicate`, ...
    pub state: String,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `default`, or an address with its prefix length.
    pub destination: String,
    /// The gateway.
    pub gateway: String,
    /// Whether it survives a boot.
    pub persistent: bool,
}

/// A service instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `online`, `disabled`, `maintenance`, ...
    pub state: String,
    /// Whether it is enabled at the next boot of the host.
    pub enabled: bool,
    /// Property groups and properties, `config/data_dir`.
    pub properties: BTreeMap<String, String>,
}

/// The state of a zone in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ZoneStatus {
    /// Created; nothing runs.
    Ready,
    /// Its init was started.
    Running,
    /// Its processes are being ended.
    ShuttingDown,
    /// Its processes are gone; mounts and links may not be.
    Down,
    /// It is mounted for maintenance; nothing runs.
    Mounted,
}

impl ZoneStatus {
    /// Its name in `zoneadm list`.
    pub fn word(self) -> &'static str {
        match self {
            ZoneStatus::Ready => "ready",
            ZoneStatus::Running => "running",
            ZoneStatus::ShuttingDown => "shutting_down",
            ZoneStatus::Down => "down",
            ZoneStatus::Mounted => "mounted",
        }
    }
}

/// A zone in the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelZone {
    /// Its id, a different one at each boot.
    pub id: u64,
    /// Its state.
    pub status: ZoneStatus,
    /// Its brand.
    pub brand: String,
    /// Its zonepath.
    pub path: String,
    /// When it was booted, in seconds since 1970.
    pub booted: u64,
    /// Its links, in the order of its configuration.
    pub links: Vec<ZoneLink>,
    /// Its mounts: the directory in the zone, and its source.
    pub mounts: Vec<ZoneMount>,
    /// Its resource controls in zonecfg's form, with their limits.
    pub rctls: BTreeMap<String, String>,
    /// Datasets that were delegated to it.
    pub datasets: Vec<String>,
    /// Where it has mounted datasets.
    pub mounted: BTreeMap<String, String>,
    /// Why nothing runs in it although it is `running`, as written on its console.
    pub dead: Option<String>,
    /// The host process that is its init, with its start time (`Inits::Real`).
    pub init: Option<(u32, String)>,
    /// A state in which halting it gets stuck, because something in it does not end.
    pub stuck: Option<ZoneStatus>,
    /// CPU time used, in nanoseconds: user and system.
    pub cpu: (u64, u64),
    /// Resident memory and swap in bytes.
    pub memory: (u64, u64),
}

/// A link of a running zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneLink {
    /// Its name.
    pub name: String,
    /// The allowed address of its configuration, if any.
    pub allowed: Option<String>,
    /// Its default router.
    pub router: Option<String>,
}

/// A mount of a running zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneMount {
    /// The directory in the zone.
    pub directory: String,
    /// The source in the global zone.
    pub special: String,
    /// Its type.
    pub kind: String,
    /// Its options.
    pub options: Vec<String>,
}

impl Host {
    /// A host with only the services that every installation has.
    pub fn new(flavour: Flavour, inits: Inits) -> Self {
        let service = |state: &str| Service {
            state: state.to_owned(),
            enabled: state == "online",
            properties: BTreeMap::new(),
        };
        let services = [
            ("svc:/system/zones:default", "online"),
            ("svc:/system/filesystem/local:default", "online"),
            ("svc:/milestone/network:default", "online"),
            ("svc:/network/ip-interface-management:default", "online"),
            ("svc:/network/datalink-management:default", "online"),
            ("svc:/network/physical:default", "online"),
            ("svc:/network/ipfilter:default", "disabled"),
            ("svc:/network/ipv4-forwarding:default", "disabled"),
            ("svc:/network/ipv6-forwarding:default", "disabled"),
            ("svc:/system/manifest-import:default", "online"),
        ];
        Host {
            flavour,
            inits,
            boots: 1,
            last: 0,
            pools: BTreeMap::new(),
            datasets: BTreeMap::new(),
            links: BTreeMap::new(),
            interfaces: BTreeMap::from([("lo0".to_owned(), loopback())]),
            routes: Vec::new(),
            nat: Vec::new(),
            tunables: BTreeMap::new(),
            scheduling: None,
            services: services
                .into_iter()
                .map(|(name, state)| (name.to_owned(), service(state)))
                .collect(),
            zones: BTreeMap::new(),
            debug_ids: BTreeMap::new(),
            faults: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// A new number.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A new MAC address, without leading zeros.
    pub fn mac(&mut self) -> String {
        let n = self.number();
        format!(
            "2:8:20:{:x}:{:x}:{:x}",
            (n >> 16) & 255,
            (n >> 8) & 255,
            n & 255
        )
    }

    /// The id for a zone that boots: the lowest free one that was not used last.
    pub fn zone_id(&mut self) -> u64 {
        let taken: BTreeSet<u64> = self.zones.values().map(|z| z.id).collect();
        let mut id = self.number() % 8191 + 1;
        while taken.contains(&id) {
            id = id % 8191 + 1;
        }
        id
    }
}

fn loopback() -> Interface {
    let address = |address: &str| Address {
        kind: "static".to_owned(),
        address: address.to_owned(),
        temporary: false,
        state: "ok".to_owned(),
    };
    Interface {
        temporary: false,
        addresses: BTreeMap::from([
            ("v4".to_owned(), address("127.0.0.1/8")),
            ("v6".to_owned(), address("::1/128")),
        ]),
    }
}
