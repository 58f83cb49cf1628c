//! Homes of pods, and files in them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::{StorageEngine as _, StorageError};
use super::ZfsStorageEngine;
use super::datasets::failed;
use super::names::{self, HomeDirectories, Row};
use crate::blocking::blocking;

impl ZfsStorageEngine {
    pub(super) fn lock(&self, owner: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut homes = self.homes.lock();
        homes.retain(|_, lock| Arc::strong_count(lock) > 1);
        homes.entry(owner.to_owned()).or_default().clone()
    }

    /// The home of an owner with its roots. The caller holds its lock.
    pub(super) async fn open_home(
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

/// Runs file operations; errors name the storage operation and its object.
pub(super) async fn files(
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
