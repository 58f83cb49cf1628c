//! The state of a host as one value.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::disk::DiskOp;
use super::faults::Fault;
use super::zonecfg::Flavour;

/// Everything that a host knows, but for zone configurations, which are files in `/etc/zones`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Which distribution it is.
    pub flavour: Flavour,
    /// What happens when a zone boots.
    pub inits: Inits,
    /// How many times the host was booted.
    pub boots: u64,
    /// The last id or number given out.
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
    /// Services by FMRI.
    pub services: BTreeMap<String, Service>,
    /// Zones in the kernel.
    pub zones: BTreeMap<String, KernelZone>,
    /// Debug ids of configured zones.
    pub debug_ids: BTreeMap<String, u64>,
    /// Faults to come.
    pub faults: Vec<Fault>,
    /// Changes on disk that belong to this value and may not have been made yet.
    pub pending: Vec<DiskOp>,
}

/// What a zone's init is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Inits {
    /// Nothing runs: a test plays what is in the zone.
    #[default]
    Simulated,
    /// The program in the zone's root is started in namespaces of its own (Linux, as root).
    Real,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Bytes in all.
    pub size: u64,
    /// Bytes taken by others than its datasets.
    pub taken: u64,
    /// How it is.
    pub health: Health,
    /// Whether the host has it.
    pub imported: bool,
    /// It is not there after the next boot of the host, until it is imported.
    pub late: bool,
}

/// How a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Well.
    Online,
    /// Its devices do not answer.
    Suspended,
    /// It was imported read-only.
    ReadOnly,
}

/// A file system of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its files' name in `var/fakehost/data`.
    pub id: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Properties that were set on it.
    pub properties: BTreeMap<String, String>,
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
    /// Where it is mounted in the global zone.
    pub mounted: Option<String>,
    /// Bytes that it holds beyond its files.
    pub filled: u64,
    /// A process holds a file of it open.
    pub held_open: bool,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The part after `@`.
    pub name: String,
    /// Its files' name in `var/fakehost/data`.
    pub id: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// User properties that were set on it.
    pub properties: BTreeMap<String, String>,
    /// Holds, and when each was made.
    pub holds: BTreeMap<String, u64>,
    /// It goes once nothing needs it.
    pub deferred: bool,
}

/// A datalink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it is.
    pub class: LinkClass,
    /// The link below it.
    pub over: Option<String>,
    /// Its hardware address, without leading zeros.
    pub mac: String,
    /// `fixed`, `random` or `factory, slot n`.
    pub mac_kind: String,
    /// Its VLAN, or 0.
    pub vlan: u16,
    /// It ends with the next boot of the host.
    pub temporary: bool,
    /// Whether it is there; one that is not comes back with the next boot of the host.
    pub active: bool,
    /// Its properties that are in force.
    pub properties: BTreeMap<String, String>,
    /// Its properties after the next boot of the host.
    pub persistent: BTreeMap<String, String>,
    /// The zone that has it.
    pub zone: Option<String>,
}

/// What a datalink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkClass {
    /// A physical NIC.
    Phys,
    /// A virtual NIC.
    Vnic,
    /// A switch without a NIC.
    Etherstub,
    /// Several NICs as one.
    Aggr,
    /// A VLAN on a NIC.
    Vlan,
}

impl Link {
    /// A link that nobody has changed.
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
    /// As `dladm show-link` prints it.
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
    /// It ends with the next boot of the host.
    pub temporary: bool,
    /// Its addresses by the name after the slash.
    pub addresses: BTreeMap<String, Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `static`, `dhcp`, `addrconf`.
    pub kind: String,
    /// With its prefix.
    pub address: String,
    /// It ends with the next boot of the host.
    pub temporary: bool,
    /// `ok`, `duplicate`, ...
    pub state: String,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `default`, or an address with its prefix.
    pub destination: String,
    /// Where it leads.
    pub gateway: String,
    /// It stays over boots.
    pub persistent: bool,
}

/// A service instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `online`, `disabled`, `maintenance`, ...
    pub state: String,
    /// What it is after the next boot of the host.
    pub enabled: bool,
    /// Property groups and properties, `config/data_dir`.
    pub properties: BTreeMap<String, String>,
}

/// How far a zone in the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ZoneStatus {
    /// Made; nothing runs.
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
    /// As `zoneadm list` prints it.
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
    /// Its id; another one with each boot.
    pub id: u64,
    /// How far it is.
    pub status: ZoneStatus,
    /// Its brand.
    pub brand: String,
    /// Its zonepath.
    pub path: String,
    /// When it was booted, in seconds since 1970.
    pub booted: u64,
    /// Its links, in the order of its configuration.
    pub links: Vec<ZoneLink>,
    /// Its mounts: the directory in the zone, and what is there.
    pub mounts: Vec<ZoneMount>,
    /// Its resource controls as zonecfg has them, each with its limit.
    pub rctls: BTreeMap<String, String>,
    /// Datasets that were delegated to it.
    pub datasets: Vec<String>,
    /// Why nothing runs in it although it is `running`, as its console says.
    pub dead: Option<String>,
    /// The process on the host that is its init, with its start time (`Inits::Real`).
    pub init: Option<(u32, String)>,
    /// Something in it does not end: a halt goes no further than this.
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
    /// What the configuration allows it, if anything.
    pub allowed: Option<String>,
    /// Its default router.
    pub router: Option<String>,
}

/// A mount of a running zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneMount {
    /// Where, in the zone.
    pub directory: String,
    /// What, in the global zone.
    pub special: String,
    /// Its type.
    pub kind: String,
    /// Its options.
    pub options: Vec<String>,
}

impl Host {
    /// A host with nothing but the services every installation has.
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

    /// A number that was not given out before.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A hardware address that was not given out before, without leading zeros.
    pub fn mac(&mut self) -> String {
        let n = self.number();
        format!(
            "2:8:20:{:x}:{:x}:{:x}",
            (n >> 16) & 255,
            (n >> 8) & 255,
            n & 255
        )
    }

    /// An id for a zone that boots: the lowest that is free and was not the last one.
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
