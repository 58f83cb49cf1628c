//! Zones of illumos: one for each pod, with `reddwarf init` in it.
//!
//! ```text
//! DATA/zones/NAME/zone.json   its specification             DATA/zones/NAME/ctl/agent.sock   where its supervisor dials
//! DATA/zones/NAME/zonecfg     its configuration file        DATA/pods/OWNER/zone.json        its description, as it reads it
//! ```
//! [`plan`] decides, this module carries out. Memory only has what was last observed; it is updated by every step, by a
//! periodic look at all zones, and when a supervisor connects or disconnects. Steps of one zone wait for one another,
//! those of different zones do not.

mod config;
mod drive;
mod home;
mod layout;
pub mod life;
mod nat;
pub mod native;
mod plan;
mod runtime;
pub mod sandbox;
mod services;
mod usage;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nat::{Router, Rules};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::home::{Home, Known, Record};
use super::link::Link;
use super::supervised::{self, Zones};
use super::{Limits, ZoneError};
use crate::blocking::blocking;
use crate::illumos::parse::HostState;
use crate::illumos::{Class, Command, Failure, Tool, Tools};
use crate::net::illumos::NetworkConfig;
use crate::net::services::ServiceRouter;

pub use config::MARK;
pub use layout::{Brand, CONTROL, Layout, READABLE, SHARES, Settings, WRITABLE, owner};
pub use plan::{
    FileAction as PlanFile, Goal, Seen as SeenZone, Step as PlanStep, plan as plan_steps,
};

/// Time limits and intervals.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a supervisor may take to connect; after that the zone is halted.
    pub hello: Duration,
    /// How long a zone may take to change by itself.
    pub change: Duration,
    /// How long to wait before looking again at a zone that changes by itself.
    pub again: Duration,
    /// How often to look at all zones.
    pub look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            hello: Duration::from_secs(60),
            change: Duration::from_secs(120),
            again: Duration::from_millis(500),
            look: Duration::from_secs(5),
        }
    }
}

/// The illumos runtime. Clones share the same zones.
#[derive(Clone)]
pub struct IllumosRuntime(Arc<Inner>);

struct Inner {
    settings: Settings,
    tools: Arc<dyn Tools>,
    patience: Patience,
    rules: Arc<Rules>,
    zones: Zones<Home>,
    /// Zones with our names that are not ours.
    strangers: Mutex<BTreeSet<String>>,
    /// Notified when a supervisor connected or disconnected.
    stirred: Arc<Notify>,
    _ends: DropGuard,
}

impl IllumosRuntime {
    /// The runtime of the zones that `settings` describes; finds existing zones, and kills what an earlier agent left
    /// running. Must be called in a tokio runtime; looks at zones until the last clone is dropped.
    ///
    /// # Errors
    /// Zones cannot be listed, or files cannot be read.
    pub async fn open(
        settings: Settings,
        tools: Arc<dyn Tools>,
        patience: Patience,
    ) -> Result<Self, String> {
        settings.network.check()?;
        let directory = settings.data.join("zones");
        let kept = directory.clone();
        let records = blocking(move || {
            fs::create_dir_all(&kept)?;
            supervised::records::<Record>(&kept)
        });
        let wrong = |error: io::Error| format!("cannot use {}: {error}", directory.display());
        let records = records.await.map_err(wrong)?;
        let ends = CancellationToken::new();
        let notes = settings.data.join("services");
        let inner = Arc::new(Inner {
            rules: Arc::new(Rules::new(tools.clone(), settings.network.clone(), &notes)),
            settings,
            tools,
            patience,
            zones: Zones::default(),
            strangers: Mutex::default(),
            stirred: Arc::default(),
            _ends: ends.clone().drop_guard(),
        });
        let mut homes = Vec::new();
        for record in records {
            let name = record.spec.name.clone();
            match inner.home(record) {
                Ok(home) => homes.push(home),
                Err(error) => {
                    tracing::warn!(zone = %name, %error, "the record of a zone does not fit this host any more; leaving it alone");
                }
            }
        }
        let settled = homes
            .iter()
            .map(|home| inner.tools.settle(home.layout.zone.as_str()));
        for settled in futures::future::join_all(settled).await {
            settled.map_err(|failure| failure.to_string())?;
        }
        let rows = inner.rows().await.map_err(|failure| failure.to_string())?;
        let mut led = BTreeMap::new();
        for home in homes {
            let row = rows
                .iter()
                .find(|row| row.name == home.layout.zone.as_str());
            if row.is_some_and(|row| row.state == HostState::Running) {
                home.link.listen(&home.layout.control).map_err(wrong)?;
                led.insert(home.layout.zone.clone(), home.layout.rules.clone());
            }
            home.see(row.cloned());
            inner.zones.add(home.layout.zone.clone(), home);
        }
        for row in rows {
            inner.adopt(row).await;
        }
        inner.sweep().await;
        if let Err(error) = inner.rules.begin(led).await {
            tracing::warn!(%error, "pods cannot reach other networks and host ports do not work; retrying");
        }
        let (watched, stirred) = (Arc::downgrade(&inner), inner.stirred.clone());
        let look = inner.patience.look;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // All of these are cancel-safe: a notification stays pending.
                    () = stirred.notified() => {}
                    () = tokio::time::sleep(look) => {}
                    () = ends.cancelled() => return,
                }
                let Some(inner) = watched.upgrade() else {
                    return;
                };
                inner.look().await;
            }
        });
        Ok(IllumosRuntime(inner))
    }
}

impl IllumosRuntime {
    /// Implements services for its zones, on a host with these addresses; None if the router is another machine.
    pub fn router(&self, addresses: Vec<Ipv4Addr>) -> Option<Arc<dyn ServiceRouter>> {
        let rules = self.0.rules.clone();
        match &self.0.settings.network {
            NetworkConfig::Etherstub(_) => Some(Arc::new(Router {
                rules,
                addresses: parking_lot::Mutex::new(addresses),
            })),
            NetworkConfig::Direct(_) => None,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Zones keep running; their supervisors dial the next agent.
        for home in self.zones.all() {
            home.link.close();
        }
    }
}

impl Inner {
    /// Sets resource controls of a running zone: existing ones are replaced, others added. Whether they deny excess
    /// depends on the kernel's flags for the control, which prctl(1) knows.
    async fn cap(&self, home: &Home, limits: &Limits) -> Result<(), Failure> {
        let zone = home.layout.zone.as_str();
        for (control, value) in config::controls(limits) {
            let set = |how: &[&str]| {
                let mut words = vec!["-n", control, "-t", "privileged"];
                words.extend(how);
                let tail = ["-v", &value, "-i", "zone", zone];
                words.extend(tail);
                Command::new(Tool::Prctl, words.iter().map(|word| (*word).to_owned()))
            };
            match self.tools.run(&set(&["-r"])).await {
                Err(failure) if failure.class == Class::NotFound => {
                    self.tools.run(&set(&["-s"])).await?;
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    fn home(&self, record: Record) -> Result<Arc<Home>, ZoneError> {
        let mut spec = record.spec.clone();
        spec.brand = spec.brand.or_else(|| record.brand.clone());
        let layout = Layout::of(&spec, &self.settings, Path::is_file)?;
        let (tell, stirred) = (self.zones.teller(&layout.zone), self.stirred.clone());
        Ok(Arc::new(Home {
            link: Link::new(layout.zone.to_string(), move || {
                tell();
                stirred.notify_one();
            }),
            known: Mutex::new(Known {
                resized: record.resized.clone(),
                ..Known::default()
            }),
            record,
            layout,
            steps: tokio::sync::Mutex::new(()),
        }))
    }
}
