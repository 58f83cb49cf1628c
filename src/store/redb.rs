//! The durable engine: a log in one redb file. A row is a change: its key is the revision and the object's key, its
//! value an envelope. Opening reads the log once, in parallel parts; compaction removes the rows that can no longer be
//! read.
//!
//! An envelope is `[transform][format]`, then the fields of a record, each length in little-endian `u32`, and a CRC-32
//! of all of that.

use std::cell::Cell;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use redb::{
    AccessGuard, Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase as _,
    ReadableTable as _, ReadableTableMetadata as _, TableDefinition, TableHandle as _,
};

use super::engine::{Accepted, Beginning, Row};
use super::writer::{Forget, Forgotten, Log};
use super::{Entry, Pairs, Record, ResourcePrefix, Revision, Store, StoreError};
use crate::private;

const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The file's format. Newer ones are rejected.
const FORMAT: u64 = 1;
/// redb's page cache, in bytes. Small, because the worlds hold everything that is read often.
const CACHE: usize = 8 << 20;
/// At most so many threads read the log when a store is opened: decoding is bound by the processor.
const READERS: usize = 4;
/// How many rows each of them passes on at once.
const BATCH: usize = 64;
/// Transform: none, and no checksum, as earlier versions wrote.
const BARE: u8 = 0;
/// Transform: none, with a checksum at the end.
const CHECKED: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;

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
    #[error("{} is not a reddwarf store, or is damaged ({cause}); restore it from a backup, or move it away to begin anew", .path.display())]
    Damaged { path: PathBuf, cause: String },
    /// It was written by a newer reddwarf.
    #[error("the store {} has format {found}, and this reddwarf knows {FORMAT}; use a newer reddwarf", .path.display())]
    Newer { path: PathBuf, found: u64 },
    /// The file could not be compacted.
    #[error("cannot compact the store {}: {cause}; nothing is lost of it", .path.display())]
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

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is about a damaged file and is returned as an error: panic hooks stay silent.
pub fn panics_are_errors() -> bool {
    QUIET.get()
}

/// Calls the database, which panics on some kinds of damage; returns the panic's message as the error.
fn unbroken<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    QUIET.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("its pages make no sense").to_owned()
    })
}

enum ReadError {
    Newer(u64),
    /// The database of another program.
    Foreign,
    Damaged(String),
}

impl<E: std::error::Error> From<E> for ReadError {
    fn from(error: E) -> Self {
        ReadError::Damaged(error.to_string())
    }
}

/// Creates the tables of a new store.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let begin = database.begin_write()?;
    begin.open_table(META)?.insert("format", FORMAT)?;
    begin.open_table(LOG)?;
    begin.commit()?;
    Ok(())
}

/// Reads a database: its newest revision and its content.
fn read(database: &Database) -> Result<(Revision, Beginning), ReadError> {
    let transaction = database.begin_read()?;
    if !transaction
        .list_tables()?
        .any(|table| table.name() == META.name())
    {
        return Err(ReadError::Foreign);
    }
    let meta = transaction.open_table(META)?;
    let number = |name: &str| {
        meta.get(name)
            .map(|value| value.map_or(1, |value| value.value()))
    };
    let format = number("format")?;
    if format > FORMAT {
        return Err(ReadError::Newer(format));
    }
    let compacted = number("compacted")?;
    let log = transaction.open_table(LOG)?;
    let edge = |row: Option<(AccessGuard<'_, &[u8]>, _)>| {
        let rev = row.and_then(|(key, _)| Some(split_key(key.value())?.0));
        rev.unwrap_or_default()
    };
    let readers = std::thread::available_parallelism().map_or(1, |count| count.get().min(READERS));
    let parts = parts(edge(log.first()?), edge(log.last()?), readers as u64);
    let mut beginning = Beginning::new(compacted, usize::try_from(log.len()?).unwrap_or(0));
    let ends = std::thread::scope(|scope| {
        let read = |part| {
            let (hand, handed) = mpsc::channel();
            let log = &log;
            let reader = scope.spawn(move || unbroken(|| hand_over(log, part, &hand)));
            (reader, handed)
        };
        let readers: Vec<_> = parts.into_iter().map(read).collect();
        for row in readers.iter().flat_map(|(_, handed)| handed).flatten() {
            beginning.take(row);
        }
        let end = readers.into_iter().map(|(reader, _)| {
            let end = reader.join();
            end.unwrap_or_else(|_| Err("its reader ended".to_owned()))
        });
        end.collect::<Vec<_>>()
    });
    for end in ends {
        end.map_err(ReadError::Damaged)??;
    }
    Ok((number("revision")?.max(beginning.newest()), beginning))
}

/// A range of revisions, from the first to before the second; `None` is unbounded.
type Part = (Option<Revision>, Option<Revision>);

/// Splits the revisions from `first` to `last` into `count` ranges, in order.
fn parts(first: Revision, last: Revision, count: u64) -> Vec<Part> {
    let whole = u128::from(last.saturating_sub(first));
    let cut = |number: u64| {
        let from = whole * u128::from(number) / u128::from(count);
        (1..count).contains(&number).then(|| first + from as u64)
    };
    (0..count)
        .map(|number| (cut(number), cut(number + 1)))
        .collect()
}

/// Sends the rows of a range of the log, in order.
fn hand_over(
    log: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    (from, to): Part,
    hand: &Sender<Vec<Row>>,
) -> Result<(), ReadError> {
    let [from, to] = [from, to].map(|rev| rev.map(Revision::to_be_bytes));
    let from = from
        .as_ref()
        .map_or(Bound::Unbounded, |from| Bound::Included(&from[..]));
    let to = to
        .as_ref()
        .map_or(Bound::Unbounded, |to| Bound::Excluded(&to[..]));
    let mut prefixes = Vec::new();
    let mut batch = Vec::with_capacity(BATCH);
    for row in log.range::<&[u8]>((from, to))? {
        let (key, value) = row?;
        batch.push(decoded(key.value(), value.value(), &mut prefixes)?);
        if batch.len() == BATCH {
            let rows = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            // The receiver reads to the end.
            let _ = hand.send(rows);
        }
    }
    let _ = hand.send(batch);
    Ok(())
}

/// Decodes a row; rows of one resource share the text of its prefix.
fn decoded(key: &[u8], value: &[u8], prefixes: &mut Vec<ResourcePrefix>) -> Result<Row, ReadError> {
    let (rev, key) =
        split_key(key).ok_or_else(|| ReadError::Damaged("a row's key is too short".to_owned()))?;
    let (resource, entry) = decode(value, rev, key)
        .ok_or_else(|| ReadError::Damaged(format!("the row of {key} at {rev} cannot be read")))?;
    let resource = match prefixes.iter().find(|prefix| ***prefix == *resource) {
        Some(prefix) => prefix.clone(),
        None => {
            let new = ResourcePrefix::from(resource);
            prefixes.push(new.clone());
            new
        }
    };
    let new = entry.map(Arc::new);
    let key = match &new {
        Some(entry) => entry.key.clone(),
        None => Arc::from(key),
    };
    Ok(Row {
        resource,
        rev,
        key,
        new,
    })
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
    // A commit is far below 4 GiB: the API limits the size of bodies.
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
    out.push(CHECKED);
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
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// Reads an envelope from front to back.
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
        let count = self.number()? as usize;
        // Allocate no more than the remaining bytes can hold, whatever the count says.
        let mut pairs = Vec::with_capacity(count.min(self.0.len() / 8));
        for _ in 0..count {
            pairs.push((self.text()?.into(), self.text()?.into()));
        }
        Some(pairs.into())
    }
}

fn decode<'a>(value: &'a [u8], rev: Revision, key: &str) -> Option<(&'a str, Option<Entry>)> {
    let mut reader = match *value.first()? {
        BARE => Reader(&value[1..]),
        CHECKED => {
            let (content, sum) = value.split_last_chunk::<4>()?;
            if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
                return None;
            }
            Reader(&content[1..])
        }
        _ => return None,
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_in_parts_that_meet() {
        const END: Revision = Revision::MAX;
        for (first, last, cuts) in [
            (0, 0, vec![0, 0]),
            (1, 1, vec![1, 1]),
            (1, 10, vec![4, 7]),
            (1000, 4000, vec![2000, 3000]),
            (0, END, vec![END / 3, END / 3 * 2]),
            // A damaged log is read, too.
            (9, 3, vec![9, 9]),
        ] {
            let found = parts(first, last, 3);
            let ends = [None].into_iter().chain(cuts.into_iter().map(Some));
            let ends: Vec<_> = ends.chain([None]).collect();
            let expected: Vec<Part> = ends.windows(2).map(|pair| (pair[0], pair[1])).collect();
            assert_eq!(found, expected, "{first} to {last}");
        }
        assert_eq!(parts(1, 100, 1), [(None, None)]);
    }
}
