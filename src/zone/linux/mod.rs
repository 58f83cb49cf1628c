//! Zones on Linux: each is a sandbox of namespaces and control groups, with `reddwarf init` in it.
//!
//! ```text
//! DIRECTORY/ZONE/zone.json   its specification           agent.sock   where its supervisor dials
//! DIRECTORY/ZONE/pid         its supervisor's process    init.log     messages of its supervisor
//! ```
//! Nothing is mounted on the host: mounts live in the namespaces of the zone and end with it.

mod devices;
mod groups;
mod home;
mod netlink;
mod network;
mod routes;
mod runtime;
mod services;
mod tables;
mod tools;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::home::Home;
use super::ZoneName;
use super::link::Link;
use super::supervised::{self, Zones};
use super::supervisor::Configuration;

pub use self::home::start_time;
pub use groups::Groups;
pub use netlink::address_changes;
pub use network::Network;
pub use routes::HostRoutes;
pub use services::ServiceTable;

/// How often the network's rules are checked.
const LOOK: Duration = Duration::from_secs(30);

/// The Linux runtime. Clones share the same zones.
#[derive(Clone)]
pub struct Linux(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    groups: Groups,
    network: Network,
    zones: Zones<Home>,
}

impl Linux {
    /// The runtime with its zones in `directory`; finds running ones.
    ///
    /// # Errors
    /// What this host lacks, with the remedy.
    pub fn open(directory: &Path, groups: Groups, network: Network) -> Result<Self, String> {
        let wrong = |error: io::Error| format!("cannot use {}: {error}", directory.display());
        fs::create_dir_all(directory).map_err(wrong)?;
        network.prepare()?;
        let inner = Arc::new(Inner {
            directory: directory.to_owned(),
            groups,
            network,
            zones: Zones::default(),
        });
        for configuration in supervised::records::<Configuration>(directory).map_err(wrong)? {
            let name = configuration.spec.name.clone();
            let home = inner.home(&name, configuration);
            if home.pid().is_some() {
                home.link.listen(&home.directory).map_err(wrong)?;
                // An earlier version of the agent may have had different rules.
                inner.network.lead(&home.configuration.spec)?;
            }
            inner.zones.add(name, home);
        }
        let known =
            |name: &str| ZoneName::new(name).is_some_and(|zone| inner.zones.get(&zone).is_some());
        inner.groups.sweep(&known);
        Ok(Linux(inner))
    }

    /// Checks the rules of the zones' network periodically, until `ends` is cancelled: somebody may flush them. The
    /// rules of services are checked elsewhere.
    pub async fn keep_network(self, ends: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = ends.cancelled() => return,
            }
            let inner = self.0.clone();
            if let Err(error) = crate::blocking::blocking(move || inner.mend_network()).await {
                tracing::warn!(error, "cannot check the rules of the pods' network");
            }
        }
    }
}

impl Inner {
    fn home(&self, name: &ZoneName, configuration: Configuration) -> Arc<Home> {
        Arc::new(Home {
            directory: self.directory.join(name.as_str()),
            limits: Mutex::new(configuration.spec.limits.clone()),
            configuration,
            link: Link::new(name.to_string(), self.zones.teller(name)),
            steps: tokio::sync::Mutex::new(()),
        })
    }

    /// Adds missing rules of the network.
    fn mend_network(&self) -> Result<(), String> {
        let mut running = self.zones.all();
        running.retain(|home| home.pid().is_some());
        let specs = running.iter().map(|home| &home.configuration.spec);
        if self.network.is_whole(specs)? {
            return Ok(());
        }
        tracing::warn!(
            "rules of the pods' network were removed by somebody else; adding them again"
        );
        self.network.prepare()?;
        for home in running {
            // A zone that ends meanwhile removes its own rules.
            let _step = home.steps.blocking_lock();
            if home.pid().is_some() {
                self.network.lead(&home.configuration.spec)?;
            }
        }
        Ok(())
    }
}
