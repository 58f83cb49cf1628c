//! Files with keys: written atomically, accessible only to the owner.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;

use super::PkiError;
use crate::private;

/// The paths of a server's files.
pub(super) struct Paths(PathBuf);

impl Paths {
    /// Creates `dir` and `dir/pki`, accessible only to the owner.
    pub(super) fn new(dir: &Path) -> Result<Self, PkiError> {
        let pki = dir.join("pki");
        for path in [dir, &pki] {
            private::directory(path).map_err(failed("make", path))?;
        }
        Ok(Paths(pki))
    }

    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.crt"))
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    /// Locks out other processes until the file is dropped, so that two that start at once use the same CA.
    pub(super) fn lock(&self) -> Result<fs::File, PkiError> {
        let path = self.0.join(".lock");
        let file = private::file()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(file)
    }
}

pub(super) fn failed(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |cause| PkiError::File {
        attempted,
        path,
        cause,
    }
}

/// The text of a file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("read", path)(cause)),
    }
}

/// Writes a file for the owner alone, atomically: readers see the old or the new content, even after a crash.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    private::write_whole(path, content).map_err(failed("write", path))
}

/// The private key in a file; a new one is created if it does not exist.
pub(super) fn key_or_new(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem).map_err(|cause| PkiError::Unusable {
            what: "private key",
            path: path.to_owned(),
            cause: cause.to_string(),
        });
    }
    let key = KeyPair::generate().map_err(|cause| PkiError::Issue {
        what: format!("the key {}", path.display()),
        cause: cause.to_string(),
    })?;
    write(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}
