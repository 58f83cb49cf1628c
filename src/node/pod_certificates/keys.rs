//! Keys of pods, and the proof that the node has them. Follows `generateKeyAndProof`
//! (pkg/kubelet/podcertificate/podcertificatemanager.go).

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PKCS_RSA_SHA256,
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::auth::tokens::keys::new_rsa;

/// The prefix of the 32 bytes of an Ed25519 key in version 1 of PKCS#8 (RFC 8410), which all libraries read.
const ED25519: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];

/// Why there are no keys of that type; the text tells the pod's owner what to do.
const NO_P521: &str =
    "nodes of this kind cannot make keys of type \"ECDSAP521\"; use \"ECDSAP384\" instead";

/// A new key and the proof of its possession.
pub(super) struct Made {
    /// PKCS#8, PEM.
    pub pem: String,
    /// A PKCS#10 request without a subject, signed with the key; DER.
    pub request: Vec<u8>,
}

/// Generates a key of a type, given by the API's name for it. RSA takes some seconds.
///
/// # Errors
/// The node has no means to make keys of that type (ECDSAP521: ring has no such curve), or the system gives no random
/// numbers.
pub(super) fn make(kind: &str) -> Result<Made, String> {
    let key = match kind {
        "RSA3072" => rsa(3072),
        "RSA4096" => rsa(4096),
        "ECDSAP256" => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text),
        "ECDSAP384" => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(text),
        "ED25519" => ed25519(),
        "ECDSAP521" => Err(NO_P521.to_owned()),
        _ => Err(format!("unknown key type {kind:?}")),
    }?;
    let mut names_nobody = CertificateParams::default();
    names_nobody.distinguished_name = DistinguishedName::new();
    let request = names_nobody.serialize_request(&key).map_err(text)?;
    Ok(Made {
        pem: crate::meta::pem::text("PRIVATE KEY", key.serialized_der()),
        request: request.der().to_vec(),
    })
}

fn rsa(bits: usize) -> Result<KeyPair, String> {
    KeyPair::from_pkcs8_pem_and_sign_algo(&new_rsa(bits)?, &PKCS_RSA_SHA256).map_err(text)
}

fn ed25519() -> Result<KeyPair, String> {
    let mut der = [0; 48];
    let (head, seed) = der.split_at_mut(ED25519.len());
    head.copy_from_slice(&ED25519);
    crate::meta::names::random(seed);
    let der = PrivatePkcs8KeyDer::from(&der[..]);
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(text)
}

fn text(error: rcgen::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer as _;

    use super::*;

    #[test]
    fn keys_are_proved_by_requests_that_name_nobody() {
        for kind in ["RSA3072", "ECDSAP256", "ECDSAP384", "ED25519"] {
            let made = make(kind).expect(kind);
            let (rest, request) = X509CertificationRequest::from_der(&made.request).expect(kind);
            assert!(rest.is_empty(), "{kind}");
            request.verify_signature().expect(kind);
            let info = &request.certification_request_info;
            assert_eq!(info.subject.to_string(), "", "{kind}");
            assert!(request.requested_extensions().is_none(), "{kind}");
            let again = KeyPair::from_pem(&made.pem).expect(kind);
            assert_eq!(
                rcgen::PublicKeyData::subject_public_key_info(&again),
                info.subject_pki.raw
            );
        }
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        for (kind, error) in [("ECDSAP521", NO_P521), ("DSA", "unknown key type \"DSA\"")] {
            assert_eq!(make(kind).err().as_deref(), Some(error));
        }
    }
}
