//! Kubeconfig files: the server's address and a client's credentials.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::pki::{Issued, Pki, PkiError, write_file};

/// The text of a kubeconfig for the server at `url` (`https://127.0.0.1:6443`), which the CA `ca` (PEM) certifies,
/// with a client certificate for `user`. Contains all certificates and keys itself.
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

/// The API server for a node's kubeconfig.
pub struct Cluster<'a> {
    /// `https://192.0.2.1:6443`
    pub url: &'a str,
    /// The CAs of the server, PEM; the host's CAs if `None`.
    pub authorities: Option<&'a str>,
    /// Whether to accept any server certificate.
    pub insecure: bool,
    /// The expected name in the server's certificate, if not the one in the URL.
    pub server_name: Option<&'a str>,
    /// The proxy to use.
    pub proxy: Option<&'a str>,
}

/// The text of a kubeconfig with the client certificate and key in the file `identity`, in the form that the kubelet
/// writes.
pub fn with_file(cluster: &Cluster<'_>, identity: &str) -> String {
    // Every JSON string is a YAML string.
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let line = |key: &str, value: &str| format!("    {key}: {value}\n");
    let mut lines = String::new();
    if let Some(authorities) = cluster.authorities {
        lines += &line("certificate-authority-data", &STANDARD.encode(authorities));
    }
    if cluster.insecure {
        lines += &line("insecure-skip-tls-verify", "true");
    }
    if let Some(proxy) = cluster.proxy {
        lines += &line("proxy-url", &quote(proxy));
    }
    lines += &line("server", &quote(cluster.url));
    if let Some(name) = cluster.server_name {
        lines += &line("tls-server-name", &quote(name));
    }
    let identity = quote(identity);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: default-cluster
  cluster:
{lines}contexts:
- name: default-context
  context:
    cluster: default-cluster
    namespace: default
    user: default-auth
current-context: default-context
preferences: {{}}
users:
- name: default-auth
  user:
    client-certificate: {identity}
    client-key: {identity}
"
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
