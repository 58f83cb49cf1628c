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
mod layout;
pub mod life;
mod nat;
pub mod native;
mod plan;
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

use futures::FutureExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::link::Link;
use super::supervised::{self, Zones, remove_record};
use super::supervisor::{Configuration, ZONE};
use super::{
    Answer, Change, Limits, Of, ProcessId, ProcessSpec, Zone, ZoneError, ZoneName, ZoneSpec,
    ZoneState, ZoneUsage,
};
use crate::blocking::blocking;
use crate::illumos::parse::{HostState, ZoneRow};
use crate::illumos::{Class, Command, Failure, Tool, Tools};
use crate::net::illumos::NetworkConfig;
use crate::net::services::ServiceRouter;
use crate::private::write_whole;
pub use config::MARK;
pub use layout::{
    Brand, CONTROL, Layout, READABLE, SHARES, Settings, WRITABLE, dataset_directory, owner,
};
use nat::{Router, Rules};
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

/// The record of a zone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    spec: ZoneSpec,
    created: Timestamp,
    /// The actual brand of a zone that asked for none: the flags may change the default later.
    #[serde(default)]
    brand: Option<String>,
    /// Its limits, if they differ from its configuration.
    #[serde(default)]
    resized: Option<Limits>,
}

/// One zone of ours.
pub(super) struct Home {
    record: Record,
    layout: Layout,
    link: Arc<Link>,
    /// Ensures that only one step runs at a time.
    steps: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

/// The last observation of a zone.
#[derive(Debug, Clone, Default)]
struct Known {
    row: Option<ZoneRow>,
    /// The boot whose link is protected and that has its limits.
    settled: Option<String>,
    /// Since when it has been in a state in which it must not stay.
    still: Option<std::time::Instant>,
    /// Its limits, if they differ from its configuration.
    resized: Option<Limits>,
}

impl supervised::Home for Home {
    fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn zone(&self) -> Zone {
        let boot = self.link.boot();
        let known = self.known.lock();
        let state = match known.row.as_ref().map(|row| row.state) {
            Some(HostState::Running) if boot.is_some() => ZoneState::Running,
            Some(HostState::Running | HostState::ShuttingDown | HostState::Down) => {
                ZoneState::Unreachable
            }
            Some(HostState::Installed | HostState::Ready | HostState::Mounted) => {
                ZoneState::Installed
            }
            Some(HostState::Configured | HostState::Incomplete | HostState::Unknown) | None => {
                ZoneState::Incomplete
            }
        };
        Zone {
            spec: ZoneSpec {
                limits: known
                    .resized
                    .as_ref()
                    .unwrap_or(&self.record.spec.limits)
                    .clone(),
                ..self.record.spec.clone()
            },
            state,
            processes: match state {
                ZoneState::Running | ZoneState::Unreachable => self.link.processes(),
                _ => Vec::new(),
            },
            boot: boot.filter(|_| state == ZoneState::Running),
            created: self.record.created,
        }
    }
}

impl Home {
    /// The current limits of the zone.
    fn limits(&self) -> Limits {
        let resized = self.known.lock().resized.clone();
        resized.unwrap_or_else(|| self.record.spec.limits.clone())
    }

    /// Whether it was last seen running.
    fn runs(&self) -> bool {
        let known = self.known.lock();
        known
            .row
            .as_ref()
            .is_some_and(|row| row.state == HostState::Running)
    }

    /// Records an observation; returns whether it is new.
    fn see(&self, row: Option<ZoneRow>) -> bool {
        let mut known = self.known.lock();
        let changed = known.row != row;
        if changed {
            known.still = None;
        }
        known.row = row;
        changed
    }
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

    /// Writes the description that the supervisor reads when it starts, with paths inside the zone.
    async fn describe(&self, home: &Home) -> Result<(), String> {
        let mut spec = home.record.spec.clone();
        spec.memory_directories = spec
            .memory_directories
            .into_iter()
            .filter_map(|(path, size)| Some((home.layout.inside(&path)?, size)))
            .collect();
        let configuration = Configuration {
            spec,
            created: home.record.created,
            groups: Vec::new(),
        };
        let path = self
            .settings
            .data
            .join("pods")
            .join(&home.layout.owner)
            .join(ZONE);
        blocking(move || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            write_whole(&path, &serde_json::to_vec(&configuration)?)
        })
        .await
        .map_err(|error| error.to_string())
    }
}

impl supervised::Supervised for IllumosRuntime {
    type Home = Home;

    fn zones(&self) -> &Zones<Home> {
        &self.0.zones
    }

    fn brand(&self) -> &'static str {
        self.0.settings.brand.name()
    }

    fn brands(&self) -> Vec<&'static str> {
        let settings = &self.0.settings;
        let others = settings.sandboxes.keys().copied();
        std::iter::once(settings.brand)
            .chain(others.filter(|brand| *brand != settings.brand))
            .map(Brand::name)
            .collect()
    }

    fn lacks(&self) -> Answer<'_, Vec<String>> {
        async {
            let strangers = self.0.strangers.lock();
            Ok(strangers
                .iter()
                .map(|zone| format!("the zone {zone} has a name of ours and is not ours: rename it, or remove it"))
                .collect())
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()> {
        async move {
            let failed = |cause: String| ZoneError::failed("create", format!("zone {}", spec.name), cause);
            let found = self.0.zones.get(&spec.name);
            let home = match found {
                Some(home) => home,
                None => {
                    let home = self.0.home(Record {
                        spec: spec.clone(),
                        created: Timestamp::now(),
                        brand: Some(self.0.settings.brand.name().to_owned()),
                        resized: None,
                    })?;
                    if home.layout.sandbox.is_none() {
                        return Err(ZoneError::Refused {
                            operation: "create",
                            what: format!("zone {}", spec.name),
                            reason: format!("zones of the brand {} are not offered here: see `reddwarf doctor --brand {0}`", home.layout.brand.name()),
                        });
                    }
                    // There is no record of this zone: an existing one under its name must be ours.
                    let rows = self.0.tools.run(&home.layout.show()).await;
                    let there = match rows {
                        Ok(_) => true,
                        Err(failure) if failure.not_found() => false,
                        Err(failure) => return Err(failed(failure.to_string())),
                    };
                    if there {
                        let mark = self.0.mark(&spec.name).await;
                        if mark.map_err(|failure| failed(failure.to_string()))?.is_none() {
                            self.0.strangers.lock().insert(spec.name.to_string());
                            return Err(ZoneError::Refused {
                                operation: "create",
                                what: format!("zone {}", spec.name),
                                reason: "there is a zone of this name that is not ours; it is left alone: rename or remove it".into(),
                            });
                        }
                    }
                    let (directory, record) = (home.layout.directory.clone(), home.record.clone());
                    blocking(move || {
                        fs::create_dir_all(&directory)?;
                        write_whole(&directory.join(ZONE), &serde_json::to_vec(&record)?)
                    })
                    .await
                    .map_err(|error| failed(error.to_string()))?;
                    self.0.zones.add(spec.name.clone(), home)
                }
            };
            let _step = home.steps.lock().await;
            self.0.describe(&home).await.map_err(failed)?;
            let reached = self.0.reach("create", &home, Goal::Installed).await;
            self.0.zones.changed(&spec.name);
            reached
        }
        .boxed()
    }

    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let home = self.0.zones.find("boot", zone)?;
            let _step = home.steps.lock().await;
            let failed = |cause: String| ZoneError::failed("boot", format!("zone {zone}"), cause);
            self.0.describe(&home).await.map_err(failed)?;
            // The listener must exist before the supervisor dials.
            home.link
                .listen(&home.layout.control)
                .map_err(|error| failed(format!("{}: {error}", home.layout.control.display())))?;
            let led = self.0.rules.lead(zone, &home.layout.rules).await;
            led.map_err(|error| failed(error.to_string()))?;
            self.0.reach("boot", &home, Goal::Running).await?;
            if !home.link.hello(self.0.patience.hello).await {
                // The state `running` proves nothing: lxinit waits forever when it cannot continue.
                let halted = self.0.reach("halt", &home, Goal::Halted).await;
                home.link.close();
                self.0.zones.changed(zone);
                halted?;
                return Err(failed(format!(
                    "it was booted and nothing in it answers, so it was halted; look at its console (zlogin -C {zone}) while it boots"
                )));
            }
            if let Some(boot) = home.link.boot() {
                let settled = self.0.settle_in(&home, boot).await;
                settled.map_err(|failure| failed(failure.to_string()))?;
            }
            self.0.zones.changed(zone);
            Ok(())
        }
        .boxed()
    }

    fn halt<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let Some(home) = self.0.zones.get(zone) else {
                return Ok(());
            };
            let _step = home.steps.lock().await;
            self.0.reach("halt", &home, Goal::Halted).await?;
            self.0.rules.forget(zone).await;
            home.link.close();
            self.0.zones.changed(zone);
            Ok(())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let Some(home) = self.0.zones.get(zone) else {
                return Ok(());
            };
            let _step = home.steps.lock().await;
            self.0.reach("delete", &home, Goal::Absent).await?;
            self.0.rules.forget(zone).await;
            home.link.close();
            let (directory, path) = (home.layout.directory.clone(), home.layout.path.clone());
            let removed = blocking(move || {
                // An empty directory of the zonepath may remain; one with content must not be removed.
                let _ = fs::remove_dir(path);
                remove_record(&directory)
            });
            let failed = |cause| ZoneError::failed("delete", format!("zone {zone}"), cause);
            removed.await.map_err(failed)?;
            self.0.zones.remove(zone);
            Ok(())
        }
        .boxed()
    }

    fn admit<'a>(&'a self, home: &'a Home, process: &'a ProcessSpec) -> Answer<'a, ProcessSpec> {
        async { home.layout.process(process) }.boxed()
    }

    fn forgotten(&self, _: &Home, _: &ProcessId) {}

    fn limit<'a>(&'a self, home: &'a Home, change: &'a Change) -> Answer<'a, ()> {
        async move {
            if change.of != Of::Zone {
                // Limits apply to the whole zone: a single container has none.
                return Ok(());
            }
            let _step = home.steps.lock().await;
            let zone = &home.layout.zone;
            let failed = |cause: String| ZoneError::failed("limit", format!("zone {zone}"), cause);
            if !home.runs() {
                return Err(ZoneError::State {
                    operation: "limit",
                    what: format!("zone {zone}"),
                    state: "not running".into(),
                });
            }
            let capped = self.0.cap(home, &change.limits).await;
            capped.map_err(|failure| failed(failure.to_string()))?;
            let mut record = home.record.clone();
            let limits = change.limits.or(&home.limits());
            record.resized = Some(limits.clone());
            let directory = home.layout.directory.clone();
            blocking(move || write_whole(&directory.join(ZONE), &serde_json::to_vec(&record)?))
                .await
                .map_err(|error| failed(error.to_string()))?;
            home.known.lock().resized = Some(limits);
            Ok(())
        }
        .boxed()
    }

    fn usage<'a>(&'a self, home: &'a Home) -> Answer<'a, ZoneUsage> {
        self.0.measure(home).boxed()
    }
}
