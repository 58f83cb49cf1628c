//! Parses certificates and requests like Go's crypto/x509, with its error texts.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::meta::pem;

/// Parses a request from DER.
pub(super) fn request(der: &[u8]) -> Result<X509CertificationRequest<'_>, String> {
    match X509CertificationRequest::from_der(der) {
        Ok(([], request)) => Ok(request),
        Ok(_) => Err("asn1: syntax error: trailing data".to_owned()),
        Err(_) if cut_short(der) => Err("asn1: syntax error: data truncated".to_owned()),
        Err(_) => Err("asn1: structure error: not a certificate request".to_owned()),
    }
}

/// Whether the DER is shorter than the length in its header.
fn cut_short(der: &[u8]) -> bool {
    use x509_parser::der_parser::asn1_rs::Header;
    match Header::from_der(der) {
        Ok((contents, header)) => {
            let length = header.length().definite();
            length.is_ok_and(|length| length > contents.len())
        }
        Err(_) => true,
    }
}

/// Parses a certificate from DER.
pub(super) fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("x509: trailing data".to_owned()),
        Err(_) => Err("x509: malformed certificate".to_owned()),
    }
}

/// Checks that a request is signed by its own key.
pub(super) fn check_signature(request: &X509CertificationRequest<'_>) -> Result<(), String> {
    use x509_parser::error::X509Error;
    let key = &request.certification_request_info.subject_pki;
    request.verify_signature().map_err(|error| {
        match (error, key.parsed()) {
            (X509Error::SignatureVerificationError, Ok(PublicKey::RSA(_))) => {
                "crypto/rsa: verification error"
            }
            (X509Error::SignatureVerificationError, Ok(PublicKey::EC(_))) => {
                "x509: ECDSA verification failure"
            }
            (X509Error::SignatureVerificationError, _) => "x509: Ed25519 verification failure",
            _ => "x509: cannot verify signature: algorithm unimplemented",
        }
        .to_owned()
    })
}

/// Checks that PEM text is a valid request: validateCSR.
pub(super) fn check_request(text: &str) -> Result<(), String> {
    match pem::blocks(text).first() {
        Some(block) if block.label == "CERTIFICATE REQUEST" => {
            check_signature(&request(&block.bytes)?)
        }
        _ => Err("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    }
}

/// Checks that PEM text consists of certificates, at least one: validateCertificate.
pub(super) fn check_certificates(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let blocks = pem::blocks(text);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            let label = crate::meta::errors::quoted(&block.label);
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {label}"
            ));
        }
        if block.headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        if block.bytes.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        let mut rest = &block.bytes[..];
        while !rest.is_empty() {
            rest = X509Certificate::from_der(rest)
                .map_err(|_| "x509: malformed certificate".to_owned())?
                .0;
        }
    }
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

/// The type of a public key, as far as rules depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Ed25519
    Edwards,
    /// An elliptic curve of so many bits.
    Curve(usize),
    /// RSA with a modulus of so many bits.
    Rsa(usize),
    /// Any other type.
    Other,
}

/// The type of a public key.
pub(super) fn key_of(info: &SubjectPublicKeyInfo<'_>) -> Key {
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => Key::Rsa(key.key_size()),
        Ok(PublicKey::EC(point)) => Key::Curve(point.key_size()),
        _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => Key::Edwards,
        _ => Key::Other,
    }
}
