//! Subjects of certificates and requests. Follows Go's crypto/x509 and crypto/x509/pkix, so that a request is checked
//! with the same subject that its certificate will have.

use compact_str::CompactString;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::auth::der;

/// The attributes copied into certificates, by the last arc of 2.5.4, in the order in which they are written. The first
/// ones may occur several times, of the others the last wins.
const SEVERAL: [u8; 7] = [6, 10, 11, 7, 8, 9, 17];
const ONE: [u8; 2] = [3, 5];

/// A subject as Go rewrites it, DER: unknown attributes are dropped, so that nothing unchecked is certified.
pub(super) fn rewritten(subject: &X509Name<'_>) -> Vec<u8> {
    let values = |arc: u8| -> Vec<Vec<u8>> {
        let own = [0x55, 0x04, arc];
        subject
            .iter_attributes()
            .filter(|attribute| attribute.attr_type().as_bytes() == own)
            .filter_map(text)
            .map(|value| der::sequence(&[der::oid(&own), der::text(&value)]))
            .collect()
    };
    let several = SEVERAL.into_iter().map(values);
    let one = ONE.into_iter().map(|arc| Vec::from_iter(values(arc).pop()));
    let all = several.chain(one).filter(|values| !values.is_empty());
    der::sequence(&all.map(der::set).collect::<Vec<_>>())
}

/// The user named by a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The common name; empty if there is none.
    pub name: CompactString,
    /// The organizations.
    pub groups: Vec<CompactString>,
}

impl Subject {
    /// Reads a subject.
    pub fn of(subject: &X509Name<'_>) -> Subject {
        Subject {
            // The last one wins.
            name: subject
                .iter_common_name()
                .filter_map(text)
                .last()
                .unwrap_or_default(),
            groups: subject.iter_organization().filter_map(text).collect(),
        }
    }
}

/// The text of an attribute; `None` if Go does not consider its type to be text.
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
