//! Checks that a certificate and a private key match, with the errors of Go's tls.X509KeyPair.

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Validates a pair of PEM texts.
///
/// # Errors
/// What is wrong, in Go's words.
pub(super) fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = first(certificate, "certificate", |label| label == "CERTIFICATE")?;
    let key = first(key, "key", |label| label.ends_with("PRIVATE KEY"))?;
    let (_, parsed) = X509Certificate::from_der(&certificate.contents)
        .map_err(|_| "x509: malformed certificate".to_owned())?;
    let der = key.contents;
    let forms: [PrivateKeyDer<'_>; 3] = [
        PrivatePkcs1KeyDer::from(der.clone()).into(),
        PrivatePkcs8KeyDer::from(der.clone()).into(),
        PrivateSec1KeyDer::from(der).into(),
    ];
    let key = forms
        .iter()
        .find_map(|form| any_supported_type(form).ok())
        .ok_or("tls: failed to parse private key")?;
    let public = parsed.tbs_certificate.subject_pki.raw;
    match key.public_key() {
        Some(own) if own.as_ref() != public => {
            Err("tls: private key does not match public key".to_owned())
        }
        _ => Ok(()),
    }
}

/// The first block of PEM text whose label is wanted.
fn first(text: &[u8], input: &str, wanted: fn(&str) -> bool) -> Result<Pem, String> {
    let mut skipped: Vec<String> = Vec::new();
    for block in Pem::iter_from_buffer(text).filter_map(Result::ok) {
        if wanted(&block.label) {
            return Ok(block);
        }
        skipped.push(block.label);
    }
    let other = matches!(&skipped[..], [one] if if input == "key" {
        one == "CERTIFICATE"
    } else {
        one.ends_with("PRIVATE KEY")
    });
    Err(match (skipped.is_empty(), other, input) {
        (true, ..) => format!("tls: failed to find any PEM data in {input} input"),
        (_, true, "key") => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        (_, true, _) => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned(),
        (.., "key") => format!("tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]", skipped.join(" ")),
        _ => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", skipped.join(" ")),
    })
}
