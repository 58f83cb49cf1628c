//! Shared by runtimes whose zones have a supervisor (`reddwarf init`): the table of zones, and all requests to a
//! supervisor over its link. The runtime itself creates, boots, halts and removes zones.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use super::link::{self, Link};
use super::supervisor::{What, ZONE};
use super::{
    Answer, Change, Duplex, ExecSpec, Of, ProcessId, ProcessSpec, Session, Signal, System, Zone,
    ZoneError, ZoneName, ZoneRuntime, ZoneSpec, ZoneUsage,
};

/// A zone of a runtime.
pub(super) trait Home: Send + Sync + 'static {
    /// The connection to its supervisor.
    fn link(&self) -> &Arc<Link>;
    /// The last observed state of the zone.
    fn zone(&self) -> Zone;
    /// Ensures that only one step runs at a time.
    fn steps(&self) -> &tokio::sync::Mutex<()>;
}

/// The zones of a runtime by name, and the subscribers to their changes.
pub(super) struct Zones<H> {
    all: Mutex<BTreeMap<ZoneName, Arc<H>>>,
    changes: broadcast::Sender<ZoneName>,
}

impl<H> Default for Zones<H> {
    fn default() -> Self {
        Zones {
            all: Mutex::default(),
            changes: broadcast::channel(1024).0,
        }
    }
}

impl<H> Zones<H> {
    /// A zone, if it exists.
    pub(super) fn get(&self, zone: &ZoneName) -> Option<Arc<H>> {
        self.all.lock().get(zone).cloned()
    }
    /// A zone that must exist.
    pub(super) fn find(
        &self,
        operation: &'static str,
        zone: &ZoneName,
    ) -> Result<Arc<H>, ZoneError> {
        self.get(zone).ok_or_else(|| ZoneError::NotFound {
            operation,
            what: format!("zone {zone}"),
        })
    }
    /// All zones.
    pub(super) fn all(&self) -> Vec<Arc<H>> {
        self.all.lock().values().cloned().collect()
    }
    /// Adds a zone unless one with its name exists; returns the one that exists then.
    pub(super) fn add(&self, zone: ZoneName, home: Arc<H>) -> Arc<H> {
        self.all.lock().entry(zone).or_insert(home).clone()
    }
    /// Removes a zone.
    pub(super) fn remove(&self, zone: &ZoneName) {
        self.all.lock().remove(zone);
        self.changed(zone);
    }
    /// Notifies that something changed in a zone.
    pub(super) fn changed(&self, zone: &ZoneName) {
        // There may be no subscribers.
        let _ = self.changes.send(zone.clone());
    }
    /// A function that notifies of changes in a zone, for links, which do not know zones.
    pub(super) fn teller(&self, zone: &ZoneName) -> impl Fn() + Send + Sync + 'static {
        let (changes, zone) = (self.changes.clone(), zone.clone());
        move || {
            let _ = changes.send(zone.clone());
        }
    }
}

/// A runtime whose zones have supervisors. It implements [`ZoneRuntime`].
pub(super) trait Supervised: Send + Sync + 'static {
    /// Its type for zones.
    type Home: Home;
    /// Its zones.
    fn zones(&self) -> &Zones<Self::Home>;
    /// As [`ZoneRuntime::brand`].
    fn brand(&self) -> &'static str;
    /// As [`ZoneRuntime::brands`].
    fn brands(&self) -> Vec<&'static str>;
    /// The system of a zone, which may be another than the agent's.
    fn system(&self, _: &Self::Home) -> System {
        System::Linux
    }
    /// As [`ZoneRuntime::recursive_read_only`].
    fn recursive_read_only(&self) -> bool {
        false
    }
    /// As [`ZoneRuntime::lacks`].
    fn lacks(&self) -> Answer<'_, Vec<String>>;
    /// As [`ZoneRuntime::create`].
    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()>;
    /// As [`ZoneRuntime::boot`].
    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()>;
    /// Halts a zone on the host; no other step of it runs.
    fn halt<'a>(&'a self, home: &'a Arc<Self::Home>) -> Answer<'a, ()>;
    /// Removes a zone from the host, and its record; no other step of it runs.
    fn delete<'a>(&'a self, home: &'a Arc<Self::Home>) -> Answer<'a, ()>;
    /// Creates on the host what a process needs before it starts; returns it as described to the supervisor.
    fn admit<'a>(
        &'a self,
        home: &'a Self::Home,
        process: &'a ProcessSpec,
    ) -> Answer<'a, ProcessSpec>;
    /// Removes from the host what a process needed.
    fn forgotten<'a>(&'a self, home: &'a Self::Home, process: &'a ProcessId) -> Answer<'a, ()>;
    /// Changes limits of a zone or a process on the host.
    fn limit<'a>(&'a self, home: &'a Self::Home, change: &'a Change) -> Answer<'a, ()>;
    /// As [`ZoneRuntime::usage`].
    fn usage<'a>(&'a self, home: &'a Self::Home) -> Answer<'a, ZoneUsage>;
}

impl<R: Supervised> ZoneRuntime for R {
    fn brand(&self) -> &'static str {
        Supervised::brand(self)
    }
    fn brands(&self) -> Vec<&'static str> {
        Supervised::brands(self)
    }
    fn recursive_read_only(&self) -> bool {
        Supervised::recursive_read_only(self)
    }
    fn lacks(&self) -> Answer<'_, Vec<String>> {
        Supervised::lacks(self)
    }
    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()> {
        Supervised::create(self, spec)
    }
    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        Supervised::boot(self, zone)
    }
    fn halt<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let Some(home) = self.zones().get(zone) else {
                return Ok(());
            };
            let _step = home.steps().lock().await;
            Supervised::halt(self, &home).await?;
            home.link().close();
            self.zones().changed(zone);
            Ok(())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let Some(home) = self.zones().get(zone) else {
                return Ok(());
            };
            let _step = home.steps().lock().await;
            Supervised::delete(self, &home).await?;
            home.link().close();
            self.zones().remove(zone);
            Ok(())
        }
        .boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Zone>> {
        async { Ok(self.zones().all().iter().map(|home| home.zone()).collect()) }.boxed()
    }

    fn get<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, Option<Zone>> {
        async { Ok(self.zones().get(zone).map(|home| home.zone())) }.boxed()
    }

    fn start<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessSpec) -> Answer<'a, ()> {
        async move {
            let operation = "start a process in";
            let home = self.zones().find(operation, zone)?;
            let process = self.admit(&home, process).await?;
            let start = What::Start(Box::new(process));
            home.link().ask(operation, start).await
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
            let home = self.zones().find("signal", zone)?;
            let number = signal.on(self.system(&home));
            let what = What::Signal(process.clone(), number);
            home.link().ask("signal", what).await
        }
        .boxed()
    }

    fn forget<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, ()> {
        async move {
            let home = self.zones().find("forget", zone)?;
            let what = What::Forget(process.clone());
            home.link().ask("forget", what).await?;
            home.link().forget(process);
            self.forgotten(&home, process).await
        }
        .boxed()
    }

    fn limit<'a>(&'a self, zone: &'a ZoneName, change: &'a Change) -> Answer<'a, ()> {
        async move {
            let home = self.zones().find("limit", zone)?;
            Supervised::limit(self, &home, change).await?;
            // Labels are updated after the limits have taken effect.
            if let Of::Process(process, labels) = &change.of {
                let what = What::Label(process.clone(), labels.clone());
                home.link().ask("label", what).await?;
                home.link().label(process, labels);
            }
            self.zones().changed(zone);
            Ok(())
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
            let home = self.zones().find("exec in", zone)?;
            let what = What::Exec(process.clone(), exec.clone());
            let stream = home.link().open("exec in", what).await?;
            Ok(link::session(stream, exec.stdin))
        }
        .boxed()
    }

    fn attach<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, Session> {
        async move {
            let home = self.zones().find("attach to", zone)?;
            let what = What::Attach(process.clone());
            let stream = home.link().open("attach to", what).await?;
            Ok(link::session(stream, true))
        }
        .boxed()
    }

    fn dial<'a>(&'a self, zone: &'a ZoneName, port: u16) -> Answer<'a, Box<dyn Duplex>> {
        async move {
            let home = self.zones().find("connect to", zone)?;
            let stream = home.link().open("connect to", What::Dial(port)).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        }
        .boxed()
    }

    fn usage<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ZoneUsage> {
        async move {
            let home = self.zones().find("measure", zone)?;
            Supervised::usage(self, &home).await
        }
        .boxed()
    }

    fn changes(&self) -> broadcast::Receiver<ZoneName> {
        self.zones().changes.subscribe()
    }
}

/// The records of zones below a directory, each in its own directory. One without a record is incomplete and is
/// removed: nothing was done on the host yet. An unreadable one is left alone.
pub(super) fn records<T: DeserializeOwned>(directory: &Path) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let record = match fs::read(path.join(ZONE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = fs::remove_dir_all(&path);
                continue;
            }
            text => text.and_then(|text| Ok(serde_json::from_slice(&text)?)),
        };
        match record {
            Ok(record) => all.push(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the record of a zone cannot be read; leaving it alone");
            }
        }
    }
    Ok(all)
}

/// Removes the record of a zone. `zone.json` is deleted last: until then the zone is found again after a crash.
pub(super) fn remove_record(directory: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>, path: PathBuf| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io::Error::new(
            error.kind(),
            format!("{}: {error}", path.display()),
        )),
        _ => Ok(()),
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name() != ZONE {
            let path = entry.path();
            let removed = match fs::symlink_metadata(&path)?.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            gone(removed, path)?;
        }
    }
    gone(fs::remove_dir_all(directory), directory.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private::write_whole;

    #[test]
    fn only_what_has_no_record_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |zone: &str| directory.path().join(zone);
        for (zone, text) in [("whole", Some("7")), ("damaged", Some("{")), ("half", None)] {
            fs::create_dir(at(zone)).expect("made");
            if let Some(text) = text {
                write_whole(&at(zone).join(ZONE), text.as_bytes()).expect("written");
            }
        }
        // Stands for a file that the system cannot read.
        fs::create_dir_all(at("unread").join(ZONE)).expect("made");
        assert_eq!(records::<u8>(directory.path()).expect("read"), [7]);
        for (zone, stays) in [
            ("whole", true),
            ("damaged", true),
            ("unread", true),
            ("half", false),
        ] {
            assert_eq!(at(zone).exists(), stays, "{zone}");
        }
    }
}
