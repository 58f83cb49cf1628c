//! Rows: their keys, and their values as envelopes.

use super::super::{Entry, Pairs, Record, Revision};

/// Transform: none, and no checksum, as earlier versions wrote.
const BARE: u8 = 0;
/// Transform: none, with a checksum at the end.
const CHECKED: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;

pub(super) fn row_key(rev: Revision, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + key.len());
    out.extend_from_slice(&rev.to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out
}

pub(super) fn split_key(row: &[u8]) -> Option<(Revision, &str)> {
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

pub(super) fn encode(resource: &str, entry: Option<&Entry>) -> Vec<u8> {
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

pub(super) fn decode<'a>(
    value: &'a [u8],
    rev: Revision,
    key: &str,
) -> Option<(&'a str, Option<Entry>)> {
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
