//! Flags that say what this host gives to pods, for every command that takes them.

use std::net::Ipv4Addr;

use crate::net::illumos::{DirectNicConfig, EtherstubConfig, NetworkConfig};
use crate::storage::{ConfigError, StoragePoolConfig};

/// Where images, zones and volumes are.
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
    /// The places that the flags name, in `default_pool` where they name no pool.
    ///
    /// # Errors
    /// [`ConfigError`] names the place that is none.
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
    /// Put pods on the network of --physical-nic itself (illumos): a NIC, an aggregation or a VLAN.
    #[arg(long, requires = "physical_nic")]
    pub direct_nic: bool,
    /// The VLAN of pods on --direct-nic.
    #[arg(long, requires = "direct_nic")]
    pub vlan: Option<u16>,
    /// The router of the network of --direct-nic; by default the first address of --pod-cidr.
    #[arg(long, requires = "direct_nic")]
    pub gateway: Option<Ipv4Addr>,
}

impl NetworkFlags {
    /// The network that the flags describe, where pods get addresses of `cidr`, whose first is `gateway`.
    pub fn network(&self, cidr: String, gateway: Ipv4Addr, prefix_len: u8) -> NetworkConfig {
        match (self.direct_nic, &self.physical_nic) {
            (true, Some(link)) => NetworkConfig::Direct(DirectNicConfig {
                link: link.clone(),
                vlan: self.vlan,
                gateway: self.gateway.unwrap_or(gateway),
                prefix_len,
            }),
            _ => NetworkConfig::Etherstub(EtherstubConfig {
                etherstub: self.etherstub_name.clone(),
                gateway,
                prefix_len,
                cidr,
                external: self.physical_nic.clone(),
            }),
        }
    }
}
