//! Discovery: learns and verifies the CA of an API server, given its address and the hash of the CA's public key.
//! Follows k8s.io/kubernetes/cmd/kubeadm/app/{discovery/token,util/pubkeypin}.
//!
//! Anonymous clients may read the cluster's CAs (the ConfigMap `cluster-info`), and anyone could answer in the server's
//! place. So only CAs whose public key has one of the given hashes are trusted, and the token is sent only to a server
//! whose certificate such a CA issued. Therefore the ConfigMap needs no signature, which kubeadm adds for joining
//! without a hash.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1;
use kube::api::Api;
use kube::config::Kubeconfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::auth::pki::key_hash;
use crate::client::errors::text;
use crate::meta::pem;

/// The namespace of the ConfigMap.
pub(super) const NAMESPACE: &str = "kube-public";
/// The name of the ConfigMap.
pub(super) const NAME: &str = "cluster-info";
/// Its key with a kubeconfig without users.
pub(super) const KEY: &str = "kubeconfig";

/// How long to wait for a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Why discovery failed.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The server does not answer.
    #[error("the API server {url} does not answer: {why}")]
    Silent {
        /// Its URL.
        url: String,
        /// What happened.
        why: String,
    },
    /// The server does not return the ConfigMap.
    #[error(
        "the API server {url} does not publish its CAs ({why}): run `reddwarf token create` on its host and use the command line that it prints, or use --bootstrap-kubeconfig"
    )]
    Untold {
        /// Its URL.
        url: String,
        /// The server's answer, or what is wrong with the ConfigMap.
        why: String,
    },
    /// None of its CAs has one of the given hashes.
    #[error(
        "no authority of the API server {url} has a key of --ca-cert-hash (they have: {}): it is another server than that of the token, or somebody pretends to be it",
        seen.join(", ")
    )]
    Stranger {
        /// Its URL.
        url: String,
        /// The hashes of its CAs.
        seen: Vec<String>,
    },
    /// No trusted CA issued the server's certificate.
    #[error(
        "the certificate of the API server {url} is not valid: {why}; it must be for the name or address in the URL"
    )]
    Unproved {
        /// Its URL.
        url: String,
        /// The error of TLS.
        why: String,
    },
}

/// Parses the hash of a CA's public key: `sha256:` and 64 hexadecimal digits, as kubeadm prints it.
///
/// # Errors
/// The text has another form.
pub(super) fn hash(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.strip_prefix("sha256:").unwrap_or_default();
    match digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(lower),
        false => Err("it is not sha256: and 64 hexadecimal digits".to_owned()),
    }
}

/// The CAs in the data of the ConfigMap whose public keys have one of `hashes`, as PEM.
///
/// # Errors
/// If there are none: the hashes of all CAs in it, or why it cannot be read.
fn pinned(
    data: &BTreeMap<String, String>,
    hashes: &[String],
) -> Result<String, Result<Vec<String>, String>> {
    let text = data
        .get(KEY)
        .ok_or_else(|| Err(format!("{NAMESPACE}/{NAME} has no key {KEY}")))?;
    let told = |why: &dyn std::fmt::Display| Err(format!("{NAMESPACE}/{NAME}: {why}"));
    let config = Kubeconfig::from_yaml(text).map_err(|why| told(&why))?;
    let clusters = config
        .clusters
        .into_iter()
        .filter_map(|named| named.cluster);
    let mut seen = Vec::new();
    let mut believed = String::new();
    for data in clusters.filter_map(|cluster| cluster.certificate_authority_data) {
        let bytes = STANDARD.decode(data).map_err(|why| told(&why))?;
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|why| told(&why))?;
            let hash = key_hash(&certificate).map_err(|why| told(&why))?;
            if hashes.contains(&hash) {
                believed += &pem::text("CERTIFICATE", &certificate);
            }
            seen.push(hash);
        }
    }
    match believed.is_empty() {
        true => Err(Ok(seen)),
        false => Ok(believed),
    }
}

/// The CAs of the API server at `url` whose public keys have one of `hashes`, as PEM, after verifying that one of them
/// issued the server's certificate. Sends nothing secret.
///
/// # Errors
/// [`DiscoverError`]
pub(super) async fn authorities(
    url: &http::Uri,
    hashes: &[String],
) -> Result<String, DiscoverError> {
    let named = || super::join::named(url);
    let mut config = kube::Config::new(url.clone());
    config.default_retry = false;
    config.accept_invalid_certs = true;
    tracing::info!(
        "requesting the CAs of {}; only those in --ca-cert-hash are trusted",
        named()
    );
    let begun = Instant::now();
    let told = loop {
        match info(&config).await {
            Ok(map) => break map,
            Err(error @ kube::Error::Api(_)) => {
                return Err(DiscoverError::Untold {
                    url: named(),
                    why: text(&error),
                });
            }
            Err(error) if begun.elapsed() < PATIENCE => {
                tracing::info!("waiting for the API server {}: {}", named(), chain(&error));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                return Err(DiscoverError::Silent {
                    url: named(),
                    why: chain(&error),
                });
            }
        }
    };
    let believed = pinned(&told.data.unwrap_or_default(), hashes).map_err(|wrong| match wrong {
        Err(why) => DiscoverError::Untold { url: named(), why },
        Ok(seen) => DiscoverError::Stranger { url: named(), seen },
    })?;
    let roots = CertificateDer::pem_slice_iter(believed.as_bytes());
    let roots = roots.filter_map(Result::ok).map(|root| root.to_vec());
    config.root_cert = Some(roots.collect());
    config.accept_invalid_certs = false;
    info(&config)
        .await
        .map_err(|error| DiscoverError::Unproved {
            url: named(),
            why: chain(&error),
        })?;
    Ok(believed)
}

async fn info(config: &kube::Config) -> kube::Result<v1::ConfigMap> {
    let client = kube::Client::try_from(config.clone())?;
    Api::<v1::ConfigMap>::namespaced(client, NAMESPACE)
        .get(NAME)
        .await
}

/// The text of an error with its sources: the reason of a TLS failure is in the last one.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        source = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::pki::Pki;

    #[test]
    fn only_authorities_that_were_named_are_believed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = Pki::open(dir.path(), [""; 0]).unwrap();
        let evil = Pki::open(other.path(), [""; 0]).unwrap();
        let hash_of = |pki: &Pki| {
            let der = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap();
            key_hash(&der).unwrap()
        };
        let (good, bad) = (hash_of(&own), hash_of(&evil));
        assert_eq!(hash(&good.to_uppercase()), Ok(good.clone()));
        let map = |pem: &str| {
            let data = STANDARD.encode(pem);
            let text = format!(
                "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: {data}\n    server: https://x\n  name: \"\"\n"
            );
            BTreeMap::from([(KEY.to_owned(), text)])
        };
        let both = format!("{}{}", own.ca_pem(), evil.ca_pem());
        let count = |pem: String| pem::blocks(&pem).len();
        for (told, hashes, expected) in [
            (map(own.ca_pem()), vec![good.clone()], Ok(1)),
            // Other CAs beside the pinned one are ignored.
            (map(&both), vec![good.clone()], Ok(1)),
            (map(&both), vec![bad.clone(), good.clone()], Ok(2)),
            (
                map(evil.ca_pem()),
                vec![good.clone()],
                Err(Ok(vec![bad.clone()])),
            ),
            (map(""), vec![good.clone()], Err(Ok(vec![]))),
        ] {
            assert_eq!(pinned(&told, &hashes).map(count), expected);
        }
        for wrong in [
            BTreeMap::new(),
            BTreeMap::from([(KEY.to_owned(), "a".to_owned())]),
            BTreeMap::from([(
                KEY.to_owned(),
                "clusters: [{cluster: {certificate-authority-data: '!'}}]".to_owned(),
            )]),
        ] {
            assert!(
                matches!(pinned(&wrong, std::slice::from_ref(&good)), Err(Err(_))),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_hash_is_written_as_kubeadm_writes_it() {
        let digits = "a".repeat(64);
        for (text, fine) in [
            (format!("sha256:{digits}"), true),
            (format!("SHA256:{}", digits.to_uppercase()), true),
            (digits.clone(), false),
            (format!("md5:{digits}"), false),
            (format!("sha256:{}", &digits[1..]), false),
            (format!("sha256:{}g", &digits[1..]), false),
        ] {
            assert_eq!(hash(&text).is_ok(), fine, "{text}");
        }
    }
}
