//! The agent of an illumos host, made from the flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::agent::AgentError;
use super::cluster::Cluster;
use super::host::NetworkFlags;
use super::names::NameFlags;
use super::nodes::{RealHost, this_host};
use crate::illumos::{Command, HostTools, Tool, Tools, parse};
use crate::net::Ipam;
use crate::net::illumos::{self as net, NetworkConfig};
use crate::node::addresses::Addresses;
use crate::node::agent::Setup;
use crate::node::images::Images;
use crate::storage::{StorageEngine as _, StoragePoolConfig, ZfsStorageEngine, zfs};
use crate::zone::illumos::{Brand, IllumosRuntime, Patience, Settings, sandbox};

/// The default of `--storage-pool`.
pub const POOL: &str = "rpool/reddwarf";
/// What `uname -r` says in lx zones.
pub const KERNEL_VERSION: &str = "5.10.0";
/// The quota of a zone's own root, in bytes. Containers have separate roots.
pub const SANDBOX_QUOTA: u64 = 256 << 20;

/// Flags of an illumos host.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct IllumosFlags {
    /// The default brand of zones (illumos); a pod's runtime class or annotation reddwarf.io/zone-brand overrides it.
    #[arg(long, value_enum, default_value = "lx")]
    brand: Brand,
    /// A directory with zonecfg, zoneadm, dladm, zfs, ... instead of this host's (illumos): for a fake host.
    #[arg(long, env = "REDDWARF_ILLUMOS_TOOLS")]
    illumos_tools: Option<PathBuf>,
    /// The static Linux program that supervises lx zones; by default `reddwarf.lx` beside this program.
    #[arg(long)]
    zone_init: Option<PathBuf>,
    /// What `uname -r` says in lx zones.
    #[arg(long, default_value = KERNEL_VERSION)]
    lx_kernel_version: String,
    /// Reserve the capacity of volumes when they are created (illumos).
    #[arg(long)]
    reserve_volumes: bool,
    /// The directory of installed brands.
    #[arg(long, default_value = "/usr/lib/brand", hide = true)]
    brands: PathBuf,
}

/// The agent of an illumos host before it has a client.
#[derive(Clone)]
pub struct Plan {
    /// The node's name.
    pub name: String,
    /// The address at which other hosts reach it, if given.
    pub addresses: Addresses,
    /// The port of kube-proxy's health check for load balancers.
    pub proxy_healthz_port: u16,
    /// The agent's data directory, absolute.
    pub data: PathBuf,
    /// The host's tools.
    pub tools: Arc<dyn Tools>,
    /// Images, roots and volumes.
    pub engine: Arc<ZfsStorageEngine>,
    /// Where they are kept.
    pub storage: StoragePoolConfig,
    /// Addresses of pods.
    pub ipam: Ipam,
    /// How zones are connected.
    pub network: NetworkFlags,
    /// Flags about name servers.
    pub names: NameFlags,
    /// The other flags.
    pub flags: IllumosFlags,
    /// Registries to contact over plain HTTP.
    pub insecure: Vec<String>,
    /// When pods are evicted.
    pub thresholds: crate::node::pressure::Thresholds,
    /// The sysctls that pods may set.
    pub sysctls: crate::node::sysctls::Sysctls,
}

fn host(error: impl std::fmt::Display) -> AgentError {
    AgentError::Host(error.to_string())
}

/// The tools of this host, or those in a directory. Process groups that they leave running are recorded in a place that
/// a reboot of the host clears.
pub fn tools(directory: Option<&Path>, data: &Path) -> Result<Arc<dyn Tools>, AgentError> {
    let notes = match cfg!(target_os = "illumos") {
        true => PathBuf::from("/var/run/reddwarf"),
        false => data.join("run"),
    };
    let tools = HostTools::new(directory, &notes);
    let tools = tools.map_err(|error| host(format!("cannot make {}: {error}", notes.display())))?;
    Ok(Arc::new(tools))
}

impl IllumosFlags {
    /// The host's tools.
    pub fn tools(&self, data: &Path) -> Result<Arc<dyn Tools>, AgentError> {
        tools(self.illumos_tools.as_deref(), data)
    }

    /// Whether the tools are those of this host.
    pub fn tools_of_this_host(&self) -> bool {
        self.illumos_tools.is_none()
    }

    /// Whether volumes reserve their capacity when they are created.
    pub fn reserves_volumes(&self) -> bool {
        self.reserve_volumes
    }

    /// The default brand of zones.
    pub fn brand(&self) -> Brand {
        self.brand
    }

    /// Where a brand's files are.
    pub fn brand_directory(&self, brand: Brand) -> PathBuf {
        self.brands.join(brand.name())
    }

    /// The program that supervises lx zones.
    pub fn supervisor_path(&self) -> Result<PathBuf, AgentError> {
        match &self.zone_init {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe().map_err(host)?.with_extension("lx")),
        }
    }

    /// The supervisor to put into the sandbox of a brand; the brand reddwarf has its own. Brands other than the default
    /// one are only offered if the supervisor is installed.
    fn supervisor(&self, brand: Brand) -> Result<Vec<u8>, AgentError> {
        let description = self.brand_directory(brand).join("config.xml");
        if brand != self.brand && !description.exists() {
            return Err(host(format!("{} is not there", description.display())));
        }
        if brand == Brand::Reddwarf {
            return Ok(Vec::new());
        }
        let path = self.supervisor_path()?;
        std::fs::read(&path).map_err(|error| {
            host(format!(
                "cannot read {}, the program that supervises lx zones: {error}; build it with hack/omnios-build, or name it with --zone-init",
                path.display()
            ))
        })
    }
}

impl Plan {
    /// Sets up the host's side of everything, and finds the existing zones.
    ///
    /// # Errors
    /// What this host lacks, with the remedy.
    pub async fn setup(self, cluster: Cluster) -> Result<Setup, AgentError> {
        let (tools, engine) = (self.tools, self.engine);
        let brand = self.flags.brand;
        engine.prepare().await.map_err(host)?;
        let mut sandboxes = BTreeMap::new();
        for one in Brand::ALL {
            let supervisor = match self.flags.supervisor(one) {
                Ok(supervisor) => supervisor,
                Err(error) if one == brand => return Err(error),
                Err(error) => {
                    tracing::info!(%error, "zones of the brand {} are not supported here", one.name());
                    continue;
                }
            };
            let name = sandbox::name(one, &supervisor);
            let write = move |root: &Path| sandbox::write(root, one, &supervisor);
            let sandbox = zfs::sandbox(&engine, &name, write).await.map_err(host)?;
            sandboxes.insert(one, sandbox);
        }
        let mut flags = self.network.clone();
        if flags.physical_nic.is_none() {
            let route = Command::new(Tool::Route, ["-n", "get", "default"]);
            flags.physical_nic = match tools.run(&route).await {
                Ok(output) => parse::default_link(&output.stdout),
                Err(failure) => {
                    tracing::warn!(%failure, "pods can only reach this host: name its external link with --physical-nic");
                    None
                }
            };
        }
        let network = flags.network(&self.ipam);
        network.check().map_err(host)?;
        let address = match &network {
            NetworkConfig::Etherstub(config) => {
                net::prepare(tools.as_ref(), config).await.map_err(host)?;
                Some(config.gateway)
            }
            // The router of that network is another machine.
            NetworkConfig::Direct(_) => None,
        };
        let zones_directory = mountpoint(tools.as_ref(), &self.storage.zones).await?;
        let homes = zones_directory.join("pods");
        let settings = Settings {
            brand,
            zones_dataset: self.storage.zones.clone(),
            zones_directory,
            data: self.data.clone(),
            sandboxes,
            network,
            kernel_version: self.flags.lx_kernel_version.clone(),
            sandbox_quota: SANDBOX_QUOTA,
        };
        let images = mountpoint(tools.as_ref(), &self.storage.images).await?;
        let runtime = IllumosRuntime::open(settings, tools.clone(), Patience::default())
            .await
            .map_err(host)?;
        let engine: Arc<dyn crate::storage::StorageEngine> = engine;
        let images = Images::new(&images.join("records"), engine.clone());
        let mut registration = this_host(&self.name, self.addresses, brand.name(), &self.data);
        if let Some(memory) = memory(tools.as_ref()).await {
            let memory = format!("{}Ki", memory / 1024);
            registration.capacity.insert("memory".into(), memory);
        }
        let router = runtime.router(registration.addresses.ipv4());
        let host = RealHost {
            registration,
            homes: Some(homes),
            data: self.data,
            ipam: self.ipam,
            address,
            names: self.names,
            storage: engine,
            images,
            insecure: self.insecure,
            router,
            routes: None,
            proxy_healthz_port: self.proxy_healthz_port,
            runtime: Arc::new(runtime),
            beside: Vec::new(),
            thresholds: self.thresholds,
            sysctls: self.sysctls,
        };
        host.setup(cluster).await
    }
}

/// The mountpoint of a dataset.
///
/// # Errors
/// It is not mounted.
pub async fn mountpoint(tools: &dyn Tools, dataset: &str) -> Result<PathBuf, AgentError> {
    let output = tools
        .run(&zfs::names::list(dataset, false))
        .await
        .map_err(host)?;
    let row = zfs::names::rows(&output.stdout).into_iter().next();
    row.and_then(|row| row.mountpoint)
        .ok_or_else(|| host(format!("{dataset} is not mounted anywhere")))
}

/// This host's memory in bytes.
async fn memory(tools: &dyn Tools) -> Option<u64> {
    let command = Command::new(Tool::Kstat, ["-p", "unix:0:system_pages:physmem"]);
    let output = tools.run(&command).await.ok()?;
    let stats = parse::kstats(&output.stdout);
    let pages: u64 = stats.first()?.1.trim().parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
