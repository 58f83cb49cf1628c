//! The flags of `serve` that say who may come in: names and meanings are kube-apiserver's.

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

/// The flags.
#[derive(clap::Args)]
#[group(skip)]
pub struct Arguments {
    /// Whether requests without credentials are taken, as of system:anonymous.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    anonymous_auth: bool,
    /// Whether bootstrap tokens (secrets in kube-system) let nodes in.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    enable_bootstrap_token_auth: bool,
    /// A file with authorities whose client certificates are taken, besides this server's own authority. PEM.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// A file of lines TOKEN,USER,UID,"GROUP,GROUP".
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Who issues the tokens of service accounts, an https URL. The first is told in new tokens; all are taken.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    service_account_issuer: Vec<String>,
    /// Files with keys that judge the tokens of service accounts: RSA or elliptic curve, public or private. PEM.
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// The private key that signs the tokens of service accounts, RSA or elliptic curve, PEM. A key of the data directory
    /// unless given.
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Whom tokens must be for to be taken here; the issuer unless given.
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// The longest that a token of a service account may be good for (8760h); longer ones are shortened.
    #[arg(long, value_parser = max_expiration)]
    service_account_max_token_expiration: Option<i64>,
    /// Whether the tokens that pods are given are good for a year, for programs that never read them again.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    service_account_extend_token_expiration: bool,
    /// Where the keys of the issuer can be had, if not at this server.
    #[arg(long)]
    service_account_jwks_uri: Option<String>,
    /// A file with authorities of proxies that authenticate others. PEM.
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that the certificates of such proxies may have; any unless given.
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers in which such a proxy tells the user (X-Remote-User).
    #[arg(long, value_delimiter = ',', value_parser = header)]
    requestheader_username_headers: Vec<String>,
    /// Headers in which such a proxy tells the user's uid (X-Remote-Uid).
    #[arg(long, value_delimiter = ',', value_parser = header)]
    requestheader_uid_headers: Vec<String>,
    /// Headers in which such a proxy tells groups (X-Remote-Group).
    #[arg(long, value_delimiter = ',', value_parser = header)]
    requestheader_group_headers: Vec<String>,
    /// What the names of headers begin with in which such a proxy tells extra facts (X-Remote-Extra-).
    #[arg(long, value_delimiter = ',')]
    requestheader_extra_headers_prefix: Vec<String>,
}

/// Takes what can be the name of a header, spelled as it is given.
fn header(text: &str) -> Result<String, http::header::InvalidHeaderName> {
    text.parse::<HeaderName>().map(|_| text.to_owned())
}

/// Why the flags cannot be followed.
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
        "{} holds no usable private key: {cause}; restore it, or move it away to have a new one made (tokens of the old one are then no good)", path.display()
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
    /// The issuer that new tokens tell.
    pub(super) fn issuer(&self) -> String {
        self.service_account_issuer
            .first()
            .cloned()
            .unwrap_or_default()
    }

    /// What judges and makes tokens. `address` is where clients reach the server (`10.0.0.1:6443`).
    ///
    /// # Errors
    /// [`IdentityError`].
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
        // To make one takes longer than all else at a first start: nobody needs it yet.
        let data_dir = data_dir.to_owned();
        Ok(KeyRing::made_by(move || {
            let pem = pki::account_key(&data_dir).map_err(|error| error.to_string())?;
            Ok(Keys::new(Signer::from_pem(&pem)?, more))
        }))
    }

    /// What judges requests.
    ///
    /// # Errors
    /// [`IdentityError`].
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

    /// What `extension-apiserver-authentication` tells of whose certificates are believed: its data.
    ///
    /// # Errors
    /// [`IdentityError`].
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
