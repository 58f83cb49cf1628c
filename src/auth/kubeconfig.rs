//! Kubeconfig files: how a client reaches the server and who it is.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::pki::{Issued, Pki, PkiError, write_file};

/// The text of a kubeconfig: the server at `url` (`https://127.0.0.1:6443`), trusted by the authority `ca` (PEM),
/// asked as `user` with a client certificate. Everything is in the file itself.
pub fn with_certificate(url: &str, ca: &str, user: &str, identity: &Issued) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: reddwarf
  cluster:
    certificate-authority-data: {}
    server: {url}
contexts:
- name: {user}@reddwarf
  context:
    cluster: reddwarf
    user: {user}
current-context: {user}@reddwarf
preferences: {{}}
users:
- name: {user}
  user:
    client-certificate-data: {}
    client-key-data: {}
",
        encode(ca),
        encode(&identity.certificate),
        encode(&identity.key),
    )
}

/// Writes the administrator's kubeconfig for the server at `url` to `path`, for the owner alone, whole or not at all.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_admin(path: &Path, url: &str, pki: &Pki) -> Result<(), PkiError> {
    let text = with_certificate(url, pki.ca_pem(), "kubernetes-admin", &pki.admin());
    write_file(path, text.as_bytes())
}
