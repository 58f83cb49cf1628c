//! TLS of the listener, and verification of client certificates.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use compact_str::CompactString;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use super::{Pair, PkiError};

/// The crypto provider of this process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn server_config(
    serving: Arc<Serving>,
    clients: &Arc<ClientCertificates>,
    others: Option<&ClientCertificates>,
) -> Result<ServerConfig, PkiError> {
    let mut verifier = ClientCertificates::clone(clients);
    if let Some(others) = others {
        verifier.subjects.extend(others.subjects.iter().cloned());
    }
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The TLS settings of a node with the certificate `serving`. Client certificates are requested; `clients` verifies
/// them.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn of_node(
    serving: Arc<Serving>,
    clients: &ClientCertificates,
) -> Result<ServerConfig, PkiError> {
    Ok(ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(clients.clone()))
        .with_cert_resolver(serving))
}

/// The current serving certificate: a renewed one applies to new connections.
#[derive(Debug)]
pub struct Serving(ArcSwap<CertifiedKey>);

impl Serving {
    pub(super) fn new(key: CertifiedKey) -> Self {
        Serving(ArcSwap::from_pointee(key))
    }

    /// A self-signed certificate for `names`, like upstream's nodes, until [`Serving::show`].
    ///
    /// # Errors
    /// [`PkiError::Issue`], [`PkiError::Tls`].
    pub fn self_signed(names: &[String]) -> Result<Self, PkiError> {
        self_signed(names).map(Self::new)
    }

    /// Uses `pair` for new connections.
    pub fn show(&self, pair: &Pair) {
        self.replace(pair.certified());
    }

    /// Uses a new self-signed certificate for `names`.
    ///
    /// # Errors
    /// Like [`Serving::self_signed`].
    pub fn show_self_signed(&self, names: &[String]) -> Result<(), PkiError> {
        self_signed(names).map(|key| {
            self.replace(key);
        })
    }

    /// Uses another certificate for new connections. Returns whether it is different.
    pub(super) fn replace(&self, key: CertifiedKey) -> bool {
        let other = self.0.load().cert != key.cert;
        if other {
            self.0.store(Arc::new(key));
        }
        other
    }
}

fn self_signed(names: &[String]) -> Result<CertifiedKey, PkiError> {
    let issued = rcgen::generate_simple_self_signed(names).map_err(|cause| PkiError::Issue {
        what: "the serving certificate of a node".into(),
        cause: cause.to_string(),
    })?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let chain = vec![issued.cert.der().clone()];
    Ok(CertifiedKey::from_der(chain, key.into(), &provider())?)
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Verifies client certificates against the CAs that the server trusts.
///
/// The handshake accepts any certificate whose private key the client has. [`ClientCertificates::judge`] checks
/// validity once per connection; if it fails, requests get a 401 like upstream, unless a bearer token authenticates
/// them.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    chain: Arc<dyn ClientCertVerifier>,
    subjects: Vec<DistinguishedName>,
}

impl ClientCertificates {
    /// Trusts `authorities`, read from the file `path` (named in errors).
    ///
    /// # Errors
    /// [`PkiError::Verifier`].
    pub fn new(authorities: &[CertificateDer<'static>], path: &Path) -> Result<Self, PkiError> {
        let unusable = |cause: String| PkiError::Verifier {
            path: path.to_owned(),
            cause,
        };
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots
                .add(authority.clone())
                .map_err(|cause| unusable(cause.to_string()))?;
        }
        let subjects = roots.subjects();
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|cause| unusable(cause.to_string()))?;
        Ok(ClientCertificates { chain, subjects })
    }

    /// Verifies the certificates presented by a client (its own first) at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Why they are not trusted, for the log.
    pub fn judge(&self, presented: &[CertificateDer<'_>], now: i64) -> Result<(), CompactString> {
        let Some((own, intermediates)) = presented.split_first() else {
            return Err("no certificate was presented".into());
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(now).unwrap_or(0),
        ));
        self.chain
            .verify_client_cert(own, intermediates, now)
            .map(|_| ())
            .map_err(|cause| cause.to_string().into())
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Verified per connection, see above. The signature checks below prove that the client has the key.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
