//! The pool of pod addresses, kept in a redb file so that a crash neither loses leases nor assigns one twice.
//!
//! An owner has at most one lease. Allocating again returns the same lease; releasing twice is not an error. The
//! network address, the broadcast address and the gateway's (the first host address, unless the network has another
//! router) are never assigned. Addresses are used in rotation: a released one is assigned again only after all
//! others, so that late packets for a dead pod do not reach the next one.

mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Builder, Database, TableDefinition};

use self::pool::{Pool, mask, range};
use crate::blocking::patiently;

/// Maps owners to addresses.
const LEASES: TableDefinition<'_, &str, u32> = TableDefinition::new("leases");
/// `last`: the last address assigned.
const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");

/// An address assigned to an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length of its network: the pool's, or a larger one that contains the pool.
    pub prefix: u8,
    /// The default route: the pool's first address, or the network's own router.
    pub gateway: Ipv4Addr,
    /// A MAC address unique among leases.
    pub mac: String,
    /// A link name unique among leases: a valid VNIC and interface name.
    pub link: String,
}

/// Why an address cannot be allocated or released.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// The range is not a usable pool.
    #[error(
        "{given:?} is not a usable --pod-cidr: {reason}; give an IPv4 range such as 10.244.0.0/24"
    )]
    Range {
        /// The given range.
        given: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The router is not on a network that contains the range.
    #[error(
        "--gateway {gateway}/{prefix} cannot be the router of --pod-cidr {pool}: the range must be a part of the router's network; give the router with that network's prefix, such as 192.0.2.254/24"
    )]
    Router {
        /// The router.
        gateway: Ipv4Addr,
        /// The prefix length of its network.
        prefix: u8,
        /// The range.
        pool: String,
    },
    /// Every address is assigned.
    #[error(
        "IpamPoolExhausted: all {size} addresses of the pod address pool {pool} are in use; delete pods, or start the agent with a larger --pod-cidr"
    )]
    IpamPoolExhausted {
        /// The range.
        pool: String,
        /// How many addresses it has.
        size: u32,
    },
    /// The file cannot be read or written.
    #[error("cannot {attempted} the address pool's file {}: {cause}; check that its directory exists, has room and belongs to you, and that no other agent uses it", path.display())]
    File {
        /// The operation.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: String,
    },
}

/// The pool. Clones share it.
#[derive(Clone)]
pub struct Ipam(Arc<Mutex<Pool>>);

impl Ipam {
    /// Opens the pool of `cidr` in the file `path`, which is created if missing. Waits up to five
    /// seconds for another process that uses it.
    ///
    /// # Errors
    /// [`IpamError::Range`] and [`IpamError::File`].
    pub fn open(path: &Path, cidr: &str) -> Result<Self, IpamError> {
        let is_held = |error: &_| matches!(error, redb::DatabaseError::DatabaseAlreadyOpen);
        let database = patiently(is_held, || {
            Builder::new().set_cache_size(1 << 20).create(path)
        })
        .map_err(|error| file("open", path, error))?;
        Self::restore(Some(database), path.to_owned(), cidr)
    }

    /// A pool of `cidr` in memory.
    ///
    /// # Errors
    /// [`IpamError::Range`].
    pub fn in_memory(cidr: &str) -> Result<Self, IpamError> {
        Self::restore(None, "(memory)".into(), cidr)
    }

    fn restore(database: Option<Database>, path: PathBuf, cidr: &str) -> Result<Self, IpamError> {
        let (network, prefix) = range(cidr)?;
        let mut pool = Pool {
            database,
            path,
            network,
            prefix,
            router: (network + 1, prefix),
            leases: BTreeMap::new(),
            taken: BTreeSet::new(),
            last: network + 1,
        };
        pool.load()
            .map_err(|error| file("read", &pool.path, error))?;
        Ok(Ipam(Arc::new(Mutex::new(pool))))
    }

    /// The same pool as part of the network of an external router. Without `prefix` that network is the
    /// pool's.
    ///
    /// # Errors
    /// [`IpamError::Router`].
    pub fn routed_by(self, gateway: Ipv4Addr, prefix: Option<u8>) -> Result<Self, IpamError> {
        {
            let mut pool = self.0.lock();
            let prefix = prefix.unwrap_or(pool.prefix);
            let network = |address: u32| address & mask(prefix);
            if prefix > pool.prefix || network(u32::from(gateway)) != network(pool.network) {
                return Err(IpamError::Router {
                    gateway,
                    prefix,
                    pool: pool.cidr(),
                });
            }
            pool.router = (u32::from(gateway), prefix);
        }
        Ok(self)
    }

    /// The lease for an address, whoever owns it.
    pub fn at(&self, address: Ipv4Addr) -> Lease {
        self.0.lock().lease(u32::from(address))
    }

    /// The lease of `owner`, allocated if it has none.
    ///
    /// # Errors
    /// [`IpamError::IpamPoolExhausted`], [`IpamError::File`].
    pub fn allocate(&self, owner: &str) -> Result<Lease, IpamError> {
        let mut pool = self.0.lock();
        if let Some(&address) = pool.leases.get(owner) {
            return Ok(pool.lease(address));
        }
        let address = pool.free().ok_or_else(|| IpamError::IpamPoolExhausted {
            pool: pool.cidr(),
            size: pool.size(),
        })?;
        pool.note(owner, address)
            .map_err(|error| file("write", &pool.path, error))?;
        pool.leases.insert(owner.to_owned(), address);
        pool.taken.insert(address);
        pool.last = address;
        Ok(pool.lease(address))
    }

    /// The current lease of `owner`.
    pub fn lease(&self, owner: &str) -> Option<Lease> {
        let pool = self.0.lock();
        pool.leases.get(owner).map(|&address| pool.lease(address))
    }

    /// Releases the lease of `owner`, if it has one.
    ///
    /// # Errors
    /// [`IpamError::File`]; the lease is kept.
    pub fn release(&self, owner: &str) -> Result<(), IpamError> {
        let mut pool = self.0.lock();
        let Some(&address) = pool.leases.get(owner) else {
            return Ok(());
        };
        pool.erase(owner)
            .map_err(|error| file("write", &pool.path, error))?;
        pool.leases.remove(owner);
        pool.taken.remove(&address);
        Ok(())
    }

    /// All owners of leases.
    pub fn owners(&self) -> Vec<String> {
        self.0.lock().leases.keys().cloned().collect()
    }

    /// The gateway with its network's prefix length: the pool's first address, which is the host's own on the pods'
    /// network, unless there is an external router.
    pub fn gateway(&self) -> (Ipv4Addr, u8) {
        let (gateway, prefix) = self.0.lock().router;
        (Ipv4Addr::from(gateway), prefix)
    }

    /// The range as text.
    pub fn cidr(&self) -> String {
        self.0.lock().cidr()
    }
}

fn file(attempted: &'static str, path: &Path, cause: impl std::fmt::Display) -> IpamError {
    IpamError::File {
        attempted,
        path: path.to_owned(),
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_are_no_pool_are_refused_with_the_flag() {
        for (given, reason) in [
            ("10.0.0.0", "it has no prefix length"),
            ("fd00::/64", "it is not an IPv4 range"),
            ("10.0.0.0/x", "its prefix length is not a number"),
            ("10.0.0.0/30", "its prefix length must be between 8 and 29"),
            ("10.0.0.0/4", "its prefix length must be between 8 and 29"),
            ("10.0.0.1/24", "it has bits set beyond its prefix"),
        ] {
            let error = Ipam::in_memory(given).err().expect("refused").to_string();
            assert!(
                error.contains(reason) && error.contains("--pod-cidr"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_pool_is_waited_for_until_its_holder_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ipam.redb");
        let held = Ipam::open(&path, "10.9.0.0/29").expect("opens");
        let (tell, told) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            tell.send(()).expect("heard");
            Ipam::open(&path, "10.9.0.0/29").map(drop)
        });
        told.recv().expect("told");
        drop(held);
        other.join().expect("no panic").expect("opens after all");
    }

    #[test]
    fn a_router_that_is_another_machine_is_the_leases_and_nobodys_lease() {
        let pool = || Ipam::in_memory("192.0.2.64/29").expect("a pool");
        for (gateway, prefix, of_network, size) in [
            // The pool is the network.
            ([192, 0, 2, 70], None, 29, 5),
            ([192, 0, 2, 65], None, 29, 5),
            // It is part of it, with or without the router.
            ([192, 0, 2, 66], Some(24), 24, 5),
            ([192, 0, 2, 1], Some(24), 24, 6),
        ] {
            let gateway = Ipv4Addr::from(gateway);
            let ipam = pool().routed_by(gateway, prefix).expect("a router");
            assert_eq!(ipam.gateway(), (gateway, of_network));
            for number in 0..size {
                let lease = ipam.allocate(&number.to_string()).expect("room");
                assert_eq!((lease.gateway, lease.prefix), (gateway, of_network));
                assert_ne!(lease.address, gateway);
                assert!((65..=70).contains(&lease.address.octets()[3]));
            }
            let full = ipam.allocate("late").expect_err("full").to_string();
            assert!(full.contains(&format!("all {size} addresses")), "{full}");
        }
        for (gateway, prefix) in [
            ([192, 0, 2, 1], None),
            ([198, 51, 100, 1], Some(24)),
            ([192, 0, 2, 65], Some(30)),
        ] {
            let refused = pool().routed_by(gateway.into(), prefix);
            assert!(
                matches!(refused, Err(IpamError::Router { .. })),
                "{gateway:?}"
            );
        }
    }

    #[test]
    fn a_full_pool_names_itself_its_size_and_the_flag() {
        let ipam = Ipam::in_memory("10.9.0.0/29").expect("a pool");
        for number in 0..5 {
            ipam.allocate(&number.to_string()).expect("room");
        }
        assert_eq!(
            ipam.allocate("late").expect_err("full").to_string(),
            "IpamPoolExhausted: all 5 addresses of the pod address pool 10.9.0.0/29 are in use; delete pods, or start the agent with a larger --pod-cidr"
        );
        ipam.release("3").expect("released");
        assert_eq!(
            ipam.allocate("late").expect("room").address,
            Ipv4Addr::new(10, 9, 0, 5)
        );
    }

    #[test]
    fn links_are_legal_names_and_all_different() {
        let ipam = Ipam::in_memory("10.9.0.0/22").expect("a pool");
        let mut links = BTreeSet::new();
        for number in 0..1000 {
            let lease = ipam.allocate(&number.to_string()).expect("room");
            assert!(lease.link.len() <= 15 && lease.link.ends_with("n0"));
            assert!(lease.link.starts_with(|c: char| c.is_ascii_lowercase()));
            assert!(links.insert((lease.link, lease.mac)));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(u8),
        Release(u8),
        Reopen,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Compared with a map: idempotent, no duplicates, and correct after reopening without closing.
        #[test]
        fn behaves_as_a_map_of_owners(steps in proptest::collection::vec(
            prop_oneof![
                6 => (0u8..12).prop_map(Step::Allocate),
                4 => (0u8..12).prop_map(Step::Release),
                1 => Just(Step::Reopen),
            ], 1..60)
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("ipam.redb");
            let mut ipam = Ipam::open(&path, "10.9.0.0/28").expect("opens");
            let mut model: BTreeMap<String, Lease> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Allocate(owner) => {
                        let owner = owner.to_string();
                        let known = model.get(&owner).cloned();
                        match ipam.allocate(&owner) {
                            Ok(lease) => {
                                match known {
                                    Some(known) => prop_assert_eq!(&known, &lease),
                                    None => prop_assert!(model.values().all(|other| other.address != lease.address)),
                                }
                                model.insert(owner, lease);
                            }
                            Err(_) => prop_assert!(known.is_none() && model.len() == 13),
                        }
                    }
                    Step::Release(owner) => {
                        ipam.release(&owner.to_string()).expect("released");
                        model.remove(&owner.to_string());
                    }
                    Step::Reopen => {
                        drop(ipam);
                        ipam = Ipam::open(&path, "10.9.0.0/28").expect("opens again");
                    }
                }
                prop_assert_eq!(ipam.owners(), model.keys().cloned().collect::<Vec<_>>());
                for (owner, lease) in &model {
                    prop_assert_eq!(ipam.lease(owner), Some(lease.clone()));
                }
            }
        }
    }
}
