//! Datasets: read, created, destroyed, and refused if they are not ours.

use std::path::PathBuf;
use std::time::Duration;

use super::super::StorageError;
use super::ZfsStorageEngine;
use super::names::{self, Row};
use crate::illumos::{Class, Command, Failure};

/// How often an operation on a busy dataset is retried, and the pause: the unmounts of a halting zone take a moment.
const BUSY: (u32, Duration) = (20, Duration::from_millis(250));

impl ZfsStorageEngine {
    pub(super) async fn run(
        &self,
        operation: &'static str,
        command: Command,
    ) -> Result<String, StorageError> {
        match self.tools.run(&command).await {
            Ok(output) => Ok(output.stdout),
            Err(failure) => Err(failed(operation, &command, failure)),
        }
    }

    /// A file system and its children; empty if it does not exist.
    pub(super) async fn rows(
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

    pub(super) async fn row(
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
    pub(super) async fn at(
        &self,
        operation: &'static str,
        row: &Row,
    ) -> Result<PathBuf, StorageError> {
        if row.zoned {
            return Err(zones_own(operation, &row.name));
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
    pub(super) async fn ensure(
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
                // Created concurrently, or left unmounted: the next look shows it.
                Err(failure) if matches!(failure.class, Class::Exists | Class::NotMounted) => {}
                Err(failure) => return Err(failed(operation, &make, failure)),
            }
        }
        Err(gone(operation, dataset))
    }

    /// The properties that guarantee a volume's size.
    pub(super) fn promised(&self, quota: Option<u64>) -> Vec<(&'static str, String)> {
        self.sized(["refquota", "refreservation"], quota)
    }

    /// The properties that guarantee and limit the size of a volume with everything below it: what a zone makes of it.
    /// Inside the zone `refquota` can be changed and does not count what is below.
    pub(super) fn bounded(&self, quota: Option<u64>) -> Vec<(&'static str, String)> {
        self.sized(["quota", "reservation"], quota)
    }

    fn sized(
        &self,
        [limit, reservation]: [&'static str; 2],
        quota: Option<u64>,
    ) -> Vec<(&'static str, String)> {
        let Some(bytes) = quota else {
            return Vec::new();
        };
        let mut properties = vec![(limit, bytes.to_string())];
        if self.reserve {
            properties.push((reservation, bytes.to_string()));
        }
        properties
    }

    /// Destroys a dataset of ours; succeeds if it does not exist.
    pub(super) async fn end(
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
}

pub(super) fn gone(operation: &'static str, dataset: &str) -> StorageError {
    StorageError::Failed {
        operation,
        what: dataset.to_owned(),
        cause: "it was made and is gone again".into(),
    }
}

pub(super) fn zones_own(operation: &'static str, dataset: &str) -> StorageError {
    StorageError::Refused {
        operation,
        what: dataset.to_owned(),
        reason: "it was delegated to a zone, where somebody else chose what is mounted where: it is mounted in no other way any more".into(),
    }
}

pub(super) fn foreign(operation: &'static str, dataset: &str) -> StorageError {
    StorageError::Refused {
        operation,
        what: dataset.to_owned(),
        reason: "there is a dataset of this name that is not ours; rename it, or choose other --zones-dataset, --images-dataset, --volumes-dataset".into(),
    }
}

pub(super) fn failed(operation: &'static str, command: &Command, failure: Failure) -> StorageError {
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
pub(super) fn checked(operation: &'static str, part: &str) -> Result<(), StorageError> {
    match names::plain(part) {
        true => Ok(()),
        false => Err(StorageError::Refused {
            operation,
            what: format!("{part:?}"),
            reason: "it is not a plain name".into(),
        }),
    }
}
