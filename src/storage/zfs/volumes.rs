//! Volumes as datasets with quotas; copies are clones of snapshots, and some volumes are delegated to zones.

use std::path::PathBuf;

use super::datasets::{checked, failed, foreign, gone};
use super::{ZfsStorageEngine, names};
use crate::storage::{StorageError, Volume};

impl ZfsStorageEngine {
    /// The datasets cloned from `volume`, by its snapshots.
    async fn copies(&self, volume: &str) -> Result<Vec<(String, Vec<String>)>, StorageError> {
        let command = names::zfs([
            "list",
            "-Hp",
            "-r",
            "-d",
            "1",
            "-t",
            "snapshot",
            "-o",
            "name,clones",
            volume,
        ]);
        let text = self.run("look at the copies of", command).await?;
        let copies = text.lines().filter_map(|line| {
            let (name, clones) = line.split_once('\t')?;
            let clones = clones
                .split(',')
                .filter(|one| !one.is_empty() && *one != "-");
            Some((name.to_owned(), clones.map(str::to_owned).collect()))
        });
        Ok(copies.collect())
    }

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
        let (origin, make) = match (source, there) {
            (_, Some(there)) => (there.origin, names::create(&dataset, "volume", &properties)),
            (None, None) => (None, names::create(&dataset, "volume", &properties)),
            (Some(source), None) => {
                let (volume, snapshot) = match source.split_once('@') {
                    Some((volume, snapshot)) => (volume, snapshot.to_owned()),
                    None => (source, format!("for-{name}")),
                };
                self.snapshot_volume(volume, &snapshot).await?;
                let origin = format!("{}@{snapshot}", self.names.volume(volume));
                let make = names::clone(&origin, &dataset, "volume", &properties);
                (Some(origin), make)
            }
        };
        let path = self
            .ensure(OPERATION, &dataset, "volume", origin.as_deref(), make)
            .await?;
        Ok(Volume {
            name: name.to_owned(),
            path,
            quota,
        })
    }

    /// Creates a volume to be delegated to a zone, and returns its dataset.
    pub(super) async fn create_delegated(
        &self,
        name: &str,
        quota: Option<u64>,
    ) -> Result<String, StorageError> {
        const OPERATION: &str = "delegate the volume";
        checked(OPERATION, name)?;
        let dataset = self.names.volume(name);
        let mut properties = self.promised(quota);
        properties.push(("mountpoint", "none".to_owned()));
        let make = names::create(&dataset, "volume", &properties);
        for _ in 0..2 {
            match self.row(OPERATION, &dataset).await? {
                Some(row) if row.mark.as_deref() != Some("volume") => {
                    return Err(foreign(OPERATION, &dataset));
                }
                // The zone that has or had it chose its mountpoint.
                Some(row) if row.zoned || row.mountpoint.is_none() => return Ok(dataset),
                Some(_) => {
                    self.run(OPERATION, names::set(&dataset, "mountpoint", "none"))
                        .await?;
                    return Ok(dataset);
                }
                None => match self.tools.run(&make).await {
                    // Created concurrently, or by this call: the next look will tell.
                    Ok(_) => {}
                    Err(failure) if failure.exists() => {}
                    Err(failure) => return Err(failed(OPERATION, &make, failure)),
                },
            }
        }
        Err(gone(OPERATION, &dataset))
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
        if row.mark.as_deref() != Some("volume") {
            return Err(foreign(OPERATION, &dataset));
        }
        let bytes = quota.to_string();
        if row.refquota != Some(quota) {
            self.run(OPERATION, names::set(&dataset, "refquota", &bytes))
                .await?;
        }
        if self.reserve {
            self.run(OPERATION, names::set(&dataset, "refreservation", &bytes))
                .await?;
        }
        Ok(Volume {
            name: name.to_owned(),
            path: match row.mountpoint {
                Some(_) if !row.zoned => self.at(OPERATION, &row).await?,
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
        if self.row(OPERATION, &dataset).await?.is_none() {
            return Ok(());
        }
        // Copies survive: each is promoted, and takes over the snapshots on which it is based.
        for _ in 0..64 {
            let copies = self.copies(&dataset).await?;
            let Some(copy) = copies.iter().rev().find_map(|(_, clones)| clones.first()) else {
                return self.end(OPERATION, &dataset, "volume", true).await;
            };
            self.run(OPERATION, names::zfs(["promote", copy])).await?;
        }
        Err(StorageError::Refused {
            operation: OPERATION,
            what: dataset,
            reason: "too many volumes are copies of it".into(),
        })
    }

    /// The volumes mounted on this host.
    pub(super) async fn list_volumes(&self) -> Result<Vec<Volume>, StorageError> {
        let above = &self.names.0.volumes;
        let rows = self.rows("list the volumes in", above, true).await?;
        let start = format!("{above}/");
        let own = rows
            .into_iter()
            .filter(|row| row.mark.as_deref() == Some("volume"));
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
