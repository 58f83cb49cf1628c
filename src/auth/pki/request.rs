//! Certificate signing requests, and issuing certificates for them. Follows
//! k8s.io/kubernetes/pkg/controller/certificates/authority and Go's crypto/x509: only a request's subject, names and
//! key are used.

use std::net::IpAddr;

use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PKCS_RSA_SHA384,
    PKCS_RSA_SHA512, SignatureAlgorithm, SigningKey as _,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::PkiError;
use super::issue::{Authority, serial};
use super::subject::{Subject, rewritten};
use crate::auth::der;
use crate::meta::pem;

/// A certificate signing request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The subject.
    pub subject: Subject,
    /// DNS names.
    pub dns: Vec<String>,
    /// Email addresses.
    pub emails: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
    /// The subject for the certificate, DER.
    name: Vec<u8>,
    /// The public key with its algorithm, DER.
    key: Vec<u8>,
    /// Whether the request is signed by that key.
    signed: bool,
}

impl Request {
    /// Parses a request, PEM.
    ///
    /// # Errors
    /// Why it is not a valid request, in Go's words if known.
    pub fn parse(text: &str) -> Result<Request, String> {
        let blocks = pem::blocks(text);
        let bytes = match blocks.first() {
            Some(block) if block.label == "CERTIFICATE REQUEST" => &block.bytes,
            _ => return Err("PEM block type must be CERTIFICATE REQUEST".to_owned()),
        };
        let (_, parsed) = X509CertificationRequest::from_der(bytes).map_err(|e| e.to_string())?;
        let info = &parsed.certification_request_info;
        let mut request = Request {
            subject: Subject::of(&info.subject),
            dns: Vec::new(),
            emails: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            name: rewritten(&info.subject),
            key: info.subject_pki.raw.to_vec(),
            signed: parsed.verify_signature().is_ok(),
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                for name in &names.general_names {
                    request.take(name)?;
                }
            }
        }
        Ok(request)
    }

    fn take(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                self.addresses.push(address(bytes).ok_or_else(|| {
                    format!("x509: cannot parse IP address of length {}", bytes.len())
                })?)
            }
            // Other extensions are not copied into certificates.
            _ => {}
        }
        Ok(())
    }

    /// The subject alternative names, DER; `None` if there are none.
    fn names(&self) -> Option<Vec<u8>> {
        let bytes = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let text = |tag: u8, names: &[String]| -> Vec<Vec<u8>> {
            names
                .iter()
                .map(|name| der::tagged(tag, name.as_bytes()))
                .collect()
        };
        let addresses = self.addresses.iter();
        let names = [
            text(0x82, &self.dns),
            text(0x81, &self.emails),
            addresses
                .map(|address| der::tagged(0x87, &bytes(address)))
                .collect(),
            text(0x86, &self.uris),
        ]
        .concat();
        (!names.is_empty()).then(|| der::sequence(&names))
    }
}

/// An IP address from the bytes of a name.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// The API's names of key usages, with the bit numbers.
const FLAGS: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
/// The API's names of extended key usages, in the order in which they are written.
const PURPOSES: [(&str, &[u8]); 13] = [
    ("any", &[0x55, 0x1d, 0x25, 0x00]),
    ("server auth", &pkix(1)),
    ("client auth", &pkix(2)),
    ("code signing", &pkix(3)),
    ("email protection", &pkix(4)),
    ("s/mime", &pkix(4)),
    ("ipsec end system", &pkix(5)),
    ("ipsec tunnel", &pkix(6)),
    ("ipsec user", &pkix(7)),
    ("timestamping", &pkix(8)),
    ("ocsp signing", &pkix(9)),
    ("microsoft sgc", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x0a, 3, 3]),
    (
        "netscape sgc",
        &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1],
    ),
];

const fn pkix(purpose: u8) -> [u8; 8] {
    [0x2b, 6, 1, 5, 5, 7, 3, purpose]
}

/// Signature algorithms of CAs: the library's names, and DER.
static ALGORITHMS: [(&SignatureAlgorithm, &[u8]); 6] = [
    (
        &PKCS_ECDSA_P256_SHA256,
        b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
    ),
    (
        &PKCS_ECDSA_P384_SHA384,
        b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
    ),
    (&PKCS_ED25519, b"\x30\x05\x06\x03\x2b\x65\x70"),
    (
        &PKCS_RSA_SHA256,
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
    ),
    (
        &PKCS_RSA_SHA384,
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00",
    ),
    (
        &PKCS_RSA_SHA512,
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00",
    ),
];

/// The usages and validity of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `client auth`, `digital signature`, ...
    pub usages: Vec<String>,
    /// Start of validity, in seconds since 1970.
    pub not_before: i64,
    /// End of validity, in seconds since 1970.
    pub not_after: i64,
}

fn extension(arc: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical {
        der::tagged(0x01, &[0xff])
    } else {
        Vec::new()
    };
    der::sequence(&[der::oid(&[0x55, 0x1d, arc]), critical, der::octets(value)])
}

/// The extensions of a certificate.
///
/// # Errors
/// An unknown usage.
fn extensions(
    request: &Request,
    terms: &Terms,
    authority: Option<&[u8]>,
) -> Result<Vec<u8>, String> {
    let has = |name: &str| terms.usages.iter().any(|usage| usage == name);
    let is_known = |usage: &&String| {
        FLAGS.iter().any(|(name, _)| name == usage)
            || PURPOSES.iter().any(|(name, _)| name == usage)
    };
    if let Some(unknown) = terms.usages.iter().find(|usage| !is_known(usage)) {
        return Err(format!("unrecognized usage values: [{unknown:?}]"));
    }
    let mut out = Vec::new();
    let flags: Vec<u8> = FLAGS
        .iter()
        .filter(|(name, _)| has(name))
        .map(|(_, flag)| *flag)
        .collect();
    if !flags.is_empty() {
        out.push(extension(0x0f, true, &der::flags(flags.into_iter())));
    }
    let mut purposes: Vec<Vec<u8>> = PURPOSES
        .iter()
        .filter(|(name, _)| has(name))
        .map(|(_, arcs)| der::oid(arcs))
        .collect();
    purposes.dedup();
    if !purposes.is_empty() {
        out.push(extension(0x25, false, &der::sequence(&purposes)));
    }
    // Basic constraints: not a CA.
    out.push(extension(0x13, true, &der::sequence(&[])));
    if let Some(id) = authority {
        let id = der::sequence(&[der::tagged(0x80, id)]);
        out.push(extension(0x23, false, &id));
    }
    if let Some(names) = request.names() {
        let alone = request.name == der::sequence(&[]);
        out.push(extension(0x11, alone, &names));
    }
    Ok(der::sequence(&out))
}

impl Authority {
    /// Issues a certificate for a request. Returns PEM.
    ///
    /// # Errors
    /// [`PkiError::Issue`]: the request was not signed by its key, a usage is unknown, or the CA's key is of an
    /// unknown kind.
    pub(super) fn certify(&self, request: &Request, terms: &Terms) -> Result<String, PkiError> {
        let cannot = |cause: String| PkiError::Issue {
            what: format!("a certificate for {:?}", request.subject.name),
            cause,
        };
        if !request.signed {
            return Err(cannot(
                "unable to verify certificate request signature".to_owned(),
            ));
        }
        let key = self.key();
        let (_, algorithm) = ALGORITHMS
            .iter()
            .find(|(known, _)| *known == key.algorithm())
            .ok_or_else(|| cannot("the authority's key is of no known kind".to_owned()))?;
        let (issuer, id) = self.identity().map_err(cannot)?;
        let extensions = extensions(request, terms, id.as_deref()).map_err(cannot)?;
        let body = der::sequence(&[
            der::tagged(0xa0, &der::integer(&[2])),
            der::integer(&serial(&request.subject.name)?),
            algorithm.to_vec(),
            issuer,
            der::sequence(&[der::time(terms.not_before), der::time(terms.not_after)]),
            request.name.clone(),
            request.key.clone(),
            der::tagged(0xa3, &extensions),
        ]);
        let signature = key.sign(&body).map_err(|cause| cannot(cause.to_string()))?;
        let bytes = der::sequence(&[body, algorithm.to_vec(), der::bits(0, &signature)]);
        Ok(pem::text("CERTIFICATE", &bytes))
    }
}
