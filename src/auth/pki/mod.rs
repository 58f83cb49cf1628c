//! The keys and certificates of a server: its own certificate authority, a serving certificate, the
//! administrator's client certificate, and the key that signs service account tokens.
//!
//! Everything is in `DIR/pki`, with kubeadm's file names, readable only by the owner. Existing files are used; those
//! missing, about to expire or not covering the server's names are issued again, so opening twice changes nothing, and
//! an operator may provide a CA of their own. A file that exists but is invalid is an error: replacing a CA would lock
//! out every client.

mod ask;
mod files;
mod issue;
mod pair;
mod request;
mod subject;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

pub use ask::{Key, Wanted};
use files::Paths;
use issue::Authority;
pub use issue::Issued;
use issue::Leaf;
pub use pair::{Pair, key_hash};
pub use request::{Request, Terms};
pub use subject::Subject;
pub use tls::{ClientCertificates, Serving, of_node};

/// Why keys or certificates are unavailable. The texts name the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file operation failed.
    #[error("cannot {attempted} {}: {cause}", path.display())]
    File {
        /// `read`, `write`, `lock`, ...
        attempted: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: std::io::Error,
    },
    /// A file does not contain what its name says.
    #[error("{} contains no usable {what}: {cause}; restore it, or move it away to create a new one", path.display())]
    Unusable {
        /// `certificate`, `private key`
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A CA certificate without its key.
    #[error(
        "{} exists but {} does not; restore the key, or move the certificate away to create a new CA (clients then need a new kubeconfig)",
        certificate.display(),
        key.display()
    )]
    KeyMissing {
        /// The certificate.
        certificate: PathBuf,
        /// The key that is missing.
        key: PathBuf,
    },
    /// A name that is not valid in certificates.
    #[error("{name:?} cannot be a name of the server: it is neither an IP address nor a DNS name")]
    Name {
        /// The name as given.
        name: String,
    },
    /// A certificate or key could not be made.
    #[error("cannot issue {what}: {cause}")]
    Issue {
        /// What was to be made.
        what: String,
        /// The library's error.
        cause: String,
    },
    /// TLS rejects the keys.
    #[error("TLS cannot be set up with the serving certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// The CA certificate cannot be used to verify client certificates.
    #[error("client certificates cannot be verified against {}: {cause}", path.display())]
    Verifier {
        /// The authority's certificate.
        path: PathBuf,
        /// The library's error.
        cause: String,
    },
}

/// Certificates are reissued if less time than this remains, in seconds: 60 days.
const RENEW_BEFORE: i64 = 60 * DAY;
const DAY: i64 = 24 * 60 * 60;
/// Validity of the CA, in days: 10 years, like kubeadm's.
const CA_DAYS: i64 = 3650;
/// Validity of issued certificates, in days: a year, like kubeadm's.
const LEAF_DAYS: i64 = 365;

/// Names of the server in every cluster.
const OWN_NAMES: [&str; 7] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "::1",
];

/// The keys and certificates of one server.
pub struct Pki {
    paths: Paths,
    names: Vec<String>,
    authority: Authority,
    serving: Arc<tls::Serving>,
    clients: Arc<ClientCertificates>,
    admin: ArcSwap<Issued>,
}

impl Pki {
    /// Opens `dir/pki` and creates what is missing. `names` are the host names and IP addresses by which clients reach
    /// the server, besides localhost and those of the `kubernetes` service.
    ///
    /// # Errors
    /// A file that cannot be read, written or parsed, or an invalid name.
    pub fn open<S: AsRef<str>>(
        dir: &Path,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Pki, PkiError> {
        Self::open_at(dir, names, crate::meta::time::now())
    }

    /// Like [`Pki::open`], at a given time in seconds since 1970.
    fn open_at<S: AsRef<str>>(
        dir: &Path,
        names: impl IntoIterator<Item = S>,
        now: i64,
    ) -> Result<Pki, PkiError> {
        let paths = Paths::new(dir)?;
        let mut all: Vec<String> = OWN_NAMES.iter().map(|name| (*name).to_owned()).collect();
        for name in names {
            let name = server_name(name.as_ref())?;
            if !all.contains(&name) {
                all.push(name);
            }
        }
        let lock = paths.lock()?;
        let authority = Authority::open(&paths, now)?;
        let serving = leaf(&paths, &authority, &Leaf::serving(&all), now)?;
        let admin = leaf(&paths, &authority, &Leaf::admin(), now)?;
        drop(lock);
        let clients = Arc::new(ClientCertificates::new(
            std::slice::from_ref(authority.certificate()),
            &paths.certificate("ca"),
        )?);
        Ok(Pki {
            serving: Arc::new(tls::Serving::new(certified(&serving)?)),
            clients,
            admin: ArcSwap::from_pointee(admin),
            names: all,
            authority,
            paths,
        })
    }

    /// Reissues what will expire soon after `now` (in seconds since 1970), and uses it for new connections. Call it about
    /// once a day. Returns whether anything was issued; the administrator's kubeconfig must then be written again.
    ///
    /// # Errors
    /// Like [`Pki::open`]; the server then continues with the old certificates.
    pub fn renew(&self, now: i64) -> Result<bool, PkiError> {
        let _lock = self.paths.lock()?;
        let serving = leaf(
            &self.paths,
            &self.authority,
            &Leaf::serving(&self.names),
            now,
        )?;
        let admin = leaf(&self.paths, &self.authority, &Leaf::admin(), now)?;
        let mut renewed = self.serving.replace(certified(&serving)?);
        if admin.certificate != self.admin.load().certificate {
            renewed = true;
            self.admin.store(Arc::new(admin));
        }
        Ok(renewed)
    }

    /// The TLS settings of the listener: HTTP/2 preferred to HTTP/1.1, client certificates requested but optional: from
    /// a CA trusted by [`Pki::clients`], or from `others`, which someone else verifies.
    /// [`Pki::clients`] verifies client certificates after the handshake: an invalid one leads to a 401 like upstream,
    /// not to a failed handshake.
    ///
    /// # Errors
    /// [`PkiError::Tls`].
    pub fn server_config(
        &self,
        others: Option<&ClientCertificates>,
    ) -> Result<rustls::ServerConfig, PkiError> {
        tls::server_config(self.serving.clone(), &self.clients, others)
    }

    /// Also trusts client certificates of the CAs in the PEM files `paths`. Call it before
    /// [`Pki::server_config`].
    ///
    /// # Errors
    /// A file that cannot be read or contains no valid certificate.
    pub fn trust_clients_of(&mut self, paths: &[PathBuf]) -> Result<(), PkiError> {
        if paths.is_empty() {
            return Ok(());
        }
        let mut all = vec![self.authority.certificate().clone()];
        for path in paths {
            all.extend(authorities(path)?);
        }
        let named = paths.first().map_or(Path::new(""), PathBuf::as_path);
        self.clients = Arc::new(ClientCertificates::new(&all, named)?);
        Ok(())
    }

    /// Verifies client certificates.
    pub fn clients(&self) -> &Arc<ClientCertificates> {
        &self.clients
    }

    /// The CA certificate, PEM: clients trust it, and `kube-root-ca.crt` contains it.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The administrator's certificate (`kubernetes-admin`, group `system:masters`) and key.
    pub fn admin(&self) -> Arc<Issued> {
        self.admin.load_full()
    }

    /// When the CA expires, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.authority.expires()
    }

    /// Issues a certificate for a request, PEM.
    ///
    /// # Errors
    /// [`PkiError::Issue`].
    pub fn certify(&self, request: &Request, terms: &Terms) -> Result<String, PkiError> {
        self.authority.certify(request, terms)
    }

    /// Issues a certificate and key for a client `name` in `group`, valid from `now` (in seconds since 1970) for `days`.
    ///
    /// # Errors
    /// [`PkiError::Issue`].
    pub fn issue_client(
        &self,
        name: &str,
        group: &str,
        now: i64,
        days: i64,
    ) -> Result<Issued, PkiError> {
        let leaf = Leaf::client(name, group);
        let key = KeyPair::generate().map_err(|cause| PkiError::Issue {
            what: format!("a key for {name:?}"),
            cause: cause.to_string(),
        })?;
        self.authority.issue(&leaf, &key, now, days)
    }
}

/// The CA certificates in a PEM file.
///
/// # Errors
/// [`PkiError::File`], [`PkiError::Unusable`].
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    use rustls::pki_types::pem::PemObject as _;
    let pem = authorities_pem(path)?.into_bytes();
    let unusable = |cause: String| PkiError::Unusable {
        what: "certificate",
        path: path.to_owned(),
        cause,
    };
    let found = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unusable(e.to_string()))?;
    if found.is_empty() {
        return Err(unusable("there is none in it".into()));
    }
    Ok(found)
}

/// The text of the file read by [`authorities`].
///
/// # Errors
/// [`PkiError::File`].
pub fn authorities_pem(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(files::failed("read", path))
}

/// A name as used in certificates and comparisons: IP addresses in their shortest form, DNS names in small letters. The
/// first label may be `*`.
///
/// # Errors
/// [`PkiError::Name`]
pub fn server_name(name: &str) -> Result<String, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let lower = name.to_ascii_lowercase();
    let whole = lower.strip_prefix("*.").unwrap_or(&lower);
    rustls::pki_types::DnsName::try_from(whole).map_err(|_| PkiError::Name {
        name: name.to_owned(),
    })?;
    Ok(lower)
}

/// The certificate and key of `leaf` from disk, or new ones if those are no longer valid.
fn leaf(paths: &Paths, authority: &Authority, leaf: &Leaf, now: i64) -> Result<Issued, PkiError> {
    let key_path = paths.key(leaf.file);
    let certificate_path = paths.certificate(leaf.file);
    let key = files::key_or_new(&key_path)?;
    if let Some(pem) = files::read(&certificate_path)?
        && let Some(issued) = authority.still_serves(leaf, &pem, &key, now)
    {
        return Ok(issued);
    }
    let issued = authority.issue(leaf, &key, now, LEAF_DAYS)?;
    files::write(&certificate_path, issued.certificate.as_bytes())?;
    Ok(issued)
}

fn certified(issued: &Issued) -> Result<CertifiedKey, PkiError> {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;
    let unreadable = |cause: rustls::pki_types::pem::Error| PkiError::Issue {
        what: "the serving certificate".into(),
        cause: cause.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(unreadable)?;
    Ok(CertifiedKey::from_der(chain, key, &tls::provider())?)
}

/// The private key in `dir/pki/sa.key` that signs service account tokens, PEM; created if missing, which takes a
/// good part of a second.
///
/// # Errors
/// [`PkiError::File`], [`PkiError::Issue`].
pub fn account_key(dir: &Path) -> Result<String, PkiError> {
    let paths = Paths::new(dir)?;
    let _lock = paths.lock()?;
    let path = paths.key("sa");
    if let Some(pem) = files::read(&path)? {
        return Ok(pem);
    }
    // RSA, because RS256 is the only algorithm that every OpenID Connect client supports.
    let pem = super::tokens::keys::new_rsa(2048).map_err(|cause| PkiError::Issue {
        what: format!("the key {}", path.display()),
        cause,
    })?;
    files::write(&path, pem.as_bytes())?;
    Ok(pem)
}

/// Whether `dir/pki/sa.key` exists.
pub fn has_account_key(dir: &Path) -> bool {
    dir.join("pki").join("sa.key").exists()
}

/// Writes a file for the owner alone (0600), atomically: readers see the old or the new content, even after a crash.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    files::write(path, content)
}

#[cfg(test)]
mod tests;
