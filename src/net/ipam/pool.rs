//! The pool: free and leased addresses of a range, and what is written of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::super::{link_name, mac_address};
use super::{IpamError, LEASES, Lease, META};

pub(super) struct Pool {
    /// `None` for a pool in memory.
    pub(super) database: Option<Database>,
    pub(super) path: PathBuf,
    pub(super) network: u32,
    pub(super) prefix: u8,
    /// The router, and the prefix length of its network.
    pub(super) router: (u32, u8),
    pub(super) leases: BTreeMap<String, u32>,
    pub(super) taken: BTreeSet<u32>,
    pub(super) last: u32,
}

pub(super) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// Parses a range.
pub(super) fn range(given: &str) -> Result<(u32, u8), IpamError> {
    let wrong = |reason| IpamError::Range {
        given: given.to_owned(),
        reason,
    };
    let (address, prefix) = given
        .split_once('/')
        .ok_or_else(|| wrong("it has no prefix length"))?;
    let address: Ipv4Addr = address
        .parse()
        .map_err(|_| wrong("it is not an IPv4 range"))?;
    let prefix: u8 = prefix
        .parse()
        .map_err(|_| wrong("its prefix length is not a number"))?;
    if !(8..=29).contains(&prefix) {
        return Err(wrong("its prefix length must be between 8 and 29"));
    }
    if u32::from(address) & !mask(prefix) != 0 {
        return Err(wrong("it has bits set beyond its prefix"));
    }
    Ok((u32::from(address), prefix))
}

impl Pool {
    pub(super) fn cidr(&self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
    /// How many addresses can be assigned: all except the network's, the gateway's and the broadcast address.
    pub(super) fn size(&self) -> u32 {
        let hosts = self.first()..self.end();
        self.end() - self.first() - u32::from(hosts.contains(&self.router.0))
    }
    fn first(&self) -> u32 {
        self.network + 1
    }
    /// The broadcast address.
    fn end(&self) -> u32 {
        self.network | !mask(self.prefix)
    }
    pub(super) fn lease(&self, address: u32) -> Lease {
        Lease {
            address: Ipv4Addr::from(address),
            prefix: self.router.1,
            gateway: Ipv4Addr::from(self.router.0),
            mac: mac_address(Ipv4Addr::from(address)),
            link: link_name(address),
        }
    }
    /// The next free address after the last one assigned.
    pub(super) fn free(&self) -> Option<u32> {
        let start = (self.last + 1).clamp(self.first(), self.end());
        (start..self.end())
            .chain(self.first()..start)
            .find(|address| *address != self.router.0 && !self.taken.contains(address))
    }
    pub(super) fn load(&mut self) -> Result<(), redb::Error> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let write = database.begin_write()?;
        {
            let leases = write.open_table(LEASES)?;
            for row in leases.iter()? {
                let (owner, address) = row?;
                // A lease from an earlier range is kept as long as its owner lives: its zone has that address.
                self.leases
                    .insert(owner.value().to_owned(), address.value());
                self.taken.insert(address.value());
            }
            let meta = write.open_table(META)?;
            if let Some(last) = meta.get("last")? {
                self.last = last.value();
            }
        }
        write.commit()?;
        let read = database.begin_read()?;
        read.open_table(LEASES)?;
        Ok(())
    }
    pub(super) fn note(&self, owner: &str, address: u32) -> Result<(), redb::Error> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let write = database.begin_write()?;
        {
            write.open_table(LEASES)?.insert(owner, address)?;
            write.open_table(META)?.insert("last", address)?;
        }
        write.commit()?;
        Ok(())
    }
    pub(super) fn erase(&self, owner: &str) -> Result<(), redb::Error> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let write = database.begin_write()?;
        write.open_table(LEASES)?.remove(owner)?;
        write.commit()?;
        Ok(())
    }
}
