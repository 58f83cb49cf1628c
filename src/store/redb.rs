//! The durable engine: a log in one redb file. A row is a change: its key is the revision and the object's key, its
//! value an envelope. Opening reads the log once, in parallel parts; compaction removes the rows that can no longer be
//! read.
//!
//! An envelope is `[transform][format]`, then the fields of a record, each length in little-endian `u32`, and a CRC-32
//! of all of that.

mod envelope;
mod read;
mod unbroken;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, TableDefinition};

use self::envelope::{encode, row_key};
use self::read::{ReadError, read};
use self::unbroken::unbroken;
use super::engine::Accepted;
use super::writer::{Forget, Forgotten, Log};
use super::{Revision, Store, StoreError};
use crate::private;

pub use self::unbroken::panics_are_errors;

const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The file's format. Newer ones are rejected.
const FORMAT: u64 = 1;
/// redb's page cache, in bytes. Small, because the worlds hold everything that is read often.
const CACHE: usize = 8 << 20;

/// Why a store cannot be opened or compacted. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or file cannot be used.
    #[error("cannot open the store {}: {cause}; check that the directory exists and belongs to you", .path.display())]
    Unusable { path: PathBuf, cause: String },
    /// Another process has it open.
    #[error("the store {} is in use by another process; stop it, or choose another --data-dir", .path.display())]
    InUse { path: PathBuf },
    /// It is not a reddwarf store, or damaged.
    #[error("{} is not a reddwarf store, or is damaged ({cause}); restore it from a backup, or move it away to start with an empty one", .path.display())]
    Damaged { path: PathBuf, cause: String },
    /// It was written by a newer reddwarf.
    #[error("the store {} has format {found}, and this reddwarf knows {FORMAT}; use a newer reddwarf", .path.display())]
    Newer { path: PathBuf, found: u64 },
    /// The file could not be compacted.
    #[error("cannot compact the store {}: {cause}; no data is lost", .path.display())]
    NotCompacted { path: PathBuf, cause: String },
}

/// Opens the store in `dir`; creates it if it does not exist.
///
/// # Errors
/// [`OpenError`] names the file and the remedy.
pub fn open(dir: &Path) -> Result<Arc<dyn Store>, OpenError> {
    let path = dir.join("store.redb");
    let unusable = |error: std::io::Error| OpenError::Unusable {
        path: path.clone(),
        cause: error.to_string(),
    };
    private::directory(dir).map_err(unusable)?;
    let file = path.clone();
    match path.exists() {
        // The file contains all secrets.
        true => private::close(&path).map_err(unusable)?,
        false => make(&path)?,
    }
    restore(&path, move || {
        Builder::new().set_cache_size(CACHE).create(&file)
    })
}

/// Returns the unused space in the file of the store in `dir` to the file system. No process may have it open. Returns
/// the size of the file before and after, in bytes.
///
/// # Errors
/// [`OpenError`]; a store that cannot be read is left as it is.
pub fn compact(dir: &Path) -> Result<(u64, u64), OpenError> {
    let path = &dir.join("store.redb");
    let size = || std::fs::metadata(path).map(|file| file.len());
    let before = size().map_err(|error| OpenError::Unusable {
        path: path.clone(),
        cause: error.to_string(),
    })?;
    let mut database = opened(path, &|| Builder::new().set_cache_size(CACHE).open(path))?;
    // Read it completely first: a damaged store is not rewritten.
    let found = unbroken(|| read(&database)).unwrap_or_else(|cause| Err(ReadError::Damaged(cause)));
    if let Err(error) = found {
        return Err(refusal(path, error, database));
    }
    let not = |cause: String| OpenError::NotCompacted {
        path: path.clone(),
        cause,
    };
    // Each call moves what it can, and returns false once nothing is left to move.
    while unbroken(|| database.compact())
        .map_err(not)?
        .map_err(|error| not(error.to_string()))?
    {}
    drop(database);
    Ok((before, size().map_err(|error| not(error.to_string()))?))
}

/// Creates an empty store. Under a temporary name until it is complete: half of one would be reported as damaged.
fn make(path: &Path) -> Result<(), OpenError> {
    let unusable = |error: std::io::Error| OpenError::Unusable {
        path: path.to_owned(),
        cause: error.to_string(),
    };
    let new = path.with_extension("redb.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unusable(error)),
        _ => {}
    }
    let create = || {
        let mut file = private::file();
        let file = file.read(true).create_new(true).open(&new);
        let file = file.map_err(|error| DatabaseError::Storage(error.into()))?;
        Builder::new().create_with_backend(redb::backends::FileBackend::new(file)?)
    };
    let made = opened(path, &create).and_then(|database| {
        prepare(&database).map_err(|error| unusable(std::io::Error::other(error.to_string())))
    });
    let moved = made.and_then(|()| std::fs::rename(&new, path).map_err(unusable));
    if moved.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    moved?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(unusable)
}

/// Opens a database.
fn opened(
    path: &Path,
    open: &impl Fn() -> Result<Database, DatabaseError>,
) -> Result<Database, OpenError> {
    let path = || path.to_owned();
    let damaged = |cause| OpenError::Damaged {
        path: path(),
        cause,
    };
    unbroken(open)
        .map_err(damaged)?
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path() },
            DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                OpenError::Unusable {
                    path: path(),
                    cause: error.to_string(),
                }
            }
            other => damaged(other.to_string()),
        })
}

/// Creates an empty store in an open database, for disks that are not files.
#[cfg(test)]
pub(super) fn prepared(database: Database) {
    prepare(&database).expect("tables");
}

/// Builds the engine from the content of a database. `open` is called again after a failed write.
pub(super) fn restore(
    path: &Path,
    open: impl Fn() -> Result<Database, DatabaseError> + Send + 'static,
) -> Result<Arc<dyn Store>, OpenError> {
    let database = opened(path, &open)?;
    let found = unbroken(|| read(&database)).unwrap_or_else(|cause| Err(ReadError::Damaged(cause)));
    let (rev, beginning) = match found {
        Ok(found) => found,
        Err(error) => return Err(refusal(path, error, database)),
    };
    let file = File {
        open: Box::new(open),
        database: Some(database),
        durable: rev,
        doubtful: false,
    };
    let engine = beginning.engine(rev, true);
    engine
        .write_to(Box::new(file))
        .map_err(|error| OpenError::Unusable {
            path: path.to_owned(),
            cause: error.to_string(),
        })?;
    Ok(engine)
}

/// The error for a database that cannot be read.
fn refusal(path: &Path, error: ReadError, database: Database) -> OpenError {
    let path = path.to_owned();
    let cause = match error {
        ReadError::Newer(found) => return OpenError::Newer { path, found },
        ReadError::Foreign => "it has no table of ours".to_owned(),
        ReadError::Damaged(cause) => {
            // Closing it would write to a file that may still be repaired.
            std::mem::forget(database);
            cause
        }
    };
    OpenError::Damaged { path, cause }
}

/// Creates the tables of a new store.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let begin = database.begin_write()?;
    begin.open_table(META)?.insert("format", FORMAT)?;
    begin.open_table(LOG)?;
    begin.commit()?;
    Ok(())
}

struct File {
    open: Box<dyn Fn() -> Result<Database, DatabaseError> + Send>,
    /// `None` after a failed write: the database must be opened again.
    database: Option<Database>,
    /// The newest revision that was reported as durable.
    durable: Revision,
    /// A write failed, so its content may nevertheless be on disk.
    doubtful: bool,
}

impl File {
    fn transact(
        &mut self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        // A panic counts as a failed write: callers get an answer, and the file is opened again.
        let result = unbroken(|| self.attempt(work))
            .unwrap_or_else(|cause| Err(redb::Error::Corrupted(cause)));
        self.doubtful = result.is_err();
        if self.doubtful
            && let Err(cause) = unbroken(|| self.database = None)
        {
            tracing::debug!(
                cause,
                "the transaction of a database that panicked is abandoned"
            );
        }
        result
    }

    fn attempt(
        &mut self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert((self.open)()?),
        };
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        if self.doubtful {
            // Their writers were told that these failed.
            let after = (self.durable + 1).to_be_bytes();
            transaction
                .open_table(LOG)?
                .retain_in::<&[u8], _>(&after[..].., |_, _| false)?;
            transaction
                .open_table(META)?
                .insert("revision", self.durable)?;
        }
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

impl Log for File {
    fn write(&mut self, commits: &[Accepted], forget: Option<&Forget>) -> Result<(), StoreError> {
        let last = commits.iter().flat_map(|commit| &commit.steps).last();
        let last = last.map_or(self.durable, |step| step.rev);
        self.transact(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            for commit in commits {
                for step in &commit.steps {
                    let Some(key) = step
                        .new
                        .as_ref()
                        .or(step.old.as_ref())
                        .map(|entry| &entry.key)
                    else {
                        continue;
                    };
                    log.insert(
                        &*row_key(step.rev, key),
                        &*encode(&step.resource, step.new.as_deref()),
                    )?;
                }
            }
            meta.insert("revision", last)?;
            if let Some(forget) = forget {
                for Forgotten {
                    row: (rev, key), ..
                } in &forget.rows
                {
                    log.remove(&*row_key(*rev, key))?;
                }
                meta.insert("compacted", forget.compacted)?;
            }
            Ok(())
        })
        .map_err(|error| StoreError::Engine {
            attempted: if commits.is_empty() {
                "compact"
            } else {
                "write"
            },
            cause: error.to_string(),
        })?;
        self.durable = last;
        Ok(())
    }
}
