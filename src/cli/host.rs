//! Flags about the parts of this host that pods use, for every command that takes them.

use std::net::Ipv4Addr;

use crate::net::illumos::{DirectNicConfig, EtherstubConfig, NetworkConfig};
use crate::net::{Ipam, IpamError};
use crate::storage::{ConfigError, StoragePoolConfig};

/// Where images, zones and volumes are stored.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct StorageFlags {
    /// The ZFS pool or dataset (illumos; by default rpool/reddwarf) or directory (Linux; by default in --data-dir) for
    /// images, zones and volumes.
    #[arg(long)]
    storage_pool: Option<String>,
    /// The dataset of zones; by default POOL/zones.
    #[arg(long)]
    zones_dataset: Option<String>,
    /// The dataset of images; by default POOL/images.
    #[arg(long)]
    images_dataset: Option<String>,
    /// The dataset of volumes; by default POOL/volumes.
    #[arg(long)]
    volumes_dataset: Option<String>,
}

impl StorageFlags {
    /// The places that the flags name, with `default_pool` if they name no pool.
    ///
    /// # Errors
    /// [`ConfigError`] names the invalid place.
    pub fn config(&self, default_pool: &str) -> Result<StoragePoolConfig, ConfigError> {
        StoragePoolConfig::derive(
            self.storage_pool.as_deref().unwrap_or(default_pool),
            self.zones_dataset.as_deref(),
            self.images_dataset.as_deref(),
            self.volumes_dataset.as_deref(),
        )
    }
}

/// How zones are connected.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct NetworkFlags {
    /// The etherstub (illumos) or bridge (Linux) of the pods' network.
    #[arg(long, default_value = "reddwarf0")]
    pub etherstub_name: String,
    /// The link that leads out of the host; by default the one of the default route.
    #[arg(long)]
    pub physical_nic: Option<String>,
    /// Put pods directly on the network of --physical-nic (illumos): a NIC, an aggregation or a VLAN.
    #[arg(long, requires = "physical_nic")]
    pub direct_nic: bool,
    /// The VLAN of pods with --direct-nic.
    #[arg(long, requires = "direct_nic")]
    pub vlan: Option<u16>,
    /// The router of the network with --direct-nic, and the network's prefix length if --pod-cidr is only a part of it;
    /// by default the first address of --pod-cidr.
    #[arg(long, requires = "direct_nic", value_name = "IP[/PREFIX]", value_parser = router)]
    pub gateway: Option<Router>,
}

/// The address of a router, and the prefix length of its network, if given.
pub type Router = (Ipv4Addr, Option<u8>);

fn router(text: &str) -> Result<Router, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address = address.parse();
    let address = address.map_err(|_| "it is not an IPv4 address".to_owned())?;
    let prefix = prefix.map(|prefix| {
        let prefix = prefix.parse().ok().filter(|bits| (1..=30).contains(bits));
        prefix.ok_or_else(|| "its prefix length is not between 1 and 30".to_owned())
    });
    Ok((address, prefix.transpose()?))
}

impl NetworkFlags {
    /// The addresses of pods on the network that the flags describe.
    ///
    /// # Errors
    /// The router is not in the range of the network.
    pub fn addresses(&self, pool: Ipam) -> Result<Ipam, IpamError> {
        match self.gateway {
            Some((gateway, prefix)) if self.direct_nic => pool.routed_by(gateway, prefix),
            _ => Ok(pool),
        }
    }

    /// The network that the flags describe, with pod addresses from `pool`.
    pub fn network(&self, pool: &Ipam) -> NetworkConfig {
        let (gateway, prefix_len) = pool.gateway();
        match (self.direct_nic, &self.physical_nic) {
            (true, Some(link)) => NetworkConfig::Direct(DirectNicConfig {
                link: link.clone(),
                vlan: self.vlan,
                gateway,
                prefix_len,
            }),
            _ => NetworkConfig::Etherstub(EtherstubConfig {
                etherstub: self.etherstub_name.clone(),
                gateway,
                prefix_len,
                cidr: pool.cidr(),
                external: self.physical_nic.clone(),
            }),
        }
    }
}
