//! ZFS: layers, roots and volumes are datasets; a root is a clone of its topmost layer's snapshot.
//!
//! ```text
//! IMAGES/layer-HEX@ready            a complete layer: `root/` has the files of it and all below. A clone of the one below
//! IMAGES/sandbox-HEX@ready          the snapshot that zones are installed from
//! ZONES/NAME                        a zonepath's dataset (created by zoneadm): nothing of ours is below
//! ZONES/pods/OWNER                  a home: read-only except for what is mounted in it
//! ZONES/pods/OWNER/rw               what its processes write outside of their roots, at OWNER/rw
//! ZONES/pods/OWNER/NAME-GENERATION  a root, at OWNER/c/NUMBER
//! VOLUMES/NAME                      a volume
//! ```
//! Each dataset that the engine creates has the property `reddwarf:is`; a dataset with such a name but without it is
//! left alone and causes an error. The state is always read from ZFS; nothing is cached.

pub mod names;

#[cfg(test)]
mod tests;
mod volumes;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;

use super::{
    Answer, Capacity, LayerDirectory, StorageEngine, StorageError, StoragePoolConfig, Volume,
    Whiteouts,
};
use crate::blocking::blocking;
use crate::illumos::{Class, Command, Failure, Tools};
use crate::private;
use crate::zone::Root;
use names::{HomeDirectories, Names, Row};

/// How often an operation on a busy dataset is retried, and the pause: the unmounts of a halting zone take a moment.
const BUSY: (u32, Duration) = (20, Duration::from_millis(250));

/// The ZFS storage engine.
pub struct ZfsStorageEngine {
    tools: Arc<dyn Tools>,
    names: Names,
    /// Reserve the space of volumes.
    reserve: bool,
    /// Serializes changes of a home.
    homes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl ZfsStorageEngine {
    /// An engine on the datasets of `config`, which [`StorageEngine::prepare`] creates. With `reserve`, the space of
    /// volumes is reserved when they are created.
    ///
    /// # Errors
    /// A name that is not a valid dataset name.
    pub fn new(
        tools: Arc<dyn Tools>,
        config: StoragePoolConfig,
        reserve: bool,
    ) -> Result<Self, super::ConfigError> {
        names::check(&config)?;
        Ok(ZfsStorageEngine {
            tools,
            names: Names(config),
            reserve,
            homes: Mutex::default(),
        })
    }

    /// The names of its datasets.
    pub fn names(&self) -> &Names {
        &self.names
    }

    async fn run(&self, operation: &'static str, command: Command) -> Result<String, StorageError> {
        match self.tools.run(&command).await {
            Ok(output) => Ok(output.stdout),
            Err(failure) => Err(failed(operation, &command, failure)),
        }
    }

    /// A file system and its children; empty if it does not exist.
    async fn rows(
        &self,
        operation: &'static str,
        dataset: &str,
        below: bool,
    ) -> Result<Vec<Row>, StorageError> {
        let command = names::list(dataset, below);
        match self.tools.run(&command).await {
            Ok(output) => Ok(names::rows(&output.stdout)),
            Err(failure) if failure.not_found() => Ok(Vec::new()),
            Err(failure) => Err(failed(operation, &command, failure)),
        }
    }

    async fn row(
        &self,
        operation: &'static str,
        dataset: &str,
    ) -> Result<Option<Row>, StorageError> {
        Ok(self
            .rows(operation, dataset, false)
            .await?
            .into_iter()
            .next())
    }

    /// The mountpoint of a file system, which is mounted if necessary.
    async fn at(&self, operation: &'static str, row: &Row) -> Result<PathBuf, StorageError> {
        if row.zoned {
            return Err(StorageError::Refused {
                operation,
                what: row.name.clone(),
                reason: "it was delegated to a zone, where somebody else chose what is mounted where: it is mounted in no other way any more".into(),
            });
        }
        let Some(path) = row.mountpoint.clone() else {
            return Err(StorageError::Refused {
                operation,
                what: row.name.clone(),
                reason: format!(
                    "its mountpoint is none or legacy; give it one (zfs set mountpoint=/PATH {})",
                    row.name
                ),
            });
        };
        if !row.mounted {
            self.run(operation, names::mount(&row.name)).await?;
        }
        Ok(path)
    }

    /// Creates a file system or clone if missing; an existing one must have the mark and the origin.
    async fn ensure(
        &self,
        operation: &'static str,
        dataset: &str,
        mark: &str,
        origin: Option<&str>,
        make: Command,
    ) -> Result<PathBuf, StorageError> {
        for _ in 0..2 {
            if let Some(row) = self.row(operation, dataset).await? {
                if row.mark.as_deref() != Some(mark) || row.origin.as_deref() != origin {
                    return Err(foreign(operation, dataset));
                }
                return self.at(operation, &row).await;
            }
            match self.tools.run(&make).await {
                Ok(_) => {}
                // Created concurrently, or left unmounted: the next look will tell.
                Err(failure) if matches!(failure.class, Class::Exists | Class::NotMounted) => {}
                Err(failure) => return Err(failed(operation, &make, failure)),
            }
        }
        Err(gone(operation, dataset))
    }

    /// The properties that guarantee a volume's size.
    fn promised(&self, quota: Option<u64>) -> Vec<(&'static str, String)> {
        let mut properties = Vec::new();
        if let Some(bytes) = quota {
            properties.push(("refquota", bytes.to_string()));
            if self.reserve {
                properties.push(("refreservation", bytes.to_string()));
            }
        }
        properties
    }

    /// Destroys a dataset of ours; succeeds if it does not exist.
    async fn end(
        &self,
        operation: &'static str,
        dataset: &str,
        mark: &str,
        all: bool,
    ) -> Result<(), StorageError> {
        let Some(row) = self.row(operation, dataset).await? else {
            return Ok(());
        };
        if row.mark.as_deref() != Some(mark) {
            return Err(foreign(operation, dataset));
        }
        let command = names::destroy(dataset, all);
        let mut left = BUSY.0;
        loop {
            match self.tools.run(&command).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.not_found() => return Ok(()),
                Err(failure) if failure.class == Class::Busy && left > 0 => {
                    left -= 1;
                    tokio::time::sleep(BUSY.1).await;
                }
                Err(failure) => return Err(failed(operation, &command, failure)),
            }
        }
    }

    fn lock(&self, owner: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut homes = self.homes.lock();
        homes.retain(|_, lock| Arc::strong_count(lock) > 1);
        homes.entry(owner.to_owned()).or_default().clone()
    }

    /// The home of an owner with its roots. The caller holds its lock.
    async fn open_home(
        &self,
        owner: &str,
        quota: Option<u64>,
    ) -> Result<(HomeDirectories, Vec<Row>), StorageError> {
        const OPERATION: &str = "make the home";
        let home = self.names.home(owner);
        let rows = self.rows(OPERATION, &home, true).await?;
        let own = rows.iter().find(|row| row.name == home);
        let sealed = own.is_some_and(|row| row.readonly && row.mark.as_deref() == Some("home"));
        let data = self.names.data(owner);
        let whole = sealed && rows.iter().any(|row| row.name == data);
        if sealed && !whole {
            // Creation seals it last, and removal starts with its content: one of them was interrupted.
            self.end(OPERATION, &home, "home", true).await?;
        }
        let ([first], after) = names::make_home(&self.names, owner, quota);
        let at = match own {
            Some(own) if whole => self.at(OPERATION, own).await?,
            _ => self.ensure(OPERATION, &home, "home", None, first).await?,
        };
        let directories = HomeDirectories::of(&at);
        if !whole {
            let made = directories.clone();
            files(OPERATION, &home, move || {
                for number in 0..names::SLOTS {
                    std::fs::create_dir_all(made.slot(number))?;
                }
                std::fs::create_dir_all(&made.data)
            })
            .await?;
            let [make, seal] = after;
            self.ensure(OPERATION, &data, "data", None, make).await?;
            self.run(OPERATION, seal).await?;
            return Ok((directories, Vec::new()));
        }
        for row in &rows {
            // After a reboot only the mounted state is known.
            self.at(OPERATION, row).await?;
        }
        Ok((directories, rows))
    }
}

fn gone(operation: &'static str, dataset: &str) -> StorageError {
    StorageError::Failed {
        operation,
        what: dataset.to_owned(),
        cause: "it was made and is gone again".into(),
    }
}

fn foreign(operation: &'static str, dataset: &str) -> StorageError {
    StorageError::Refused {
        operation,
        what: dataset.to_owned(),
        reason: "there is a dataset of this name that is not ours; rename it, or choose other --zones-dataset, --images-dataset, --volumes-dataset".into(),
    }
}

fn failed(operation: &'static str, command: &Command, failure: Failure) -> StorageError {
    let what = command.arguments.last().cloned().unwrap_or_default();
    match failure.class {
        Class::NotFound => StorageError::NotFound { operation, what },
        Class::Dependents => StorageError::Refused {
            operation,
            what,
            reason: "others are made of it; remove them first".into(),
        },
        _ => StorageError::Failed {
            operation,
            what,
            cause: failure.to_string(),
        },
    }
}

/// Rejects a text that cannot be part of a dataset's name.
fn checked(operation: &'static str, part: &str) -> Result<(), StorageError> {
    match names::plain(part) {
        true => Ok(()),
        false => Err(StorageError::Refused {
            operation,
            what: format!("{part:?}"),
            reason: "it is not a plain name".into(),
        }),
    }
}

/// Runs file operations; errors name the storage operation and its object.
async fn files(
    operation: &'static str,
    what: &str,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), StorageError> {
    let done = blocking(work).await;
    done.map_err(|error| StorageError::Failed {
        operation,
        what: what.to_owned(),
        cause: error.to_string(),
    })
}

impl StorageEngine for ZfsStorageEngine {
    fn prepare(&self) -> Answer<'_, ()> {
        const OPERATION: &str = "prepare the dataset";
        async move {
            let config = &self.names.0;
            let mut wanted = vec![config.pool.clone()];
            wanted.extend([&config.zones, &config.images, &config.volumes].map(Clone::clone));
            wanted.push(self.names.homes());
            for dataset in wanted {
                let (pool, rest) = dataset.split_once('/').unwrap_or((&dataset, ""));
                let mut name = pool.to_owned();
                if self.row(OPERATION, pool).await?.is_none() {
                    return Err(StorageError::Failed {
                        operation: OPERATION,
                        what: dataset.clone(),
                        cause: format!(
                            "there is no pool {pool}: import it (zpool import {pool}), make it, or name another with --storage-pool"
                        ),
                    });
                }
                for part in rest.split('/').filter(|part| !part.is_empty()) {
                    name = format!("{name}/{part}");
                    if self.row(OPERATION, &name).await?.is_none() {
                        let make = names::create(&name, "base", &[]);
                        match self.tools.run(&make).await {
                            Err(failure)
                                if !matches!(failure.class, Class::Exists | Class::NotMounted) =>
                            {
                                return Err(failed(OPERATION, &make, failure));
                            }
                            _ => {}
                        }
                    }
                }
                let row = self.row(OPERATION, &name).await?;
                let row = row.ok_or_else(|| StorageError::NotFound {
                    operation: OPERATION,
                    what: name.clone(),
                })?;
                let at = match dataset == config.pool {
                    // Nothing is stored in the pool's root dataset: it need not be mounted.
                    true => continue,
                    false => self.at(OPERATION, &row).await?,
                };
                let shell = |byte: u8| byte.is_ascii_alphanumeric() || b"_./@-".contains(&byte);
                if !at.display().to_string().bytes().all(shell) {
                    return Err(StorageError::Refused {
                        operation: OPERATION,
                        what: name,
                        reason: format!(
                            "its mountpoint {} has characters that zoneadm(8) would hand to a shell; use letters, digits, `_`, `-`, `.`",
                            at.display()
                        ),
                    });
                }
                // Other users of this host must not run programs of images, nor read the data of pods.
                files(OPERATION, &name, move || private::close(&at)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn layers(&self) -> Answer<'_, Vec<String>> {
        async move {
            let command = names::zfs([
                "list",
                "-Hp",
                "-r",
                "-d",
                "2",
                "-t",
                "snapshot",
                "-o",
                "name",
                &self.names.0.images,
            ]);
            let text = self.run("list the layers in", command).await?;
            let start = format!("{}/layer-", self.names.0.images);
            let mut found: Vec<String> = text
                .lines()
                .filter_map(|line| line.strip_prefix(&start)?.strip_suffix("@ready"))
                .map(str::to_owned)
                .collect();
            found.sort();
            Ok(found)
        }
        .boxed()
    }

    fn sweep_layers(&self) -> Answer<'_, ()> {
        const OPERATION: &str = "remove the unfinished layers in";
        async move {
            let complete = self.layers().await?;
            let images = &self.names.0.images;
            let start = format!("{images}/layer-");
            for row in self.rows(OPERATION, images, true).await? {
                let Some(hex) = row.name.strip_prefix(&start) else {
                    continue;
                };
                if row.mark.as_deref() == Some("layer") && !complete.iter().any(|one| one == hex) {
                    tracing::info!(dataset = row.name, "removing an unfinished layer");
                    self.end(OPERATION, &row.name, "layer", true).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn begin_layer<'a>(
        &'a self,
        parent: Option<&'a str>,
        chain: &'a str,
    ) -> Answer<'a, LayerDirectory> {
        const OPERATION: &str = "begin the layer";
        async move {
            checked(OPERATION, names::hex(chain))?;
            let dataset = self.names.layer(chain);
            // Removes an unfinished one; a finished one has a snapshot, held by its clones.
            self.end(OPERATION, &dataset, "layer", true).await?;
            let origin = parent.map(|parent| self.names.ready(parent));
            let make = match &origin {
                Some(origin) => names::clone(origin, &dataset, "layer", &[]),
                None => names::create(&dataset, "layer", &[]),
            };
            let at = self
                .ensure(OPERATION, &dataset, "layer", origin.as_deref(), make)
                .await?;
            let path = at.join("root");
            let root = path.clone();
            files(OPERATION, &dataset, move || std::fs::create_dir_all(root)).await?;
            Ok(LayerDirectory {
                path,
                whiteouts: Whiteouts::Apply,
            })
        }
        .boxed()
    }

    fn seal_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()> {
        async move {
            let command = names::snapshot(&self.names.ready(chain));
            match self.tools.run(&command).await {
                Err(failure) if !failure.exists() => {
                    Err(failed("complete the layer", &command, failure))
                }
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn remove_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()> {
        async move {
            let dataset = self.names.layer(chain);
            self.end("remove the layer", &dataset, "layer", true).await
        }
        .boxed()
    }

    fn make_home<'a>(&'a self, owner: &'a str, quota: Option<u64>) -> Answer<'a, PathBuf> {
        async move {
            checked("make the home", owner)?;
            let lock = self.lock(owner);
            let _held = lock.lock().await;
            let (directories, _) = self.open_home(owner, quota).await?;
            Ok(directories.data)
        }
        .boxed()
    }

    fn remove_home<'a>(&'a self, owner: &'a str) -> Answer<'a, ()> {
        async move {
            checked("remove the home", owner)?;
            let lock = self.lock(owner);
            let _held = lock.lock().await;
            let home = self.names.home(owner);
            self.end("remove the home", &home, "home", true).await
        }
        .boxed()
    }

    fn homes(&self) -> Answer<'_, Vec<String>> {
        async move {
            let above = self.names.homes();
            let rows = self.rows("list the homes in", &above, true).await?;
            let names = rows
                .iter()
                .filter(|row| row.mark.as_deref() == Some("home"));
            let names = names.filter_map(|row| row.name.strip_prefix(&above)?.strip_prefix('/'));
            Ok(names.map(str::to_owned).collect())
        }
        .boxed()
    }

    fn make_root<'a>(&'a self, name: &'a str, chains: &'a [String]) -> Answer<'a, Root> {
        const OPERATION: &str = "make the root";
        async move {
            let (owner, own) = name.split_once('/').unwrap_or((name, ""));
            checked(OPERATION, owner)?;
            checked(OPERATION, own)?;
            let lock = self.lock(owner);
            let _held = lock.lock().await;
            let (directories, rows) = self.open_home(owner, None).await?;
            let dataset = self.names.root(name);
            let chain = chains.last().map(String::as_str);
            let origin = chain.map(|chain| self.names.ready(chain));
            let there = rows.iter().find(|row| row.name == dataset);
            let at = match there.and_then(|row| row.mountpoint.clone()) {
                Some(at) => at,
                None => {
                    let free = (0..names::SLOTS)
                        .map(|number| directories.slot(number))
                        .find(|slot| {
                            !rows
                                .iter()
                                .any(|row| row.mountpoint.as_deref() == Some(slot))
                        });
                    free.ok_or_else(|| StorageError::Refused {
                        operation: OPERATION,
                        what: name.to_owned(),
                        reason: format!("a pod has at most {} roots at a time", names::SLOTS),
                    })?
                }
            };
            let make = names::make_root(&self.names, name, chain, &at);
            let at = self
                .ensure(OPERATION, &dataset, "root", origin.as_deref(), make)
                .await?;
            let root = at.join("root");
            if chain.is_none() {
                let root = root.clone();
                files(OPERATION, &dataset, move || std::fs::create_dir_all(root)).await?;
            }
            Ok(Root::Directory(root))
        }
        .boxed()
    }

    fn remove_root<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        const OPERATION: &str = "remove the root";
        async move {
            let (owner, own) = name.split_once('/').unwrap_or((name, ""));
            checked(OPERATION, owner)?;
            checked(OPERATION, own)?;
            let lock = self.lock(owner);
            let _held = lock.lock().await;
            let dataset = self.names.root(name);
            self.end(OPERATION, &dataset, "root", false).await
        }
        .boxed()
    }

    fn roots(&self) -> Answer<'_, Vec<String>> {
        async move {
            let above = self.names.homes();
            let command = names::zfs([
                "list",
                "-Hp",
                "-r",
                "-d",
                "2",
                "-t",
                "filesystem",
                "-o",
                "name,reddwarf:is",
                &above,
            ]);
            let text = match self.tools.run(&command).await {
                Ok(output) => output.stdout,
                Err(failure) if failure.not_found() => return Ok(Vec::new()),
                Err(failure) => return Err(failed("list the roots in", &command, failure)),
            };
            let start = format!("{above}/");
            let names = text.lines().filter_map(|line| {
                let (name, mark) = line.split_once('\t')?;
                (mark == "root").then(|| name.strip_prefix(&start))?
            });
            Ok(names.map(str::to_owned).collect())
        }
        .boxed()
    }

    fn root_usage<'a>(&'a self, name: &'a str) -> Answer<'a, u64> {
        async move {
            let dataset = self.names.root(name);
            let command = names::zfs(["get", "-Hp", "-o", "value", "used", &dataset]);
            let text = self.run("measure the root", command).await?;
            Ok(text.trim().parse().unwrap_or(0))
        }
        .boxed()
    }

    fn make_volume<'a>(
        &'a self,
        name: &'a str,
        quota: Option<u64>,
        source: Option<&'a str>,
    ) -> Answer<'a, Volume> {
        self.create_volume(name, quota, source).boxed()
    }

    fn delegate_volume<'a>(&'a self, name: &'a str, quota: Option<u64>) -> Answer<'a, String> {
        self.create_delegated(name, quota).boxed()
    }

    fn resize_volume<'a>(&'a self, name: &'a str, quota: u64) -> Answer<'a, Volume> {
        self.set_quota(name, quota).boxed()
    }

    fn remove_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        self.destroy_volume(name).boxed()
    }

    fn volumes(&self) -> Answer<'_, Vec<Volume>> {
        self.list_volumes().boxed()
    }

    fn capacity(&self) -> Answer<'_, Capacity> {
        async move {
            let pool = &self.names.0.pool;
            let command = names::zfs(["get", "-Hp", "-o", "value", "used,available", pool]);
            let text = self.run("measure the pool", command).await?;
            let mut numbers = text
                .lines()
                .filter_map(|line| line.trim().parse::<u64>().ok());
            let (used, available) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            Ok(Capacity {
                total: used + available,
                available,
                inodes: (0, 0),
            })
        }
        .boxed()
    }
}

/// Installs a sandbox image if missing; `write` fills the root. Returns the snapshot from which zones are installed.
///
/// # Errors
/// [`StorageError`].
pub async fn sandbox(
    engine: &ZfsStorageEngine,
    name: &str,
    write: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> Result<String, StorageError> {
    let snapshot = engine.names.ready(name);
    let command = names::zfs(["list", "-H", "-t", "snapshot", "-o", "name", &snapshot]);
    match engine.tools.run(&command).await {
        Ok(_) => return Ok(snapshot),
        Err(failure) if failure.not_found() => {}
        Err(failure) => return Err(failed("look for the sandbox", &command, failure)),
    }
    let directory = engine.begin_layer(None, name).await?;
    files("write the sandbox", name, move || write(&directory.path)).await?;
    engine.seal_layer(name).await?;
    Ok(snapshot)
}
