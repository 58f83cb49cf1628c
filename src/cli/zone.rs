//! `reddwarf zone`: shows what the agent would do on an illumos host; works on any platform.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::host::{NetworkFlags, StorageFlags};
use crate::node::{describe, machine};
use crate::storage::zfs::names::Names;
use crate::zone::illumos::{Brand, Layout, Settings, life, sandbox};

/// The flags of `zone`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print every command, file and dataset for a pod on an illumos host. Nothing is run.
    Plan(Box<Plan>),
}

/// The flags of `zone plan`, which describe the host.
#[derive(clap::Args)]
struct Plan {
    /// The pod, as YAML or JSON.
    #[arg(short, long)]
    filename: PathBuf,
    /// The default brand; the pod's annotation reddwarf.io/zone-brand overrides it. Set it to the brand of the pod's
    /// runtime class, if it has one.
    #[arg(long, value_enum, default_value = "lx")]
    brand: Brand,
    #[command(flatten)]
    storage: StorageFlags,
    /// The mountpoint of the dataset of zones; by default its name after a slash.
    #[arg(long)]
    zones_mountpoint: Option<PathBuf>,
    /// The agent's data directory.
    #[arg(long, default_value = "/var/lib/reddwarf")]
    data_dir: PathBuf,
    #[command(flatten)]
    network: NetworkFlags,
    /// The range from which pods get addresses.
    #[arg(long, default_value = "10.244.0.0/24")]
    pod_cidr: String,
    /// The pod's address; by default the first of the range.
    #[arg(long)]
    address: Option<Ipv4Addr>,
}

/// Runs the command.
///
/// # Errors
/// A text that says what failed, and why.
pub fn run(arguments: Arguments) -> Result<(), String> {
    match arguments.command {
        Command::Plan(plan) => {
            super::say(plan.text()?.trim_end());
            Ok(())
        }
    }
}

/// Reads a pod from a file and fills in the fields that a zone needs and an API server would set.
fn pod(path: &Path) -> Result<Pod, String> {
    let wrong = |error: String| {
        let error = super::brief(&error);
        format!("cannot read the pod in {}: {error}", path.display())
    };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let value = crate::schema::yaml::parse(&text).map_err(wrong)?;
    let mut json = String::new();
    crate::schema::json::write(&value.value, &mut json);
    let mut pod: Pod = serde_json::from_str(&json).map_err(|error| wrong(error.to_string()))?;
    let metadata = &mut pod.metadata;
    metadata.namespace.get_or_insert_with(|| "default".into());
    metadata
        .uid
        .get_or_insert_with(|| "00000000-0000-0000-0000-000000000000".into());
    Ok(pod)
}

impl Plan {
    fn text(&self) -> Result<String, String> {
        let pod = pod(&self.filename)?;
        let storage = self.storage.config(super::illumos::POOL);
        let storage = storage.map_err(|error| error.to_string())?;
        crate::storage::zfs::names::check(&storage).map_err(|error| error.to_string())?;
        let pool = crate::net::Ipam::in_memory(&self.pod_cidr)
            .and_then(|pool| self.network.addresses(pool))
            .map_err(|error| error.to_string())?;
        let network = self.network.network(&pool);
        network.check()?;
        let zones_directory = match &self.zones_mountpoint {
            Some(path) => path.clone(),
            None => Path::new("/").join(&storage.zones),
        };
        let sandbox = |brand| format!("{}/{}@ready", storage.images, sandbox::name(brand, b""));
        let settings = Settings {
            brand: self.brand,
            zones_dataset: storage.zones.clone(),
            zones_directory: zones_directory.clone(),
            data: self.data_dir.clone(),
            sandboxes: Brand::ALL.map(|brand| (brand, sandbox(brand))).into(),
            network,
            kernel_version: super::illumos::KERNEL_VERSION.into(),
            sandbox_quota: super::illumos::SANDBOX_QUOTA,
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let network = match spec.host_network == Some(true) {
            true => crate::zone::ZoneNetwork::Host,
            false => {
                let lease = match self.address {
                    Some(address) => Ok(pool.at(address)),
                    None => pool.allocate(&uid),
                };
                describe::network(&pod, lease.map_err(|error| error.to_string())?)
            }
        };
        let volumes = zones_directory.join("pods").join(uid).join("rw/volumes");
        let mut shares = describe::host_paths(&spec);
        let delegated = describe::delegated(&pod)?;
        let mut datasets = Vec::new();
        let names = Names(storage.clone());
        let claims = spec.volumes.iter().flatten();
        for volume in claims.filter(|volume| describe::is_claim(volume)) {
            // The bound volume is only known when the pod runs.
            let bound = format!("VOLUME-OF-{}", volume.name);
            match delegated.contains(&volume.name.as_str()) {
                true => datasets.push(names.delegated(&bound)),
                false => shares.push(Path::new("/").join(names.volume(&bound))),
            }
        }
        let mut zone = describe::zone_spec(&pod, network, &volumes, shares);
        zone.datasets = datasets;
        zone.limits = describe::limits(&pod);
        let layout = Layout::of(&zone, &settings, |_| false).map_err(|error| error.to_string())?;
        let containers: Vec<life::Container> = machine::containers(&spec)
            .into_iter()
            .map(|(_, container)| life::Container {
                name: container.name.clone(),
                layer: "sha256:DIGEST-OF-THE-TOPMOST-LAYER".into(),
            })
            .collect();
        life::print(&layout, &settings, &storage, &containers)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        plan: Plan,
    }

    /// Compares every `tests/illumos/plans/NAME.yaml`, whose first line has the flags, with the plan beside it. With
    /// `REDDWARF_UPDATE=1` rewrites the plans.
    #[test]
    fn plans_are_those_that_were_reviewed() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/illumos/plans");
        let mut count = 0;
        for entry in std::fs::read_dir(&directory).expect("read") {
            let path = entry.expect("read").path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            count += 1;
            let text = std::fs::read_to_string(&path).expect("read");
            let flags = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("# flags:"));
            let line = format!(
                "plan -f {} {}",
                path.display(),
                flags.expect("a first line of flags")
            );
            let plan = Line::parse_from(line.split_whitespace()).plan;
            let made = match plan.text() {
                Ok(text) => text,
                Err(error) => format!("refused: {error}\n"),
            };
            let golden = path.with_extension("plan");
            if std::env::var_os("REDDWARF_UPDATE").is_some() {
                std::fs::write(&golden, &made).expect("written");
            }
            let reviewed = std::fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(
                made,
                reviewed,
                "{}: REDDWARF_UPDATE=1 writes it anew",
                path.display()
            );
        }
        assert!(count >= 4, "only {count} plans");
    }
}
