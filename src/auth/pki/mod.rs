//! The keys and certificates of a server: a certificate authority of its own, a serving certificate, the
//! administrator's client certificate and the key that signs service account tokens.
//!
//! Everything is in `DIR/pki`, named as kubeadm names it, readable by the owner alone. What is there is used; what
//! is missing, about to expire or no longer covers the server's names is issued again, so that opening twice changes
//! nothing and an operator may put files of an own authority in place. What is there but cannot be read is refused:
//! overwriting somebody's authority would cut off every client.

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

/// Why keys and certificates cannot be had. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file operation failed.
    #[error("cannot {attempted} {}: {cause}", path.display())]
    File {
        /// `read`, `write`, `lock`, ...
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// A file does not hold what its name says.
    #[error("{} holds no usable {what}: {cause}; restore it, or move it away to have a new one made", path.display())]
    Unusable {
        /// `certificate`, `private key`
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// An authority's certificate without its key.
    #[error(
        "{} is there but {} is not; restore the key, or move the certificate away to have a new authority made (clients then need a new kubeconfig)",
        certificate.display(),
        key.display()
    )]
    KeyMissing {
        /// The certificate.
        certificate: PathBuf,
        /// The key that is missing.
        key: PathBuf,
    },
    /// A name that no certificate can carry.
    #[error("{name:?} cannot be a name of the server: it is neither an IP address nor a DNS name")]
    Name {
        /// The name as given.
        name: String,
    },
    /// A certificate or key could not be made.
    #[error("cannot issue {what}: {cause}")]
    Issue {
        /// Which.
        what: String,
        /// What the library says.
        cause: String,
    },
    /// TLS refuses the keys.
    #[error("TLS cannot be set up with the serving certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// The authority's certificate cannot judge client certificates.
    #[error("client certificates cannot be verified against {}: {cause}", path.display())]
    Verifier {
        /// The authority's certificate.
        path: PathBuf,
        /// What the library says.
        cause: String,
    },
}

/// Certificates are issued again when less than this is left, in seconds: 60 days.
const RENEW_BEFORE: i64 = 60 * DAY;
const DAY: i64 = 24 * 60 * 60;
/// How long the authority is valid, in days: 10 years, as kubeadm's.
const CA_DAYS: i64 = 3650;
/// How long what it issues is valid, in days: a year, as kubeadm's.
const LEAF_DAYS: i64 = 365;

/// Names by which the server is known in every cluster.
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
    /// Opens `dir/pki`, making what is missing. `names` are the host names and IP addresses by which clients reach
    /// the server, besides localhost and the `kubernetes` service's own names.
    ///
    /// # Errors
    /// A file that cannot be read, written or understood, or a name that is none.
    pub fn open<S: AsRef<str>>(
        dir: &Path,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Pki, PkiError> {
        Self::open_at(dir, names, crate::meta::time::now())
    }

    /// The same at a given time, in seconds since 1970.
    fn open_at<S: AsRef<str>>(
        dir: &Path,
        names: impl IntoIterator<Item = S>,
        now: i64,
    ) -> Result<Pki, PkiError> {
        let paths = Paths::new(dir)?;
        let mut all: Vec<String> = OWN_NAMES.iter().map(|name| (*name).to_owned()).collect();
        for name in names {
            let name = normal(name.as_ref())?;
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

    /// Issues again what will expire soon, and serves new connections with it. To be called once a day or so.
    /// Returns whether anything was issued; the administrator's kubeconfig is then to be written again.
    ///
    /// # Errors
    /// As [`Pki::open`]; the server then goes on with what it has.
    pub fn renew(&self) -> Result<bool, PkiError> {
        self.renew_at(crate::meta::time::now())
    }

    fn renew_at(&self, now: i64) -> Result<bool, PkiError> {
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

    /// The TLS settings of the listener: HTTP/2 before HTTP/1.1, and a client certificate asked for but not needed: of
    /// an authority that [`Pki::clients`] trusts, or of `others` whom somebody else judges.
    /// Whom a client certificate is of, and whether it is valid, is judged by [`Pki::clients`]: a bad one makes a
    /// 401, as upstream's, and no broken handshake.
    ///
    /// # Errors
    /// [`PkiError::Tls`].
    pub fn server_config(
        &self,
        others: Option<&ClientCertificates>,
    ) -> Result<rustls::ServerConfig, PkiError> {
        tls::server_config(self.serving.clone(), &self.clients, others)
    }

    /// Takes client certificates of other authorities too: those in the PEM files `paths`. Before
    /// [`Pki::server_config`].
    ///
    /// # Errors
    /// A file that cannot be read or holds no usable certificate.
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

    /// What judges client certificates.
    pub fn clients(&self) -> &Arc<ClientCertificates> {
        &self.clients
    }

    /// The authority's certificate, PEM: what clients trust, and what goes into `kube-root-ca.crt`.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The administrator's certificate (`kubernetes-admin` of `system:masters`) and key.
    pub fn admin(&self) -> Arc<Issued> {
        self.admin.load_full()
    }

    /// Until when the authority can vouch for anything, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.authority.expires()
    }

    /// A certificate for what a request asks for, PEM.
    ///
    /// # Errors
    /// [`PkiError::Issue`].
    pub fn certify(&self, request: &Request, terms: &Terms) -> Result<String, PkiError> {
        self.authority.certify(request, terms)
    }

    /// A certificate and key for a client: `name` of `group`, valid for `days`.
    ///
    /// # Errors
    /// [`PkiError::Issue`].
    pub fn issue_client(&self, name: &str, group: &str, days: i64) -> Result<Issued, PkiError> {
        let leaf = Leaf::client(name, group);
        let key = KeyPair::generate().map_err(|cause| PkiError::Issue {
            what: format!("a key for {name:?}"),
            cause: cause.to_string(),
        })?;
        self.authority
            .issue(&leaf, &key, crate::meta::time::now(), days)
    }
}

/// The certificates of authorities in a PEM file.
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

/// The file of [`authorities`] as it is.
///
/// # Errors
/// [`PkiError::File`].
pub fn authorities_pem(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(files::failed("read", path))
}

/// A name as certificates and comparisons have it: addresses in their shortest form.
fn normal(name: &str) -> Result<String, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let lower = name.to_ascii_lowercase();
    rustls::pki_types::DnsName::try_from(lower.as_str()).map_err(|_| PkiError::Name {
        name: name.to_owned(),
    })?;
    Ok(lower)
}

/// The certificate and key of `leaf` as they are on disk, or new ones where those no longer serve.
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

/// The private key in `dir/pki/sa.key` that signs service account tokens, PEM; made where it is missing, which takes a
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
    let pem = super::tokens::keys::new_rsa().map_err(|cause| PkiError::Issue {
        what: format!("the key {}", path.display()),
        cause,
    })?;
    files::write(&path, pem.as_bytes())?;
    Ok(pem)
}

/// Whether `dir/pki/sa.key` is there.
pub fn has_account_key(dir: &Path) -> bool {
    dir.join("pki").join("sa.key").exists()
}

/// Writes a file for the owner alone (0600): whoever reads it sees the old content or the new, even after a crash.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    files::write(path, content)
}

#[cfg(test)]
mod tests;
