//! The durable engine: a log in one redb file. A row is a change: the key is its revision and the object's key, the
//! value an envelope. Opening reads the log once, in order; compaction removes the rows that nobody can read.
//!
//! An envelope is `[transform][format]`, then the fields of a record, each length in little-endian `u32`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::engine::{Accepted, Engine, Log, Row};
use super::{Entry, Pairs, Record, ResourcePrefix, Revision, Store, StoreError};

const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The layout of this file. A newer one is refused.
const FORMAT: u64 = 1;
/// How much of the file redb keeps in memory, in bytes: the worlds hold everything that is read often.
const CACHE: usize = 8 << 20;
/// No transformation between store and disk.
const IDENTITY: u8 = 0;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// Why a store cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or file cannot be used.
    #[error("cannot open the store {}: {cause}; check that the directory exists and belongs to you", .path.display())]
    Unusable { path: PathBuf, cause: String },
    /// Another process has it.
    #[error("the store {} is in use by another process; stop it, or choose another --data-dir", .path.display())]
    InUse { path: PathBuf },
    /// It is no store of ours, or damaged.
    #[error("{} is not a reddwarf store, or is damaged ({cause}); restore it from a backup, or move it away to begin anew", .path.display())]
    Damaged { path: PathBuf, cause: String },
    /// It was written by a newer reddwarf.
    #[error("the store {} has format {found}, and this reddwarf knows {FORMAT}; use a newer reddwarf", .path.display())]
    Newer { path: PathBuf, found: u64 },
}

/// Opens the store in `dir`, made where there is none.
///
/// # Errors
/// [`OpenError`] names the file and what to do.
pub fn open(dir: &Path) -> Result<Arc<dyn Store>, OpenError> {
    let path = dir.join("store.redb");
    let unusable = |cause: String| OpenError::Unusable {
        path: path.clone(),
        cause,
    };
    std::fs::create_dir_all(dir).map_err(|error| unusable(error.to_string()))?;
    let database =
        Builder::new()
            .set_cache_size(CACHE)
            .create(&path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
                redb::DatabaseError::Storage(redb::StorageError::Io(error))
                    if error.kind() == std::io::ErrorKind::InvalidData =>
                {
                    OpenError::Damaged {
                        path: path.clone(),
                        cause: error.to_string(),
                    }
                }
                redb::DatabaseError::Storage(redb::StorageError::Io(error)) => {
                    unusable(error.to_string())
                }
                other => OpenError::Damaged {
                    path: path.clone(),
                    cause: other.to_string(),
                },
            })?;
    restore(database, &path)
}

/// Builds the engine from what a database holds.
fn restore(database: Database, path: &Path) -> Result<Arc<dyn Store>, OpenError> {
    let damaged = |cause: String| OpenError::Damaged {
        path: path.to_owned(),
        cause,
    };
    let (rev, compacted, rows) = read(&database).map_err(|error| match error {
        ReadError::Newer(found) => OpenError::Newer {
            path: path.to_owned(),
            found,
        },
        ReadError::Damaged(cause) => damaged(cause),
    })?;
    Ok(Engine::restored(
        rev,
        compacted,
        rows,
        Some(Box::new(File { database })),
    ))
}

enum ReadError {
    Newer(u64),
    Damaged(String),
}

impl<E: std::error::Error> From<E> for ReadError {
    fn from(error: E) -> Self {
        ReadError::Damaged(error.to_string())
    }
}

fn read(database: &Database) -> Result<(Revision, Revision, Vec<Row>), ReadError> {
    let begin = database.begin_write()?;
    {
        let mut meta = begin.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value());
        match format {
            Some(found) if found > FORMAT => return Err(ReadError::Newer(found)),
            Some(_) => {}
            None => drop(meta.insert("format", FORMAT)?),
        }
        begin.open_table(LOG)?;
    }
    begin.commit()?;
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name: &str| {
        meta.get(name)
            .map(|value| value.map_or(1, |value| value.value()))
    };
    let compacted = number("compacted")?;
    let mut rev = number("revision")?;
    let mut rows = Vec::new();
    let mut prefixes: Vec<ResourcePrefix> = Vec::new();
    for row in transaction.open_table(LOG)?.iter()? {
        let (key, value) = row?;
        let (at, key) = split_key(key.value())
            .ok_or_else(|| ReadError::Damaged("a row's key is too short".to_owned()))?;
        let (resource, entry) = decode(value.value(), at, key).ok_or_else(|| {
            ReadError::Damaged(format!("the row of {key} at {at} cannot be read"))
        })?;
        let resource = match prefixes.iter().find(|prefix| ***prefix == *resource) {
            Some(prefix) => prefix.clone(),
            None => {
                prefixes.push(resource.into());
                resource.into()
            }
        };
        rev = rev.max(at);
        let entry = entry.map(Arc::new);
        let key = entry
            .as_ref()
            .map_or_else(|| Arc::from(key), |entry| entry.key.clone());
        rows.push(Row {
            resource,
            rev: at,
            key,
            new: entry,
        });
    }
    Ok((rev, compacted, rows))
}

struct File {
    database: Database,
}

impl File {
    fn write(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

impl Log for File {
    fn append(&mut self, commits: &[Accepted]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
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
            if let Some(last) = commits.iter().flat_map(|commit| &commit.steps).last() {
                transaction.open_table(META)?.insert("revision", last.rev)?;
            }
            Ok(())
        })
        .map_err(|error| StoreError::Engine {
            attempted: "write",
            cause: error.to_string(),
        })
    }

    fn forget(
        &mut self,
        rows: &[(Revision, Arc<str>)],
        compacted: Revision,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            for (rev, key) in rows {
                log.remove(&*row_key(*rev, key))?;
            }
            transaction
                .open_table(META)?
                .insert("compacted", compacted)?;
            Ok(())
        })
        .map_err(|error| StoreError::Engine {
            attempted: "compact",
            cause: error.to_string(),
        })
    }
}

fn row_key(rev: Revision, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + key.len());
    out.extend_from_slice(&rev.to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out
}

fn split_key(row: &[u8]) -> Option<(Revision, &str)> {
    let (rev, key) = row.split_first_chunk::<8>()?;
    Some((
        Revision::from_be_bytes(*rev),
        std::str::from_utf8(key).ok()?,
    ))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // A commit is far below 4 GiB: bodies are bounded by what the API reads.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_pairs(out: &mut Vec<u8>, pairs: &Pairs) {
    out.extend_from_slice(&u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in pairs {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn encode(resource: &str, entry: Option<&Entry>) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.map_or(0, |entry| entry.record.body.len()) + 96);
    out.push(IDENTITY);
    out.push(if entry.is_some() { PUT } else { DELETE });
    put_bytes(&mut out, resource.as_bytes());
    if let Some(entry) = entry {
        let record = &entry.record;
        for number in [record.rv_at, record.type_len, record.epoch] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&entry.expires.unwrap_or(0).to_le_bytes());
        put_pairs(&mut out, &record.labels);
        put_pairs(&mut out, &record.fields);
        put_bytes(&mut out, &record.body);
    }
    out
}

/// Reads an envelope front to back.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.number()? as usize;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn pairs(&mut self) -> Option<Pairs> {
        let count = self.number()?;
        (0..count)
            .map(|_| Some((self.text()?.into(), self.text()?.into())))
            .collect::<Option<Vec<_>>>()
            .map(Into::into)
    }
}

fn decode<'a>(value: &'a [u8], rev: Revision, key: &str) -> Option<(&'a str, Option<Entry>)> {
    let mut reader = Reader(value);
    if reader.chunk::<1>()? != [IDENTITY] {
        return None;
    }
    let [kind] = reader.chunk::<1>()?;
    let resource = reader.text()?;
    if kind == DELETE {
        return Some((resource, None));
    }
    let (rv_at, type_len, epoch) = (reader.number()?, reader.number()?, reader.number()?);
    let expires = u64::from_le_bytes(reader.chunk()?);
    let (labels, fields) = (reader.pairs()?, reader.pairs()?);
    let body = bytes::Bytes::copy_from_slice(reader.bytes()?);
    let record = Record {
        body,
        rv_at,
        type_len,
        epoch,
        labels,
        fields,
    };
    Some((
        resource,
        Some(Entry {
            key: key.into(),
            rev,
            record,
            expires: (expires != 0).then_some(expires),
        }),
    ))
}
