//! The files of a node's certificate: `NAME-current.pem` with certificate and key, as upstream, and beside it the key
//! of a request that has not been answered yet. Follows k8s.io/client-go/util/certificate/certificate_store.go.
//!
//! Upstream writes a new file per certificate and updates a link. Replacing one file atomically leaves nothing to clean
//! up, and readers always see a complete file.

use std::io;
use std::path::{Path, PathBuf};

use super::Purpose;
use crate::auth::pki::{Key, Pair, PkiError};
use crate::private;

/// The files of one certificate.
pub struct Store {
    directory: PathBuf,
    purpose: Purpose,
}

/// Why a certificate is not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {attempted} {}: {cause}", path.display())]
    File {
        /// `read`, `write`, ...
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A key could not be generated.
    #[error(transparent)]
    Key(#[from] PkiError),
    /// It was issued too long ago, to a request that was found again.
    #[error("the issued {what} has already expired; requesting another one")]
    Ended {
        /// Which.
        what: &'static str,
    },
    /// What was issued is of no use.
    #[error("the issued {what} cannot be used: {why}")]
    Unusable {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

fn failed(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::File {
        attempted,
        path,
        cause,
    }
}

/// The text of a file; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("read", path)(cause)),
    }
}

impl Store {
    /// Opens the files in `directory`, which is created if missing and only accessible to its owner.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn open(directory: &Path, purpose: Purpose) -> Result<Store, StoreError> {
        private::directory(directory).map_err(failed("make", directory))?;
        Ok(Store {
            directory: directory.to_owned(),
            purpose,
        })
    }

    /// The purpose of the certificate.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The file with certificate and key.
    pub fn path(&self) -> PathBuf {
        let name = format!("{}-current.pem", self.purpose.file());
        self.directory.join(name)
    }

    fn key_path(&self) -> PathBuf {
        let name = format!("{}.key.tmp", self.purpose.file());
        self.directory.join(name)
    }

    /// The stored certificate; `None` with a warning if it is unusable, because a new one can be requested.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn current(&self) -> Result<Option<Pair>, StoreError> {
        let path = self.path();
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        match Pair::read(&text, &text) {
            Ok(pair) => Ok(Some(pair)),
            Err(why) => {
                let (what, path) = (self.purpose.what(), path.display());
                tracing::warn!(
                    "the {what} in {path} cannot be used, requesting another one: {why}"
                );
                Ok(None)
            }
        }
    }

    /// The key for a request. It is stored before the request is made, so that an agent that was killed finds its
    /// request again.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn asking_key(&self) -> Result<Key, StoreError> {
        let path = self.key_path();
        if let Some(pem) = read(&path)? {
            // The agent may have been killed after storing the certificate and before deleting the key of its request.
            let used = read(&self.path())?.is_some_and(|current| current.contains(pem.trim()));
            match Key::parse(&pem) {
                Ok(key) if !used => return Ok(key),
                _ => self.forget_key()?,
            }
        }
        let key = Key::generate()?;
        let written = private::write_whole(&path, key.pem().as_bytes());
        written.map_err(failed("write", &path))?;
        Ok(key)
    }

    /// Deletes the key of a request that will not be answered.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn forget_key(&self) -> Result<(), StoreError> {
        let path = self.key_path();
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(cause))
            }
            _ => Ok(()),
        }
    }

    /// Stores the certificate issued for a key, after checking that it is usable at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`StoreError`]; the stored certificate is unchanged.
    pub fn keep(&self, certificate: &str, key: &Key, now: i64) -> Result<Pair, StoreError> {
        let what = self.purpose.what();
        let unusable = |why| StoreError::Unusable { what, why };
        let key = key.pem();
        let pair = Pair::read(certificate, &key).map_err(unusable)?;
        if now > pair.not_after {
            self.forget_key()?;
            return Err(StoreError::Ended { what });
        }
        let path = self.path();
        let text = format!("{}\n{}\n", certificate.trim_end(), key.trim_end());
        private::write_whole(&path, text.as_bytes()).map_err(failed("write", &path))?;
        self.forget_key()?;
        Ok(pair)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::auth::pki::{Pki, Request, Terms};
    use crate::node::certificates::client;

    fn issued(pki: &Pki, key: &Key) -> String {
        let request = key.request(&client("n")).expect("a request");
        let terms = Terms {
            usages: vec!["client auth".to_owned()],
            not_before: 0,
            not_after: 1000,
        };
        pki.certify(&Request::parse(&request).expect("a request"), &terms)
            .expect("a certificate")
    }

    #[test]
    fn what_is_kept_is_whole_and_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(dir.path(), [""; 0]).expect("keys");
        let store = Store::open(&dir.path().join("a/b"), Purpose::Client).expect("a store");
        assert!(store.current().expect("read").is_none());

        let key = store.asking_key().expect("a key");
        let again = store.asking_key().expect("a key");
        assert_eq!(key.pem(), again.pem(), "a key is kept until its answer");
        let certificate = issued(&pki, &key);

        let other = Key::generate().expect("a key");
        for (certificate, key) in [
            ("", &key),
            ("nothing", &key),
            (&certificate[..certificate.len() / 2], &key),
            (&certificate, &other),
        ] {
            assert!(store.keep(certificate, key, 500).is_err(), "{certificate}");
            assert!(store.current().expect("read").is_none(), "{certificate}");
        }

        let ended = store.keep(&certificate, &key, 1001).map(|_| ());
        assert!(matches!(ended, Err(StoreError::Ended { .. })));
        assert!(store.current().expect("read").is_none(), "an old one");
        let key = store.asking_key().expect("another key");
        let certificate = issued(&pki, &key);
        let kept = store.keep(&certificate, &key, 500).expect("kept");
        let found = store.current().expect("read").expect("there");
        assert_eq!(kept.chain(), found.chain());
        assert_eq!((found.not_before, found.not_after), (0, 1000));
        let mode = std::fs::metadata(store.path()).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
        let next = store.asking_key().expect("a key");
        assert_ne!(key.pem(), next.pem(), "the next request has another key");

        // Killed between the two writes.
        private::write_whole(&store.key_path(), key.pem().as_bytes()).expect("written");
        assert_ne!(store.asking_key().expect("a key").pem(), key.pem());

        std::fs::write(store.path(), "").expect("written");
        assert!(store.current().expect("read").is_none(), "an empty file");
        std::fs::write(store.key_path(), "").expect("written");
        store.asking_key().expect("a key for an empty file");
    }
}
