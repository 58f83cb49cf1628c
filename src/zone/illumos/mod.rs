//! Zones of illumos: one a pod, with `reddwarf init` in it.
//!
//! ```text
//! DATA/zones/NAME/zone.json   what it was made of           DATA/zones/NAME/ctl/agent.sock   where its supervisor dials
//! DATA/zones/NAME/zonecfg     its configuration file        DATA/pods/OWNER/zone.json        its description, as it reads it
//! ```
//! [`plan`] decides, this carries out. What is kept in memory is what was seen last; it is renewed by every step, by a
//! look at all zones now and then, and when a supervisor comes or goes. Steps of one zone wait for one another, those
//! of different zones never do.

mod config;
mod layout;
pub mod life;
mod plan;
pub mod sandbox;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::link::{self, Link};
use super::supervisor::{Configuration, What, ZONE};
use super::{
    Answer, Duplex, ExecSpec, Limits, ProcessId, ProcessSpec, Session, Signal, Usage, Zone,
    ZoneError, ZoneName, ZoneNetwork, ZoneRuntime, ZoneSpec, ZoneState, ZoneUsage,
};
use crate::illumos::parse::{self, HostState, ZoneRow};
use crate::illumos::{Class, Command, Failure, Tool, Tools};
use crate::net::illumos::{delete_vnic, is_ours, show_rules, show_vnics};
use plan::{Effect, FileAction, Next, Seen, Step};

pub use config::MARK;
pub use layout::{Brand, CONTROL, Layout, READABLE, SHARES, Settings, WRITABLE, owner};
pub use plan::{
    FileAction as PlanFile, Goal, Seen as SeenZone, Step as PlanStep, plan as plan_steps,
};

/// How long things may take, and how often they are looked at.
#[derive(Debug, Clone)]
pub struct Patience {
    /// How long a supervisor may take to say hello; a zone without one is halted then.
    pub hello: Duration,
    /// How long a zone may take to change by itself.
    pub change: Duration,
    /// The wait before a zone that changes by itself is looked at again.
    pub again: Duration,
    /// How often all zones are looked at.
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

/// How often a step is taken again after a failure that may pass.
const TRIES: u32 = 4;
/// More steps than any zone takes from one state to another.
const STEPS: u32 = 60;

/// The illumos runtime. Clones are the same.
#[derive(Clone)]
pub struct IllumosRuntime(Arc<Inner>);

struct Inner {
    settings: Settings,
    tools: Arc<dyn Tools>,
    patience: Patience,
    zones: Mutex<BTreeMap<ZoneName, Arc<Home>>>,
    /// Zones of our names that are not ours.
    strangers: Mutex<BTreeSet<String>>,
    changes: broadcast::Sender<ZoneName>,
    /// A supervisor came or went.
    stirred: Arc<Notify>,
    _ends: DropGuard,
}

/// What is kept of a zone.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    spec: ZoneSpec,
    created: Timestamp,
}

/// One zone of ours.
struct Home {
    record: Record,
    layout: Layout,
    link: Arc<Link>,
    /// One step at a time.
    steps: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

/// What was seen of a zone last.
#[derive(Debug, Clone, Default)]
struct Known {
    row: Option<ZoneRow>,
    /// The boot whose link is protected.
    protected: Option<String>,
    /// Since when it runs without a supervisor.
    silent: Option<std::time::Instant>,
}

impl Home {
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
            spec: self.record.spec.clone(),
            state,
            processes: match state {
                ZoneState::Running | ZoneState::Unreachable => self.link.processes(),
                _ => Vec::new(),
            },
            boot: boot.filter(|_| state == ZoneState::Running),
            created: self.record.created,
        }
    }

    fn see(&self, row: Option<ZoneRow>) -> bool {
        let mut known = self.known.lock();
        let changed = known.row != row;
        if changed {
            known.silent = None;
        }
        known.row = row;
        changed
    }
}

/// File work away from the threads that answer requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let partial = path.with_extension("new");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(text)?;
    fs::rename(partial, path)
}

fn carry_out(actions: &[FileAction]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for action in actions {
        let (path, done) = match action {
            FileAction::Directory(path, mode) => {
                let made = fs::create_dir_all(path)
                    .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(*mode)));
                (path, made)
            }
            FileAction::Write(path, text) => (path, write_whole(path, text.as_bytes())),
            FileAction::Empty(path) => {
                let made = match fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(path)
                {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    other => other.map(drop),
                };
                (path, made)
            }
        };
        done.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

impl IllumosRuntime {
    /// The runtime of the zones that `settings` describes; those that are there are found again, and what an earlier
    /// agent left running is ended. Must be called in a tokio runtime; looks at zones until the last clone is dropped.
    ///
    /// # Errors
    /// Zones cannot be listed, or files not be read.
    pub async fn open(
        settings: Settings,
        tools: Arc<dyn Tools>,
        patience: Patience,
    ) -> Result<Self, String> {
        settings.network.check()?;
        let directory = settings.data.join("zones");
        let wrong = |error: io::Error| format!("cannot use {}: {error}", directory.display());
        fs::create_dir_all(&directory).map_err(wrong)?;
        let ends = CancellationToken::new();
        let inner = Arc::new(Inner {
            settings,
            tools,
            patience,
            zones: Mutex::default(),
            strangers: Mutex::default(),
            changes: broadcast::channel(1024).0,
            stirred: Arc::default(),
            _ends: ends.clone().drop_guard(),
        });
        let mut homes = Vec::new();
        for entry in fs::read_dir(&directory).map_err(wrong)?.flatten() {
            let text = match fs::read(entry.path().join(ZONE)) {
                Ok(text) => text,
                Err(_) => {
                    // Made half: nothing was asked of the host yet.
                    let _ = fs::remove_dir_all(entry.path());
                    continue;
                }
            };
            let home = serde_json::from_slice(&text)
                .map_err(|error| error.to_string())
                .and_then(|record| inner.home(record).map_err(|error| error.to_string()));
            match home {
                Ok(home) => homes.push(home),
                Err(error) => {
                    tracing::warn!(path = %entry.path().display(), error, "a zone cannot be read; it is left alone");
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
        for home in homes {
            let row = rows
                .iter()
                .find(|row| row.name == home.layout.zone.as_str());
            if row.is_some_and(|row| row.state == HostState::Running) {
                home.link.listen(&home.layout.control).map_err(wrong)?;
            }
            home.see(row.cloned());
            inner.zones.lock().insert(home.layout.zone.clone(), home);
        }
        for row in rows {
            inner.adopt(row).await;
        }
        inner.sweep().await;
        let (watched, stirred) = (Arc::downgrade(&inner), inner.stirred.clone());
        let look = inner.patience.look;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Cancel-safe, all of them: what was stirred stays so.
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

    fn find(&self, operation: &'static str, zone: &ZoneName) -> Result<Arc<Home>, ZoneError> {
        let found = self.0.zones.lock().get(zone).cloned();
        found.ok_or_else(|| ZoneError::NotFound {
            operation,
            what: format!("zone {zone}"),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Zones go on; their supervisors dial the next agent.
        for home in self.zones.lock().values() {
            home.link.close();
        }
    }
}

impl Inner {
    fn home(&self, record: Record) -> Result<Arc<Home>, ZoneError> {
        let layout = Layout::of(&record.spec, &self.settings, Path::is_file)?;
        let (changes, stirred) = (self.changes.clone(), self.stirred.clone());
        let changed = layout.zone.clone();
        Ok(Arc::new(Home {
            link: Link::new(layout.zone.to_string(), move || {
                let _ = changes.send(changed.clone());
                stirred.notify_one();
            }),
            record,
            layout,
            steps: tokio::sync::Mutex::new(()),
            known: Mutex::default(),
        }))
    }

    async fn rows(&self) -> Result<Vec<ZoneRow>, Failure> {
        let command = Command::new(Tool::Zoneadm, ["list", "-cp"]);
        Ok(parse::zones(&self.tools.run(&command).await?.stdout))
    }

    /// What a zone's attributes say of it: its labels if it is ours.
    async fn mark(&self, zone: &ZoneName) -> Result<Option<BTreeMap<String, String>>, Failure> {
        let text = self.tools.run(&Layout::attributes(zone)).await?.stdout;
        let ours = parse::attribute(&text, MARK).as_deref() == Some(owner(zone));
        Ok(ours.then(|| config::labels(&text)))
    }

    /// Takes a zone of our name whose record is lost, so that it can be removed; one that is not ours is noted.
    async fn adopt(self: &Arc<Self>, row: ZoneRow) {
        let Some(zone) = ZoneName::new(&row.name).filter(|_| row.name.starts_with("rd-")) else {
            return;
        };
        if self.zones.lock().contains_key(&zone) || self.strangers.lock().contains(&row.name) {
            return;
        }
        let labels = match self.mark(&zone).await {
            Ok(Some(labels)) => labels,
            Ok(None) => {
                tracing::warn!(%zone, "this zone has a name of ours and not our mark; it is left alone");
                self.strangers.lock().insert(row.name);
                return;
            }
            Err(failure) => {
                tracing::warn!(%zone, %failure, "it cannot be told whose this zone is; it is left alone");
                return;
            }
        };
        let spec = ZoneSpec {
            name: zone.clone(),
            labels,
            hostname: String::new(),
            network: lost_network(&self.settings),
            host_processes: false,
            host_ipc: false,
            shared_processes: false,
            sysctls: BTreeMap::new(),
            shares: Vec::new(),
            memory_directories: BTreeMap::new(),
            limits: Limits::default(),
        };
        let record = Record {
            spec,
            created: Timestamp::now(),
        };
        if let Ok(home) = self.home(record) {
            home.see(Some(row));
            self.zones.lock().insert(zone.clone(), home);
            let _ = self.changes.send(zone);
        }
    }

    /// Ends links of ours that belong to no zone that is known: their zones' records are lost, or went first.
    async fn sweep(&self) {
        let vnics = match self.tools.run(&show_vnics()).await {
            Ok(output) => parse::vnics(&output.stdout),
            Err(failure) => {
                tracing::warn!(%failure, "links cannot be listed");
                return;
            }
        };
        let known: BTreeSet<String> = {
            let zones = self.zones.lock();
            zones
                .values()
                .map(|home| home.layout.vnic.link.clone())
                .collect()
        };
        let own = self.settings.network.over();
        for row in vnics {
            if row.over != own || !is_ours(&row) || known.contains(&row.link) {
                continue;
            }
            match self.tools.run(&delete_vnic(&row.link)).await {
                // In a zone that is removed later: it is found again when the agent starts.
                Ok(_) => {}
                Err(failure) if matches!(failure.class, Class::Busy | Class::NotFound) => {}
                Err(failure) => tracing::warn!(%failure, "a link of no zone is not removed"),
            }
        }
    }

    /// Looks at all zones: what changed is told, new boots are protected, zones without a supervisor are halted.
    async fn look(self: &Arc<Self>) {
        let before: BTreeMap<ZoneName, Option<ZoneRow>> = {
            let zones = self.zones.lock();
            let seen = zones
                .iter()
                .map(|(name, home)| (name.clone(), home.known.lock().row.clone()));
            seen.collect()
        };
        let rows = match self.rows().await {
            Ok(rows) => rows,
            Err(failure) => {
                tracing::warn!(%failure, "zones cannot be listed");
                return;
            }
        };
        let homes: Vec<Arc<Home>> = self.zones.lock().values().cloned().collect();
        for home in homes {
            let name = &home.layout.zone;
            // What a step saw meanwhile is newer than this list.
            let Ok(_step) = home.steps.try_lock() else {
                continue;
            };
            if before.get(name) != Some(&home.known.lock().row) {
                continue;
            }
            let row = rows.iter().find(|row| row.name == name.as_str());
            if home.see(row.cloned()) {
                let _ = self.changes.send(name.clone());
            }
            self.tend(&home).await;
        }
    }

    /// What a running zone needs now and then.
    async fn tend(&self, home: &Home) {
        let running = home
            .known
            .lock()
            .row
            .as_ref()
            .is_some_and(|row| row.state == HostState::Running);
        if !running {
            return;
        }
        match home.link.boot() {
            Some(boot) => {
                home.known.lock().silent = None;
                if let Err(failure) = self.protect(home, boot).await {
                    tracing::warn!(zone = %home.layout.zone, %failure, "its link is not protected further; tried again");
                }
            }
            None => {
                let since = *home
                    .known
                    .lock()
                    .silent
                    .get_or_insert_with(std::time::Instant::now);
                if since.elapsed() >= self.patience.hello {
                    tracing::warn!(zone = %home.layout.zone, "nothing in this zone answers: it is halted, to be booted again");
                    if let Err(error) = self.reach("halt", home, Goal::Halted).await {
                        tracing::warn!(%error, "it cannot be halted");
                    }
                    home.link.close();
                    let _ = self.changes.send(home.layout.zone.clone());
                }
            }
        }
    }

    /// Protects the link of a boot, once.
    async fn protect(&self, home: &Home, boot: String) -> Result<(), Failure> {
        if home.known.lock().protected.as_ref() == Some(&boot) {
            return Ok(());
        }
        self.tools.run(&home.layout.vnic.protect()).await?;
        home.known.lock().protected = Some(boot);
        Ok(())
    }

    /// Looks at a zone and what is around it, as far as it matters for a goal.
    async fn observe(&self, home: &Home, goal: Goal) -> Result<Seen, Failure> {
        let layout = &home.layout;
        let rows = match self.tools.run(&layout.show()).await {
            Ok(output) => parse::zones(&output.stdout),
            Err(failure) if failure.not_found() => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let zone = rows
            .into_iter()
            .find(|row| row.name == layout.zone.as_str());
        home.see(zone.clone());
        let mut seen = Seen {
            zone,
            ..Seen::default()
        };
        if matches!(goal, Goal::Running | Goal::Halted) {
            let vnics = self.tools.run(&show_vnics()).await?;
            let vnics = parse::vnics(&vnics.stdout);
            seen.vnic = vnics.into_iter().find(|row| row.link == layout.vnic.link);
            seen.used = seen.vnic.is_some();
            if !layout.rules.is_empty() {
                match self.tools.run(&show_rules()).await {
                    Ok(output) => {
                        seen.rules = parse::nat_rules(&output.stdout).into_iter().collect()
                    }
                    // Where ipfilter does not run there are no rules; adding one says what to do.
                    Err(failure) if failure.class == Class::Disabled => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        if goal == Goal::Absent {
            let list = crate::storage::zfs::names::list(&layout.dataset, false);
            seen.dataset = match self.tools.run(&list).await {
                Ok(_) => true,
                Err(failure) if failure.not_found() => false,
                Err(failure) => return Err(failure),
            };
        }
        Ok(seen)
    }

    /// Brings a zone to a goal. The caller holds its lock.
    async fn reach(
        &self,
        operation: &'static str,
        home: &Home,
        goal: Goal,
    ) -> Result<(), ZoneError> {
        let what = || format!("zone {}", home.layout.zone);
        let failed = |cause: String| ZoneError::failed(operation, what(), cause);
        let begun = std::time::Instant::now();
        let mut seen = None;
        let mut left = TRIES;
        for _ in 0..STEPS {
            let known = match seen.take() {
                Some(known) => known,
                None => match self.observe(home, goal).await {
                    Ok(known) => known,
                    Err(failure) => {
                        left -= 1;
                        if left == 0 || !passing(&failure) {
                            return Err(failed(failure.to_string()));
                        }
                        continue;
                    }
                },
            };
            match plan::next(goal, &home.layout, &known) {
                Next::Done => return Ok(()),
                Next::Stuck(state) => {
                    return Err(ZoneError::State {
                        operation,
                        what: what(),
                        state,
                    });
                }
                Next::Wait(reason) => {
                    if begun.elapsed() > self.patience.change {
                        return Err(failed(format!("{reason}, and that does not end")));
                    }
                    tokio::time::sleep(self.patience.again).await;
                }
                Next::Do(step) => match self.perform(&step).await {
                    Ok(()) => {
                        let mut known = known;
                        known.apply(&home.layout, step.effect);
                        if let Effect::State(_) | Effect::Configured = step.effect {
                            home.see(known.zone.clone());
                        }
                        if !step.look {
                            seen = Some(known);
                        } else if begun.elapsed() > self.patience.change {
                            return Err(failed("it does not change its state".into()));
                        }
                    }
                    Err(failure) => {
                        tracing::debug!(zone = %home.layout.zone, %failure, step = step.what, "a step failed");
                        left -= 1;
                        if let Some(owner) =
                            step.command.as_ref().and_then(|one| one.owner.as_deref())
                        {
                            let settled = self.tools.settle(owner).await;
                            settled.map_err(|failure| failed(failure.to_string()))?;
                        }
                        if left == 0 || !passing(&failure) {
                            // What is there now decides what is said of it.
                            let _ = self.observe(home, Goal::Installed).await;
                            return Err(match failure.class {
                                Class::Usage | Class::Brand => ZoneError::Refused {
                                    operation,
                                    what: what(),
                                    reason: failure.to_string(),
                                },
                                _ => failed(failure.to_string()),
                            });
                        }
                        tokio::time::sleep(self.patience.again).await;
                    }
                },
            }
        }
        Err(failed(
            "it does not settle: something else changes it too".into(),
        ))
    }

    async fn perform(&self, step: &Step) -> Result<(), Failure> {
        if !step.files.is_empty() {
            let files = step.files.clone();
            blocking(move || carry_out(&files))
                .await
                .map_err(|said| Failure {
                    class: Class::Other,
                    command: step.what.to_owned(),
                    said,
                })?;
        }
        match &step.command {
            Some(command) => self.tools.run(command).await.map(drop),
            None => Ok(()),
        }
    }

    /// What the supervisor reads when it starts: the zone with the zone's own paths.
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
    }
}

/// Whether the same may go well when it is tried again.
fn passing(failure: &Failure) -> bool {
    matches!(
        failure.class,
        Class::Busy
            | Class::State
            | Class::Exists
            | Class::NotFound
            | Class::TimedOut
            | Class::Killed
            | Class::Other
    )
}

/// The network of a zone whose record is lost: any that is legal; its link is not known any more.
fn lost_network(settings: &Settings) -> ZoneNetwork {
    use crate::net::illumos::NetworkConfig;
    let (gateway, prefix) = match &settings.network {
        NetworkConfig::Etherstub(config) => (config.gateway, config.prefix_len),
        NetworkConfig::Direct(config) => (config.gateway, config.prefix_len),
    };
    let bits = u32::from(gateway);
    let address = std::net::Ipv4Addr::from(if bits & 1 == 1 { bits + 1 } else { bits | 1 });
    ZoneNetwork::Own {
        address: address.into(),
        prefix,
        gateway: gateway.into(),
        mac: crate::net::mac_address(address),
        link: "rdlost0".into(),
        ports: Vec::new(),
        bandwidth: None,
    }
}

impl ZoneRuntime for IllumosRuntime {
    fn brand(&self) -> &'static str {
        self.0.settings.brand.name()
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

    fn list(&self) -> Answer<'_, Vec<Zone>> {
        async {
            let homes: Vec<_> = self.0.zones.lock().values().cloned().collect();
            Ok(homes.iter().map(|home| home.zone()).collect())
        }
        .boxed()
    }

    fn get<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, Option<Zone>> {
        async {
            let home = self.0.zones.lock().get(zone).cloned();
            Ok(home.map(|home| home.zone()))
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()> {
        async move {
            let failed = |cause: String| ZoneError::failed("create", format!("zone {}", spec.name), cause);
            let found = self.0.zones.lock().get(&spec.name).cloned();
            let home = match found {
                Some(home) => home,
                None => {
                    let home = self.0.home(Record {
                        spec: spec.clone(),
                        created: Timestamp::now(),
                    })?;
                    // Nothing of this zone is known: what is there under its name must be ours.
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
                    .map_err(failed)?;
                    let mut zones = self.0.zones.lock();
                    zones.entry(spec.name.clone()).or_insert(home).clone()
                }
            };
            let _step = home.steps.lock().await;
            self.0.describe(&home).await.map_err(failed)?;
            let reached = self.0.reach("create", &home, Goal::Installed).await;
            let _ = self.0.changes.send(spec.name.clone());
            reached
        }
        .boxed()
    }

    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let home = self.find("boot", zone)?;
            let _step = home.steps.lock().await;
            let failed = |cause: String| ZoneError::failed("boot", format!("zone {zone}"), cause);
            self.0.describe(&home).await.map_err(failed)?;
            // Who listens must be there before who dials.
            home.link
                .listen(&home.layout.control)
                .map_err(|error| failed(format!("{}: {error}", home.layout.control.display())))?;
            self.0.reach("boot", &home, Goal::Running).await?;
            if !home.link.hello(self.0.patience.hello).await {
                // `running` says nothing: lxinit waits for ever when it cannot go on.
                let halted = self.0.reach("halt", &home, Goal::Halted).await;
                home.link.close();
                let _ = self.0.changes.send(zone.clone());
                halted?;
                return Err(failed(format!(
                    "it was booted and nothing in it answers, so it was halted; look at its console (zlogin -C {zone}) while it boots"
                )));
            }
            if let Some(boot) = home.link.boot() {
                let protected = self.0.protect(&home, boot).await;
                protected.map_err(|failure| failed(failure.to_string()))?;
            }
            let _ = self.0.changes.send(zone.clone());
            Ok(())
        }
        .boxed()
    }

    fn halt<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let Ok(home) = self.find("halt", zone) else {
                return Ok(());
            };
            let _step = home.steps.lock().await;
            self.0.reach("halt", &home, Goal::Halted).await?;
            home.link.close();
            let _ = self.0.changes.send(zone.clone());
            Ok(())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let Ok(home) = self.find("delete", zone) else {
                return Ok(());
            };
            let _step = home.steps.lock().await;
            self.0.reach("delete", &home, Goal::Absent).await?;
            home.link.close();
            let (directory, path) = (home.layout.directory.clone(), home.layout.path.clone());
            let removed = blocking(move || {
                // An empty directory may be left of the zonepath; one with something in it is nobody's to remove.
                let _ = fs::remove_dir(path);
                for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                    // The record goes last: until then the zone is found again after a crash.
                    if entry.file_name() != ZONE {
                        let path = entry.path();
                        match fs::symlink_metadata(&path)?.is_dir() {
                            true => fs::remove_dir_all(path)?,
                            false => fs::remove_file(path)?,
                        }
                    }
                }
                match fs::remove_dir_all(&directory) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            });
            let failed = |cause| ZoneError::failed("delete", format!("zone {zone}"), cause);
            removed.await.map_err(failed)?;
            self.0.zones.lock().remove(zone);
            let _ = self.0.changes.send(zone.clone());
            Ok(())
        }
        .boxed()
    }

    fn start<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessSpec) -> Answer<'a, ()> {
        async move {
            let home = self.find("start a process in", zone)?;
            let process = home.layout.process(process)?;
            home.link
                .ask("start a process in", What::Start(Box::new(process)))
                .await
        }
        .boxed()
    }

    fn signal<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        signal: Signal,
    ) -> Answer<'a, ()> {
        async move {
            let home = self.find("signal", zone)?;
            home.link
                .ask("signal", What::Signal(process.clone(), signal))
                .await
        }
        .boxed()
    }

    fn forget<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, ()> {
        async move {
            let home = self.find("forget", zone)?;
            home.link
                .ask("forget", What::Forget(process.clone()))
                .await?;
            home.link.forget(process);
            Ok(())
        }
        .boxed()
    }

    fn limit<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        _: &'a Limits,
    ) -> Answer<'a, ()> {
        async move {
            self.find("limit", zone)?;
            Err(ZoneError::Refused {
                operation: "limit",
                what: format!("process {process} of zone {zone}"),
                reason: "the limits of a zone are those of all its containers together, set when it is made".into(),
            })
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        exec: &'a ExecSpec,
    ) -> Answer<'a, Session> {
        async move {
            let home = self.find("exec in", zone)?;
            let what = What::Exec(process.clone(), exec.clone());
            let stream = home.link.open("exec in", what).await?;
            Ok(link::session(stream, exec.stdin))
        }
        .boxed()
    }

    fn attach<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, Session> {
        async move {
            let home = self.find("attach to", zone)?;
            let stream = home
                .link
                .open("attach to", What::Attach(process.clone()))
                .await?;
            Ok(link::session(stream, true))
        }
        .boxed()
    }

    fn dial<'a>(&'a self, zone: &'a ZoneName, port: u16) -> Answer<'a, Box<dyn Duplex>> {
        async move {
            let home = self.find("connect to", zone)?;
            let stream = home.link.open("connect to", What::Dial(port)).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        }
        .boxed()
    }

    fn usage<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ZoneUsage> {
        async move {
            let home = self.find("measure", zone)?;
            let id = home.known.lock().row.as_ref().and_then(|row| row.id);
            let id = id.ok_or_else(|| ZoneError::State {
                operation: "measure",
                what: format!("zone {zone}"),
                state: "not running".into(),
            })?;
            let link = &home.layout.vnic.link;
            // By the zone's id: names are cut at 30 characters.
            let command = Command::new(
                Tool::Kstat,
                [
                    "-p".to_owned(),
                    format!("zones:{id}::nsec_user"),
                    format!("zones:{id}::nsec_sys"),
                    format!("memory_cap:{id}::rss"),
                    format!("caps:{id}:nprocs_zone_{id}:usage"),
                    format!("link:0:{link}:rbytes64"),
                    format!("link:0:{link}:obytes64"),
                ],
            );
            let output =
                self.0.tools.run(&command).await.map_err(|failure| {
                    ZoneError::failed("measure", format!("zone {zone}"), failure)
                })?;
            let stats = parse::kstats(&output.stdout);
            let value = |name: &str| -> u64 {
                let found = stats
                    .iter()
                    .find(|([_, _, _, statistic], _)| statistic == name);
                found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
            };
            let total = Usage {
                cpu: value("nsec_user") + value("nsec_sys"),
                memory: value("rss"),
                working_set: value("rss"),
                pids: value("usage"),
            };
            let running: Vec<ProcessId> = home
                .link
                .processes()
                .into_iter()
                .filter(|process| process.ended.is_none())
                .map(|process| process.id)
                .collect();
            // The host counts by zone: what one container uses is known where there is only one.
            let processes = match running.as_slice() {
                [only] => BTreeMap::from([(only.clone(), total.clone())]),
                _ => BTreeMap::new(),
            };
            Ok(ZoneUsage {
                at: Timestamp::now(),
                total,
                processes,
                network: (value("rbytes64"), value("obytes64")),
            })
        }
        .boxed()
    }

    fn changes(&self) -> broadcast::Receiver<ZoneName> {
        self.0.changes.subscribe()
    }
}
