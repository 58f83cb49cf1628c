//! Streams long lists, encoded piece by piece while they are sent: a list of any length needs memory for one piece, and
//! its first bytes leave at once.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::reply::Body;
use crate::resources::record::write_body;
use crate::store::Entry;

/// The approximate size of a piece: a few TLS records, and small enough for allocators to reuse.
pub const PIECE: usize = 64 << 10;

/// A list of stored objects in JSON.
pub struct Slices {
    /// The text before the items, and after them.
    pub head: String,
    pub tail: String,
    /// The items.
    pub entries: Vec<Arc<Entry>>,
    /// Whether items have kind and apiVersion.
    pub typed: bool,
}

impl Slices {
    /// The approximate size in bytes.
    pub fn size(&self) -> usize {
        let items = self
            .entries
            .iter()
            .map(|entry| entry.record.body.len() + 48);
        self.head.len() + items.sum::<usize>() + self.tail.len()
    }

    /// The whole text.
    pub fn whole(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        for piece in self.pieces() {
            out.extend_from_slice(&piece);
        }
        out
    }

    /// The pieces, in order.
    pub fn pieces(self) -> impl Iterator<Item = Bytes> + Send {
        let (mut head, mut tail) = (Some(self.head), Some(self.tail));
        let mut entries = self.entries.into_iter();
        std::iter::from_fn(move || {
            tail.as_ref()?;
            let mut out = Vec::with_capacity(PIECE + PIECE / 4);
            let mut first = head.is_some();
            if let Some(head) = head.take() {
                out.extend_from_slice(head.as_bytes());
            }
            while out.len() < PIECE {
                let Some(entry) = entries.next() else {
                    out.extend_from_slice(tail.take().unwrap_or_default().as_bytes());
                    break;
                };
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                write_body(&entry, entry.rev, self.typed, &mut out);
            }
            Some(Bytes::from(out))
        })
    }
}

/// Splits bytes into pieces, so that they are processed while they are sent.
pub fn cut(mut bytes: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        let next = bytes.len().min(PIECE);
        (next > 0).then(|| bytes.split_to(next))
    })
}

/// Compresses pieces with gzip.
pub fn packed(
    pieces: impl Iterator<Item = Bytes> + Send,
    level: Compression,
) -> impl Iterator<Item = Bytes> + Send {
    let mut pieces = pieces.fuse();
    let mut encoder = Some(GzEncoder::new(Vec::new(), level));
    std::iter::from_fn(move || {
        loop {
            let into = encoder.as_mut()?;
            match pieces.next() {
                // Writing into memory does not fail.
                Some(piece) => into.write_all(&piece).ok()?,
                None => return encoder.take()?.finish().ok().map(Bytes::from),
            }
            if into.get_ref().len() >= PIECE {
                return Some(Bytes::from(std::mem::take(into.get_mut())));
            }
        }
    })
}

/// A body whose pieces are produced when they can be sent.
pub fn body(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn slices(count: usize, text: &str) -> Slices {
        let entry = crate::resources::record::tests::entry(&format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"a"}},"data":{{"a":"{text}"}}}}"#
        ));
        Slices {
            head: "[".to_owned(),
            tail: "]\n".to_owned(),
            entries: vec![entry; count],
            typed: true,
        }
    }

    fn unpacked(pieces: impl Iterator<Item = Bytes> + Send) -> String {
        let packed: Vec<u8> = packed(pieces, Compression::fast()).flatten().collect();
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&packed[..]);
        decoder.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn pieces_are_the_list_and_none_is_long() {
        for (count, size) in [(0, 0), (1, 10), (3, PIECE), (1000, 500)] {
            let text = "x".repeat(size);
            let mut one = Vec::new();
            let entry = &slices(1, &text).entries[0];
            write_body(entry, entry.rev, true, &mut one);
            let expected = format!(
                "[{}]\n",
                vec![String::from_utf8(one).unwrap(); count].join(",")
            );
            assert_eq!(slices(count, &text).whole(), expected.as_bytes());
            for piece in slices(count, &text).pieces() {
                assert!(piece.len() <= 2 * PIECE + 1000, "{}", piece.len());
            }
            assert_eq!(unpacked(slices(count, &text).pieces()), expected);
            let there = Bytes::from(expected.clone());
            assert_eq!(unpacked(cut(there)), expected);
        }
    }
}
