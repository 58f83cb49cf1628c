//! Volumes as datasets with quotas; copies are clones of snapshots, and some volumes are delegated to zones.

use std::path::PathBuf;

use super::datasets::{checked, failed, foreign, gone, zones_own};
use super::{ZfsStorageEngine, names};
use crate::storage::{StorageError, Volume};

/// How many clones are promoted or destroyed before a volume is removed, at most.
const KNOTS: usize = 256;

impl ZfsStorageEngine {
    /// Takes a snapshot of a volume. Keeps an existing one.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn snapshot_volume(&self, volume: &str, name: &str) -> Result<(), StorageError> {
        const OPERATION: &str = "take a snapshot of the volume";
        checked(OPERATION, volume)?;
        checked(OPERATION, name)?;
        let command = names::snapshot(&format!("{}@{name}", self.names.volume(volume)));
        match self.tools.run(&command).await {
            Err(failure) if !failure.exists() => Err(failed(OPERATION, &command, failure)),
            _ => Ok(()),
        }
    }

    /// Removes a snapshot of a volume, unless a volume is a copy of it.
    ///
    /// # Errors
    /// [`StorageError::Refused`] if it has.
    pub async fn remove_snapshot(&self, volume: &str, name: &str) -> Result<(), StorageError> {
        const OPERATION: &str = "remove a snapshot of the volume";
        checked(OPERATION, volume)?;
        checked(OPERATION, name)?;
        let command = names::destroy(&format!("{}@{name}", self.names.volume(volume)), false);
        match self.tools.run(&command).await {
            Err(failure) if !failure.not_found() => Err(failed(OPERATION, &command, failure)),
            _ => Ok(()),
        }
    }

    /// Creates a volume, as a copy if there is a `source`. Keeps an existing one.
    pub(super) async fn create_volume(
        &self,
        name: &str,
        quota: Option<u64>,
        source: Option<&str>,
    ) -> Result<Volume, StorageError> {
        const OPERATION: &str = "make the volume";
        checked(OPERATION, name)?;
        let dataset = self.names.volume(name);
        let properties = self.promised(quota);
        let there = self.row(OPERATION, &dataset).await?;
        let mark = there.as_ref().and_then(|row| row.mark.as_deref());
        if mark == Some(names::DELEGATED) {
            return Err(zones_own(OPERATION, &dataset));
        }
        let (origin, make) = match (source, there) {
            (_, Some(there)) => (
                there.origin,
                names::create(&dataset, names::VOLUME, &properties),
            ),
            (None, None) => (None, names::create(&dataset, names::VOLUME, &properties)),
            (Some(source), None) => {
                let (volume, snapshot) = match source.split_once('@') {
                    Some((volume, snapshot)) => (volume, snapshot.to_owned()),
                    None => (source, format!("for-{name}")),
                };
                checked(OPERATION, volume)?;
                let copied = self.names.volume(volume);
                let row = self.row(OPERATION, &copied).await?;
                if row.is_some_and(|row| row.zoned || row.mark.as_deref() == Some(names::DELEGATED))
                {
                    return Err(StorageError::Refused {
                        operation: OPERATION,
                        what: copied,
                        reason: "it was delegated to a zone, and its data are in a dataset of the zone's own: they cannot be copied to a directory".into(),
                    });
                }
                self.snapshot_volume(volume, &snapshot).await?;
                let origin = format!("{}@{snapshot}", self.names.volume(volume));
                let make = names::clone(&origin, &dataset, names::VOLUME, &properties);
                (Some(origin), make)
            }
        };
        let path = self
            .ensure(OPERATION, &dataset, names::VOLUME, origin.as_deref(), make)
            .await?;
        Ok(Volume {
            name: name.to_owned(),
            path,
            quota,
        })
    }

    /// Creates a volume to be delegated to zones, and returns the dataset that they get.
    pub(super) async fn create_delegated(
        &self,
        name: &str,
        quota: Option<u64>,
    ) -> Result<String, StorageError> {
        const OPERATION: &str = "delegate the volume";
        checked(OPERATION, name)?;
        let (volume, inner) = (self.names.volume(name), self.names.delegated(name));
        let [make, make_inner] = names::make_delegated(&self.names, name, &self.bounded(quota));
        for _ in 0..3 {
            let rows = self.rows(OPERATION, &volume, true).await?;
            let own = rows.iter().find(|row| row.name == volume);
            let make = match own.map(|row| (row.mark.as_deref(), row)) {
                None => &make,
                Some((Some(names::DELEGATED), _)) => {
                    match rows.iter().any(|row| row.name == inner) {
                        true => return Ok(inner),
                        false => &make_inner,
                    }
                }
                // Earlier versions delegated the volume itself.
                Some((Some(names::VOLUME), row)) if row.zoned || row.mountpoint.is_none() => {
                    if row.quota != quota {
                        self.set_all(OPERATION, &volume, self.bounded(quota))
                            .await?;
                    }
                    return Ok(volume);
                }
                Some((Some(names::VOLUME), _)) => {
                    return Err(StorageError::Refused {
                        operation: OPERATION,
                        what: volume,
                        reason: "pods had it as a directory, and it stays one: claim another volume for the zone".into(),
                    });
                }
                Some(_) => return Err(foreign(OPERATION, &volume)),
            };
            match self.tools.run(make).await {
                // Created concurrently, or by this call: the next look shows it.
                Ok(_) => {}
                Err(failure) if failure.exists() => {}
                Err(failure) => return Err(failed(OPERATION, make, failure)),
            }
        }
        Err(gone(OPERATION, &volume))
    }

    async fn set_all(
        &self,
        operation: &'static str,
        dataset: &str,
        properties: Vec<(&'static str, String)>,
    ) -> Result<(), StorageError> {
        for (property, value) in properties {
            self.run(operation, names::set(dataset, property, &value))
                .await?;
        }
        Ok(())
    }

    /// Changes the quota of a volume, in bytes.
    pub(super) async fn set_quota(&self, name: &str, quota: u64) -> Result<Volume, StorageError> {
        const OPERATION: &str = "resize the volume";
        checked(OPERATION, name)?;
        let dataset = self.names.volume(name);
        let Some(row) = self.row(OPERATION, &dataset).await? else {
            return Err(StorageError::NotFound {
                operation: OPERATION,
                what: dataset,
            });
        };
        let is_zones = row.zoned || row.mark.as_deref() == Some(names::DELEGATED);
        let (limits, before) = match row.mark.as_deref() {
            Some(names::VOLUME | names::DELEGATED) if is_zones => {
                (self.bounded(Some(quota)), row.quota)
            }
            Some(names::VOLUME) => (self.promised(Some(quota)), row.refquota),
            _ => return Err(foreign(OPERATION, &dataset)),
        };
        // A reservation may be missing although the limit is right.
        let done = usize::from(before == Some(quota));
        let limits = limits.into_iter().skip(done).collect();
        self.set_all(OPERATION, &dataset, limits).await?;
        Ok(Volume {
            name: name.to_owned(),
            path: match row.mountpoint {
                Some(_) if !is_zones => self.at(OPERATION, &row).await?,
                // A delegated dataset has no path in the global zone.
                _ => PathBuf::new(),
            },
            quota: Some(quota),
        })
    }

    /// Removes a volume; its copies survive.
    pub(super) async fn destroy_volume(&self, name: &str) -> Result<(), StorageError> {
        const OPERATION: &str = "remove the volume";
        checked(OPERATION, name)?;
        let dataset = self.names.volume(name);
        let Some(row) = self.row(OPERATION, &dataset).await? else {
            return Ok(());
        };
        let mark = match row.mark.as_deref() {
            Some(mark @ (names::VOLUME | names::DELEGATED)) => mark,
            _ => return Err(foreign(OPERATION, &dataset)),
        };
        match (mark, row.zoned) {
            (names::DELEGATED, _) => {
                let inner = self.names.delegated(name);
                self.release_holds(OPERATION, &inner).await?;
            }
            (_, true) => self.release_holds(OPERATION, &dataset).await?,
            // Holds on a volume of the host's are an administrator's.
            (_, false) => {}
        }
        self.untangle(OPERATION, &dataset).await?;
        self.end(OPERATION, &dataset, mark, true).await
    }

    /// Releases the holds on all snapshots of a dataset that was a zone's own: root in a zone may hold them.
    async fn release_holds(
        &self,
        operation: &'static str,
        dataset: &str,
    ) -> Result<(), StorageError> {
        let list = names::snapshots(dataset);
        let text = match self.tools.run(&list).await {
            Ok(output) => output.stdout,
            Err(failure) if failure.not_found() => return Ok(()),
            Err(failure) => return Err(failed(operation, &list, failure)),
        };
        for snapshot in names::held(&text) {
            let text = self.run(operation, names::holds(snapshot)).await?;
            for tag in names::tags(snapshot, &text) {
                let release = names::release(&tag, snapshot);
                match self.tools.run(&release).await {
                    Err(failure) if !failure.not_found() => {
                        return Err(failed(operation, &release, failure));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes a volume one that `zfs destroy -r` removes and nothing else: copies elsewhere take over the snapshots that
    /// they are made of, and what a zone promoted in it gives them back. What keeps a clone in it from being promoted goes
    /// first.
    async fn untangle(&self, operation: &'static str, volume: &str) -> Result<(), StorageError> {
        for _ in 0..KNOTS {
            let list = names::clones(volume);
            let text = match self.tools.run(&list).await {
                Ok(output) => output.stdout,
                Err(failure) if failure.not_found() => return Ok(()),
                Err(failure) => return Err(failed(operation, &list, failure)),
            };
            let Some(knot) = names::knot(volume, &text) else {
                return Ok(());
            };
            let names::Knot {
                clone,
                clashes,
                leaf,
            } = knot;
            if let Some(leaf) = leaf {
                self.run(operation, names::destroy(&leaf, true)).await?;
                continue;
            }
            for snapshot in clashes {
                self.run(operation, names::destroy(&snapshot, false))
                    .await?;
            }
            self.run(operation, names::zfs(["promote", &clone])).await?;
        }
        Err(StorageError::Refused {
            operation,
            what: volume.to_owned(),
            reason: "too many datasets are clones of one another in it or of it".into(),
        })
    }

    /// The volumes mounted on this host.
    pub(super) async fn list_volumes(&self) -> Result<Vec<Volume>, StorageError> {
        let above = &self.names.0.volumes;
        let rows = self.rows("list the volumes in", above, true).await?;
        let start = format!("{above}/");
        let own = rows
            .into_iter()
            .filter(|row| row.mark.as_deref() == Some(names::VOLUME) && !row.zoned);
        Ok(own
            .filter_map(|row| {
                Some(Volume {
                    name: row.name.strip_prefix(&start)?.to_owned(),
                    path: row.mountpoint?,
                    quota: row.refquota,
                })
            })
            .collect())
    }
}
