//! Keys that sign tokens and verify their signatures: RSA (RS256) and the curves P-256 and P-384 (ES256, ES384), from
//! PEM files as upstream reads them. Follows k8s.io/kubernetes pkg/serviceaccount/{jwt,openidmetadata}.go.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::auth::der;
use crate::schema::{Object, Value};

/// Why a file contains no keys for tokens.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from {}: {cause}", path.display())]
pub struct KeyError {
    what: &'static str,
    path: std::path::PathBuf,
    cause: String,
}

/// A private key that signs tokens.
pub struct Signer {
    /// The public half.
    pub public: PublicKey,
    pair: Pair,
    random: SystemRandom,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Curve(Box<EcdsaKeyPair>),
}

/// A public key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The key ID: the digest of its DER form.
    pub id: String,
    kind: Kind,
    /// For RSA the modulus and the exponent, otherwise the two coordinates; big-endian.
    parts: [Vec<u8>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
}

impl Kind {
    fn algorithm(self) -> &'static str {
        match self {
            Kind::Rsa => "RS256",
            Kind::P256 => "ES256",
            Kind::P384 => "ES384",
        }
    }

    /// The length of a coordinate, in bytes.
    fn coordinate(self) -> usize {
        match self {
            Kind::Rsa => 0,
            Kind::P256 => 32,
            Kind::P384 => 48,
        }
    }
}

impl PublicKey {
    /// Parses a SubjectPublicKeyInfo.
    fn from_spki(der: &[u8]) -> Result<PublicKey, String> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|e| e.to_string())?;
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let trimmed = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        let (kind, parts) = match info.parsed().map_err(|e| e.to_string())? {
            x509_parser::public_key::PublicKey::RSA(key) => {
                (Kind::Rsa, [trimmed(key.modulus), trimmed(key.exponent)])
            }
            x509_parser::public_key::PublicKey::EC(point) => {
                let data = point.data();
                let kind = match data.len() {
                    65 => Kind::P256,
                    97 => Kind::P384,
                    _ => return Err("only the curves P-256 and P-384 are known".into()),
                };
                let (x, y) = data[1..].split_at(kind.coordinate());
                (kind, [x.to_vec(), y.to_vec()])
            }
            _ => return Err("it is neither an RSA key nor one of an elliptic curve".into()),
        };
        Ok(PublicKey {
            id: BASE64.encode(digest),
            kind,
            parts,
        })
    }

    /// `RS256`, `ES256` or `ES384`.
    pub fn algorithm(&self) -> &'static str {
        self.kind.algorithm()
    }

    /// Whether `signature` is this key's signature of `message` with `algorithm`.
    pub fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if algorithm != self.algorithm() {
            return false;
        }
        let [a, b] = &self.parts;
        match self.kind {
            Kind::Rsa => signature::RsaPublicKeyComponents { n: a, e: b }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            kind => {
                let algorithm = match kind {
                    Kind::P384 => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => &signature::ECDSA_P256_SHA256_FIXED,
                };
                let point = [&[4], a.as_slice(), b].concat();
                signature::UnparsedPublicKey::new(algorithm, point)
                    .verify(message, signature)
                    .is_ok()
            }
        }
    }

    /// The key as a JSON Web Key.
    pub fn jwk(&self) -> Value {
        let mut key = Object::new();
        key.insert("use", "sig");
        key.insert("kty", if self.kind == Kind::Rsa { "RSA" } else { "EC" });
        key.insert("kid", self.id.as_str());
        match self.kind {
            Kind::Rsa => None,
            Kind::P256 => key.insert("crv", "P-256"),
            Kind::P384 => key.insert("crv", "P-384"),
        };
        key.insert("alg", self.algorithm());
        let names = match self.kind {
            Kind::Rsa => ["n", "e"],
            _ => ["x", "y"],
        };
        for (name, part) in names.into_iter().zip(&self.parts) {
            key.insert(name, BASE64.encode(part));
        }
        Value::Object(key)
    }
}

impl Signer {
    /// Reads a private key from `pem`: PKCS#1, PKCS#8 or SEC1.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(pem: &str) -> Result<Signer, String> {
        sections(pem)?
            .into_iter()
            .find_map(|(kind, der)| Signer::from_section(kind, &der))
            .unwrap_or_else(|| Err("there is no private key in it".into()))
    }

    /// The private key in a PEM section; `None` if the section is something else.
    fn from_section(kind: SectionKind, der: &[u8]) -> Option<Result<Signer, String>> {
        match kind {
            SectionKind::RsaPrivateKey => Some(
                RsaKeyPair::from_der(der)
                    .map_err(|e| e.to_string())
                    .and_then(Signer::rsa),
            ),
            SectionKind::EcPrivateKey => Some(
                pkcs8_of_sec1(der)
                    .ok_or_else(|| "the curve is not known".to_owned())
                    .and_then(|der| Signer::pkcs8(&der)),
            ),
            SectionKind::PrivateKey => Some(Signer::pkcs8(der)),
            _ => None,
        }
    }

    fn pkcs8(der: &[u8]) -> Result<Signer, String> {
        let curves = [
            (Kind::P256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            (Kind::P384, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        ];
        let random = SystemRandom::new();
        for (kind, algorithm) in curves {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, der, &random) {
                return Signer::curve(kind, pair);
            }
        }
        RsaKeyPair::from_pkcs8(der)
            .map_err(|e| e.to_string())
            .and_then(Signer::rsa)
    }

    fn curve(kind: Kind, pair: EcdsaKeyPair) -> Result<Signer, String> {
        let oid: &[u8] = match kind {
            Kind::P384 => OID_P384,
            _ => OID_P256,
        };
        let spki = der::sequence(&[
            der::sequence(&[der::oid(OID_EC), der::oid(oid)]),
            der::bits(0, pair.public_key().as_ref()),
        ]);
        Ok(Signer {
            public: PublicKey::from_spki(&spki)?,
            pair: Pair::Curve(Box::new(pair)),
            random: SystemRandom::new(),
        })
    }

    fn rsa(pair: RsaKeyPair) -> Result<Signer, String> {
        let spki = der::sequence(&[
            der::sequence(&[der::oid(OID_RSA), der::tagged(5, &[])]),
            der::bits(0, pair.public_key().as_ref()),
        ]);
        Ok(Signer {
            public: PublicKey::from_spki(&spki)?,
            pair: Pair::Rsa(Box::new(pair)),
            random: SystemRandom::new(),
        })
    }

    /// The signature of `message`.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &signature::RSA_PKCS1_SHA256,
                    &self.random,
                    message,
                    &mut out,
                )
                .map_err(|e| e.to_string())?;
                Ok(out)
            }
            Pair::Curve(pair) => pair
                .sign(&self.random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|e| e.to_string()),
        }
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Reads the private key from a file.
///
/// # Errors
/// [`KeyError`].
pub fn signer(path: &Path) -> Result<Signer, KeyError> {
    let failed = |cause| KeyError {
        what: "the key that signs service account tokens",
        path: path.to_owned(),
        cause,
    };
    let pem = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    Signer::from_pem(&pem).map_err(failed)
}

/// Reads the public keys from a file: public keys, certificates, and the public halves of private keys.
///
/// # Errors
/// [`KeyError`], also if there are none.
pub fn public_keys(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let failed = |cause| KeyError {
        what: "keys that judge service account tokens",
        path: path.to_owned(),
        cause,
    };
    let pem = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    public_keys_of_pem(&pem).map_err(failed)
}

fn public_keys_of_pem(pem: &str) -> Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for (kind, der) in sections(pem)? {
        match kind {
            SectionKind::PublicKey => keys.push(PublicKey::from_spki(&der)?),
            SectionKind::Certificate => {
                let (_, certificate) =
                    x509_parser::parse_x509_certificate(&der).map_err(|e| e.to_string())?;
                keys.push(PublicKey::from_spki(certificate.public_key().raw)?);
            }
            kind => {
                if let Some(signer) = Signer::from_section(kind, &der) {
                    keys.push(signer?.public);
                }
            }
        }
    }
    if keys.is_empty() {
        return Err("data does not contain any valid RSA or ECDSA public keys".into());
    }
    Ok(keys)
}

fn sections(pem: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

/// A new RSA key of so many bits, PKCS#8 PEM. Takes most of a second for 2048, and some seconds for 4096.
///
/// # Errors
/// The system provides no random numbers.
pub fn new_rsa(bits: usize) -> Result<String, String> {
    use rsa::pkcs8::EncodePrivateKey as _;
    let key =
        rsa::PrivateKey::new(&mut System(SystemRandom::new()), bits).map_err(|e| e.to_string())?;
    let pem = key
        .to_pkcs8_pem(rsa::pkcs8::LineEnding::LF)
        .map_err(|e| e.to_string())?;
    Ok(pem.to_string())
}

/// The system's random number generator, for the RSA library.
struct System(SystemRandom);

impl System {
    fn take<const N: usize>(&self) -> Result<[u8; N], NoRandom> {
        let mut bytes = [0; N];
        ring::rand::SecureRandom::fill(&self.0, &mut bytes).map_err(|_| NoRandom)?;
        Ok(bytes)
    }
}

/// The system provides no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
struct NoRandom;

impl rsa::rand_core::TryRng for System {
    type Error = NoRandom;

    fn try_next_u32(&mut self) -> Result<u32, NoRandom> {
        self.take().map(u32::from_le_bytes)
    }

    fn try_next_u64(&mut self) -> Result<u64, NoRandom> {
        self.take().map(u64::from_le_bytes)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        ring::rand::SecureRandom::fill(&self.0, bytes).map_err(|_| NoRandom)
    }
}

impl rsa::rand_core::TryCryptoRng for System {}

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const OID_P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// Wraps an elliptic curve's SEC1 private key in PKCS#8.
fn pkcs8_of_sec1(sec1: &[u8]) -> Option<Vec<u8>> {
    let names = |oid: &[u8]| sec1.windows(oid.len()).any(|window| window == oid);
    let curve = [OID_P256, OID_P384].into_iter().find(|oid| names(oid))?;
    Some(der::sequence(&[
        der::integer(&[0]),
        der::sequence(&[der::oid(OID_EC), der::oid(curve)]),
        der::octets(sec1),
    ]))
}

#[cfg(test)]
mod tests;
