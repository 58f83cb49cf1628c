//! The Kubernetes protobuf encoding of built-in objects, based on the same schemas: an envelope that names the kind,
//! then the object by field numbers. Follows k8s.io/apimachinery/pkg/runtime/serializer/protobuf.

mod read;
mod write;

use self::read::{Fields, Wire};
use self::write::put_bytes;

pub use self::read::read;
pub use self::write::write;

/// The first bytes of every body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are not an object, in upstream's words: those of the code that gogo/protobuf generates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There are no bytes.
    #[error("empty data")]
    Empty,
    /// They do not begin with the magic number.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    /// Nothing follows the magic number.
    #[error("empty body")]
    NoBody,
    /// They are incomplete.
    #[error("unexpected EOF")]
    Ends,
    /// A number has more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// A length is greater than any.
    #[error("proto: negative length found during unmarshaling")]
    Negative,
    /// There is no such wire type.
    #[error("proto: illegal wireType {0}")]
    Unknown(u8),
    /// A field has another wire type than its own.
    #[error("proto: wrong wireType = {found} for field {field}")]
    Wrong {
        /// The wire type.
        found: u8,
        /// The name of the field in Go.
        field: String,
    },
    /// A field has a number that none may have.
    #[error("proto: {of}: illegal tag {number} (wire type {tag})")]
    Tag {
        /// The name of the message in Go.
        of: String,
        /// The number.
        number: i32,
        /// Number and wire type.
        tag: u64,
    },
    /// A group ends that did not begin.
    #[error("proto: {0}: wiretype end group for non-group")]
    Group(String),
    /// They nest deeper than JSON may.
    #[error("proto: exceeded max depth")]
    Deep,
}

/// The contents of an envelope.
pub struct Envelope<'a> {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// The encoded object.
    pub raw: &'a [u8],
}

/// Decodes an envelope.
///
/// # Errors
/// [`Malformed`]
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, Malformed> {
    if bytes.is_empty() {
        return Err(Malformed::Empty);
    }
    let body = bytes.strip_prefix(MAGIC).ok_or(Malformed::NoMagic)?;
    if body.is_empty() {
        return Err(Malformed::NoBody);
    }
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: &[],
    };
    for field in Fields::of(body, "Unknown") {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields::of(meta, "TypeMeta") {
                    match field? {
                        (1, wire) => envelope.api_version = wire.string("APIVersion")?,
                        (2, wire) => envelope.kind = wire.string("Kind")?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            (1, wire) => return Err(wire.wrong("TypeMeta")),
            (2, wire) => return Err(wire.wrong("Raw")),
            _ => {}
        }
    }
    Ok(envelope)
}

/// Puts an encoded object into an envelope.
pub fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + meta.len() + 32);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// Appends a watch event as a frame of a stream: its length in four bytes, big-endian, then a `WatchEvent`
/// message that contains the object in its envelope.
pub fn event(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut message = Vec::with_capacity(raw.len() + 24);
    put_bytes(&mut message, 1, kind.as_bytes());
    put_bytes(&mut message, 2, &raw);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.append(&mut message);
}

#[cfg(test)]
mod tests;
