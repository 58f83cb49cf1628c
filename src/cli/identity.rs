//! The authentication flags of `serve`, with kube-apiserver's names and meanings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgAction;
use http::HeaderName;

use crate::api::authenticate::{Authentication, FrontProxy};
use crate::auth::pki::{self, ClientCertificates, Pki, PkiError};
use crate::auth::tokens::file::{TokenFile, TokenFileError};
use crate::auth::tokens::keys::{self, KeyError, Signer};
use crate::auth::tokens::{KeyRing, Keys, Settings, Tokens};
use crate::schema::check::formats::go_duration;
use crate::schema::{Object, Value, json};
use crate::store::Store;

/// The authentication flags.
#[derive(clap::Args)]
#[group(skip)]
pub struct Arguments {
    /// Accept requests without credentials, as user system:anonymous.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    anonymous_auth: bool,
    /// Accept bootstrap tokens (secrets in kube-system), with which nodes join.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    enable_bootstrap_token_auth: bool,
    /// A PEM file with CAs whose client certificates are accepted, in addition to this server's own CA.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// A file with lines TOKEN,USER,UID,"GROUP,GROUP".
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// The issuer of service account tokens, an https URL. The first one is put into new tokens; all are accepted.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    service_account_issuer: Vec<String>,
    /// PEM files with keys that verify service account tokens: RSA or elliptic curve, public or private.
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// A PEM file with the private key that signs service account tokens, RSA or elliptic curve; by default a key in
    /// the data directory.
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Audiences of which a token must have one to be accepted here; by default the issuer.
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// The longest lifetime of a service account token, like 8760h; longer ones are shortened.
    #[arg(long, value_parser = max_expiration)]
    service_account_max_token_expiration: Option<i64>,
    /// Make the tokens of pods valid for a year, for programs that read them only once.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    service_account_extend_token_expiration: bool,
    /// The URL of the issuer's public keys, if it is not this server.
    #[arg(long)]
    service_account_jwks_uri: Option<String>,
    /// A PEM file with the CAs of proxies that authenticate users.
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that the certificates of such proxies may have; by default any.
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers in which such a proxy passes the user name (X-Remote-User).
    #[arg(long, value_delimiter = ',', value_parser = header)]
    requestheader_username_headers: Vec<String>,
    /// Headers in which such a proxy passes the user's uid (X-Remote-Uid).
    #[arg(long, value_delimiter = ',', value_parser = header)]
    requestheader_uid_headers: Vec<String>,
    /// Headers in which such a proxy passes groups (X-Remote-Group).
    #[arg(long, value_delimiter = ',', value_parser = header)]
    requestheader_group_headers: Vec<String>,
    /// Prefixes of the headers in which such a proxy passes extra attributes (X-Remote-Extra-).
    #[arg(long, value_delimiter = ',')]
    requestheader_extra_headers_prefix: Vec<String>,
}

/// Parses the name of a header, keeping its spelling.
fn header(text: &str) -> Result<String, http::header::InvalidHeaderName> {
    text.parse::<HeaderName>().map(|_| text.to_owned())
}

/// Why the flags are unusable.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A certificate file.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token file.
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
    /// The key of the data directory.
    #[error(
        "{} contains no usable private key: {cause}; restore it, or move it away to create a new one (tokens signed by the old one are then invalid)", path.display()
    )]
    OwnKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// A duration between an hour and 2^32 seconds, in seconds.
fn max_expiration(text: &str) -> Result<i64, String> {
    go_duration(text)
        .map(|nanos| nanos / 1_000_000_000)
        .filter(|seconds| (3600..=1 << 32).contains(seconds))
        .ok_or_else(|| "must be between 1 hour and 2^32 seconds (8760h)".into())
}

impl Arguments {
    /// The issuer that is put into new tokens.
    pub(super) fn issuer(&self) -> String {
        self.service_account_issuer
            .first()
            .cloned()
            .unwrap_or_default()
    }

    /// Creates and verifies service account tokens. `address` is where clients reach the server (`10.0.0.1:6443`).
    ///
    /// # Errors
    /// [`IdentityError`] if a key is unusable.
    pub(super) fn tokens(
        &self,
        store: Arc<dyn Store>,
        data_dir: &Path,
        address: &str,
    ) -> Result<Tokens, IdentityError> {
        let settings = Settings {
            issuers: self.service_account_issuer.clone(),
            audiences: if self.api_audiences.is_empty() {
                self.service_account_issuer.clone()
            } else {
                self.api_audiences.clone()
            },
            max_seconds: self.service_account_max_token_expiration,
            extend: self.service_account_extend_token_expiration,
            jwks_uri: self
                .service_account_jwks_uri
                .clone()
                .unwrap_or_else(|| format!("https://{address}/openid/v1/jwks")),
            bootstrap: self.enable_bootstrap_token_auth,
        };
        let file = self.token_auth_file.as_deref().map(TokenFile::open);
        Ok(Tokens::new(
            store,
            settings,
            self.keys(data_dir)?,
            file.transpose()?,
        ))
    }

    fn keys(&self, data_dir: &Path) -> Result<KeyRing, IdentityError> {
        let mut more = Vec::new();
        for path in &self.service_account_key_file {
            more.extend(keys::public_keys(path)?);
        }
        if let Some(path) = &self.service_account_signing_key_file {
            return Ok(KeyRing::of(Keys::new(keys::signer(path)?, more)));
        }
        let path = data_dir.join("pki").join("sa.key");
        let own = |pem: Result<String, PkiError>| -> Result<Signer, IdentityError> {
            Signer::from_pem(&pem?).map_err(|cause| IdentityError::OwnKey {
                path: path.clone(),
                cause,
            })
        };
        if pki::has_account_key(data_dir) {
            let signer = own(pki::account_key(data_dir))?;
            return Ok(KeyRing::of(Keys::new(signer, more)));
        }
        // Generating a key takes longer than the rest of a first start, and nobody needs it yet.
        let data_dir = data_dir.to_owned();
        Ok(KeyRing::made_by(move || {
            let pem = pki::account_key(&data_dir).map_err(|error| error.to_string())?;
            Ok(Keys::new(Signer::from_pem(&pem)?, more))
        }))
    }

    /// Authenticates requests.
    ///
    /// # Errors
    /// [`IdentityError`] if a file that a flag names is unusable.
    pub(super) fn authentication(
        &self,
        pki: &mut Pki,
        tokens: Arc<Tokens>,
    ) -> Result<Authentication, IdentityError> {
        pki.trust_clients_of(self.client_ca_file.as_slice())?;
        let names = |given: &[String]| given.iter().filter_map(|name| name.parse().ok()).collect();
        let front_proxy = match &self.requestheader_client_ca_file {
            None => None,
            Some(path) => Some(FrontProxy {
                clients: ClientCertificates::new(&pki::authorities(path)?, path)?,
                allowed_names: self.requestheader_allowed_names.clone(),
                user_headers: names(&self.requestheader_username_headers),
                uid_headers: names(&self.requestheader_uid_headers),
                group_headers: names(&self.requestheader_group_headers),
                extra_prefixes: self
                    .requestheader_extra_headers_prefix
                    .iter()
                    .map(|prefix| prefix.to_ascii_lowercase())
                    .collect(),
            }),
        };
        Ok(Authentication {
            clients: pki.clients().clone(),
            front_proxy,
            tokens,
            anonymous: self.anonymous_auth,
        })
    }

    /// The data of the config map `extension-apiserver-authentication`: the CAs that this server trusts.
    ///
    /// # Errors
    /// [`IdentityError`] if a file that a flag names is unusable.
    pub(super) fn published(&self, pki: &Pki) -> Result<Object, IdentityError> {
        let read = |path: &PathBuf| pki::authorities_pem(path);
        let mut clients = pki.ca_pem().to_owned();
        if let Some(path) = &self.client_ca_file {
            clients.push_str(&read(path)?);
        }
        let mut data = Object::new();
        data.insert("client-ca-file", clients);
        if let Some(path) = &self.requestheader_client_ca_file {
            data.insert("requestheader-client-ca-file", read(path)?);
            for (key, list) in [
                ("allowed-names", &self.requestheader_allowed_names),
                ("username-headers", &self.requestheader_username_headers),
                ("uid-headers", &self.requestheader_uid_headers),
                ("group-headers", &self.requestheader_group_headers),
                (
                    "extra-headers-prefix",
                    &self.requestheader_extra_headers_prefix,
                ),
            ] {
                if key != "uid-headers" || !list.is_empty() {
                    let list = Value::Array(list.iter().map(|one| one.as_str().into()).collect());
                    data.insert(format!("requestheader-{key}"), json::to_string(&list));
                }
            }
        }
        Ok(data)
    }
}
