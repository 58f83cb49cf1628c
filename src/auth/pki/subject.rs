//! Whom a certificate, or a request for one, names. Follows Go's crypto/x509 and crypto/x509/pkix, so that what a request
//! asks for is judged as what its certificate will be taken for.

use compact_str::CompactString;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The user that a subject stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The common name; empty for none.
    pub name: CompactString,
    /// The organizations.
    pub groups: Vec<CompactString>,
}

impl Subject {
    /// Reads a subject.
    pub fn of(subject: &X509Name<'_>) -> Subject {
        Subject {
            // Of several the last counts.
            name: subject
                .iter_common_name()
                .filter_map(text)
                .last()
                .unwrap_or_default(),
            groups: subject.iter_organization().filter_map(text).collect(),
        }
    }
}

/// The text of an attribute; none where it is of a type that Go takes for no text.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<CompactString> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag() {
        Tag::TeletexString => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units: Vec<u16> = bytes
                .chunks(2)
                .map(|pair| {
                    pair.iter()
                        .fold(0, |unit, byte| unit << 8 | u16::from(*byte))
                })
                .collect();
            let text = String::from_utf16(&units).ok()?;
            Some(text.strip_suffix('\0').unwrap_or(&text).into())
        }
        _ => attribute.as_str().ok().map(Into::into),
    }
}
