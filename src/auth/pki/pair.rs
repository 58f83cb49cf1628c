//! A certificate and its private key.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::issue::{names, parse};
use super::{Issued, Subject, tls};

/// A certificate, optionally followed by the other certificates of its chain, and its private key.
#[derive(Clone)]
pub struct Pair {
    /// The subject.
    pub subject: Subject,
    /// The DNS names and addresses.
    pub names: Vec<String>,
    /// Start of validity, in seconds since 1970.
    pub not_before: i64,
    /// End of validity, in seconds since 1970.
    pub not_after: i64,
    certified: CertifiedKey,
}

impl Pair {
    /// Parses a certificate and a key, both PEM; the same text may contain both.
    ///
    /// # Errors
    /// There is no certificate or no key, TLS does not support them, or they do not match.
    pub fn read(certificate: &str, key: &str) -> Result<Pair, String> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the certificate: {error}"))?;
        let first = chain.first().ok_or("there is no certificate in it")?;
        let parsed = parse(first)?;
        let (subject, names) = (Subject::of(parsed.subject()), names(&parsed));
        let validity = parsed.validity();
        let (not_before, not_after) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| format!("the private key: {error}"))?;
        let certified = CertifiedKey::from_der(chain, key, &tls::provider())
            .map_err(|error| error.to_string())?;
        Ok(Pair {
            subject,
            names,
            not_before,
            not_after,
            certified,
        })
    }

    /// The pair of a certificate issued by this process.
    ///
    /// # Errors
    /// Like [`Pair::read`].
    pub fn of(issued: &Issued) -> Result<Pair, String> {
        Self::read(&issued.certificate, &issued.key)
    }

    /// Whether it is valid at `now`, in seconds since 1970.
    pub fn is_valid(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether one of `authorities` issued it.
    pub fn is_of(&self, authorities: &[CertificateDer<'_>]) -> bool {
        let Some(Ok(own)) = self.chain().first().map(parse) else {
            return false;
        };
        authorities.iter().any(|authority| {
            parse(authority).is_ok_and(|authority| {
                authority.subject().as_raw() == own.issuer().as_raw()
                    && own.verify_signature(Some(authority.public_key())).is_ok()
            })
        })
    }

    /// The certificate chain, its own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(super) fn certified(&self) -> CertifiedKey {
        self.certified.clone()
    }
}

/// The hash of a certificate's public key, as kubeadm prints it: `sha256:` and hexadecimal digits.
///
/// # Errors
/// The certificate cannot be parsed.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Result<String, String> {
    use std::fmt::Write as _;
    let parsed = parse(certificate)?;
    let digest = ring::digest::digest(&ring::digest::SHA256, parsed.public_key().raw);
    let mut text = String::from("sha256:");
    for byte in digest.as_ref() {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
