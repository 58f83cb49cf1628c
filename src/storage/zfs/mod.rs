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

mod datasets;
mod homes;
pub mod names;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use names::Names;
use parking_lot::Mutex;

use self::datasets::{checked, failed};
use self::homes::files;
use super::{
    Answer, Capacity, LayerDirectory, StorageEngine, StorageError, StoragePoolConfig, Volume,
    Whiteouts,
};
use crate::illumos::{Class, Tools};
use crate::private;
use crate::zone::Root;

pub use self::homes::sandbox;

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
