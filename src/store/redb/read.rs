//! Reads the log: once, when a store is opened, in parallel parts.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use redb::{
    AccessGuard, Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, TableHandle as _,
};

use super::super::engine::{Beginning, Row};
use super::super::{ResourcePrefix, Revision};
use super::envelope::{decode, split_key};
use super::unbroken::unbroken;
use super::{FORMAT, LOG, META};

/// At most so many threads read the log when a store is opened: decoding is bound by the processor.
const READERS: usize = 4;
/// How many rows each of them passes on at once.
const BATCH: usize = 64;

pub(super) enum ReadError {
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

/// Reads a database: its newest revision and its content.
pub(super) fn read(database: &Database) -> Result<(Revision, Beginning), ReadError> {
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
            // In a damaged log the first revision may be greater than the last.
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
