//! Authenticates a request: by the headers of a front proxy, the client certificate of the connection, a bearer token,
//! or as anonymous; the first valid one counts. Follows k8s.io/apiserver/pkg/authentication/request.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use compact_str::{CompactString, format_compact};
use http::{HeaderMap, HeaderName, header};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use crate::auth::pki::{ClientCertificates, Subject};
use crate::auth::tokens::{Authenticated, Tokens};
use crate::auth::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User, accounts, impersonate};
use crate::meta::{Status, time};

/// How requests are authenticated.
pub struct Authentication {
    /// Verifies client certificates.
    pub clients: Arc<ClientCertificates>,
    /// Proxies that authenticate users, if configured.
    pub front_proxy: Option<FrontProxy>,
    /// Verifies bearer tokens.
    pub tokens: Arc<Tokens>,
    /// Whether requests without credentials are accepted.
    pub anonymous: bool,
}

/// A proxy that names the user in headers, which are trusted because of its client certificate.
pub struct FrontProxy {
    /// Verifies the proxy's certificate.
    pub clients: ClientCertificates,
    /// Accepted common names of its certificate; empty for any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first non-empty one counts.
    pub user_headers: Vec<HeaderName>,
    /// Headers with the user's uid.
    pub uid_headers: Vec<HeaderName>,
    /// Headers with groups.
    pub group_headers: Vec<HeaderName>,
    /// Prefixes of headers with extra attributes, in lower case.
    pub extra_prefixes: Vec<String>,
}

/// The client of a connection.
pub struct Peer {
    certificates: Vec<CertificateDer<'static>>,
    /// The time and result of verifying the certificates, which costs more than most requests.
    judged: Mutex<Option<(i64, Judged)>>,
}

#[derive(Clone)]
struct Judged {
    /// The user, by the client authorities; `None` if the certificate names nobody.
    user: Result<Option<User>, ()>,
    /// Whether the certificate is the front proxy's.
    proxy: bool,
}

/// How long the result of verifying a certificate is reused, in seconds.
const HOLDS: i64 = 30;

impl Peer {
    /// A client that presented these certificates, its own first.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Peer {
        Peer {
            certificates,
            judged: Mutex::new(None),
        }
    }
}

/// The content of an `Authorization` header.
#[derive(Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// No bearer token.
    None,
    /// A token after too many spaces, which is ignored.
    Spaced,
    /// A token.
    Token(&'a str),
}

impl<'a> Bearer<'a> {
    /// Parses the header.
    pub fn of(header: &'a str) -> Bearer<'a> {
        let mut words = header.trim().splitn(3, ' ');
        let scheme = words.next().unwrap_or_default();
        match words.next() {
            Some(token) if scheme.eq_ignore_ascii_case("bearer") => {
                match (token.is_empty(), words.next()) {
                    (false, _) => Bearer::Token(token),
                    (true, Some(_)) => Bearer::Spaced,
                    (true, None) => Bearer::None,
                }
            }
            _ => Bearer::None,
        }
    }
}

const SPACED: &str = "the provided Authorization header contains extra space before the bearer token, and is ignored";
/// The prefix of a token among the subprotocols of a WebSocket.
const SOCKET: &str = "base64url.bearer.authorization.k8s.io.";

impl Authentication {
    /// The user of a request, and texts for `Warning` headers. Removes the headers with credentials: nothing behind the
    /// server may see or trust them.
    ///
    /// # Errors
    /// 401 for invalid credentials.
    pub fn authenticate(
        &self,
        headers: &mut HeaderMap,
        peer: &Peer,
    ) -> Result<(User, Vec<String>), Status> {
        let mut warnings = Vec::new();
        let user = self.who(headers, peer, &mut warnings)?;
        let tells = |name: &&HeaderName| {
            let prefixed = |prefix: &str| name.as_str().starts_with(prefix);
            **name == header::AUTHORIZATION
                || prefixed("x-remote-extra-")
                || ["x-remote-user", "x-remote-uid", "x-remote-group"].contains(&name.as_str())
                || self.front_proxy.as_ref().is_some_and(|proxy| {
                    [
                        &proxy.user_headers,
                        &proxy.uid_headers,
                        &proxy.group_headers,
                    ]
                    .into_iter()
                    .any(|names| names.contains(name))
                        || proxy.extra_prefixes.iter().any(|prefix| prefixed(prefix))
                })
        };
        let gone: Vec<HeaderName> = headers.keys().filter(tells).cloned().collect();
        for name in gone {
            headers.remove(name);
        }
        Ok((user, warnings))
    }

    fn who(
        &self,
        headers: &mut HeaderMap,
        peer: &Peer,
        warnings: &mut Vec<String>,
    ) -> Result<User, Status> {
        let now = time::now();
        let mut bad = false;
        let judged = (!peer.certificates.is_empty()).then(|| self.judge(peer, now));
        if let Some(judged) = judged {
            if judged.proxy
                && let Some(proxy) = &self.front_proxy
                && let Some(user) = proxy.user(headers)
            {
                return Ok(authenticated(user));
            }
            match judged.user {
                Ok(Some(user)) => return Ok(authenticated(user)),
                Ok(None) => {}
                Err(()) => bad = true,
            }
        }
        let text = headers
            .get(header::AUTHORIZATION)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .unwrap_or_default();
        match Bearer::of(&text) {
            Bearer::None => {}
            Bearer::Spaced => warnings.push(SPACED.to_owned()),
            Bearer::Token(token) => match self.token(token, now, warnings) {
                Some(user) => return Ok(user),
                None => bad = true,
            },
        }
        match socket_token(headers) {
            Ok(None) => {}
            Ok(Some((token, protocols))) => match self.token(&token, now, warnings) {
                Some(user) => {
                    if let Ok(value) = protocols.join(",").parse() {
                        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
                    }
                    return Ok(user);
                }
                None => bad = true,
            },
            Err(why) => {
                tracing::debug!(why, "the token of a WebSocket is malformed");
                bad = true;
            }
        }
        if bad || !self.anonymous {
            return Err(Status::failure(401, "Unauthorized", "Unauthorized"));
        }
        Ok(anonymous())
    }

    fn token(&self, token: &str, now: i64, warnings: &mut Vec<String>) -> Option<User> {
        let audiences = &self.tokens.settings.audiences;
        match self.tokens.authenticate(token, audiences, now, warnings) {
            Ok(found) => Some(authenticated(found.user)),
            Err(why) => {
                tracing::debug!(?why, "a bearer token was rejected");
                None
            }
        }
    }

    /// The result of a TokenReview for the text after `Bearer ` in a header: the user and audiences, or the errors,
    /// without duplicates. Warnings about the token are not passed to the reviewer.
    ///
    /// # Errors
    /// Why the token is invalid.
    pub fn review(&self, token: &str, audiences: &[String]) -> Result<Authenticated, Vec<String>> {
        let header = format!("Bearer {token}");
        let invalid = || vec!["invalid bearer token".to_owned()];
        match Bearer::of(&header) {
            Bearer::Token(token) => self
                .tokens
                .authenticate(token, audiences, time::now(), &mut Vec::new())
                .map(|found| Authenticated {
                    user: authenticated(found.user),
                    ..found
                })
                .map_err(|more| {
                    let mut all = invalid();
                    all.extend(more);
                    all
                }),
            Bearer::None | Bearer::Spaced => {
                if !self.anonymous {
                    return Err(Vec::new());
                }
                Ok(Authenticated {
                    user: anonymous(),
                    audiences: audiences.to_vec(),
                })
            }
        }
    }

    fn judge(&self, peer: &Peer, now: i64) -> Judged {
        let mut kept = peer.judged.lock();
        if let Some((at, judged)) = &*kept
            && (0..HOLDS).contains(&(now - at))
        {
            return judged.clone();
        }
        let certificate = Certificate::of(&peer.certificates);
        let judged = Judged {
            user: match (self.clients.judge(&peer.certificates, now), &certificate) {
                (Ok(()), Some(certificate)) => certificate.user(),
                (Err(why), _) => {
                    tracing::debug!(%why, "a client certificate was rejected");
                    Err(())
                }
                (Ok(()), None) => Err(()),
            },
            proxy: self.front_proxy.as_ref().is_some_and(|proxy| {
                proxy.clients.judge(&peer.certificates, now).is_ok()
                    && certificate
                        .as_ref()
                        .is_some_and(|certificate| proxy.takes(&certificate.of.name))
            }),
        };
        *kept = Some((now, judged.clone()));
        judged
    }
}

/// The anonymous user.
fn anonymous() -> User {
    User::new(ANONYMOUS, &[UNAUTHENTICATED])
}

/// Adds a user to the group `system:authenticated`.
fn authenticated(mut user: User) -> User {
    if user.name != ANONYMOUS && !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}

/// The identity in a certificate.
struct Certificate {
    of: Subject,
    uids: Vec<CompactString>,
    fingerprint: CompactString,
}

impl Certificate {
    fn of(certificates: &[CertificateDer<'static>]) -> Option<Certificate> {
        let own = certificates.first()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(own).ok()?;
        let subject = certificate.subject();
        let uid = x509_parser::der_parser::oid!(1.3.6.1.4.1.57683.2);
        let fingerprint = ring::digest::digest(&ring::digest::SHA256, own);
        let hex: String = fingerprint
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(Certificate {
            of: Subject::of(subject),
            uids: subject
                .iter_by_oid(&uid)
                .filter_map(|uid| uid.as_str().ok())
                .map(Into::into)
                .collect(),
            fingerprint: format_compact!("X509SHA256={hex}"),
        })
    }

    /// The user; None for a certificate without a name.
    fn user(&self) -> Result<Option<User>, ()> {
        if self.of.name.is_empty() {
            return Ok(None);
        }
        if self.uids.len() > 1 {
            return Err(());
        }
        let mut user = User {
            name: self.of.name.clone(),
            uid: self.uids.first().cloned().unwrap_or_default(),
            groups: self.of.groups.clone(),
            ..User::default()
        };
        user.set_extra(accounts::CREDENTIAL_ID, vec![self.fingerprint.clone()]);
        Ok(Some(user))
    }
}

impl FrontProxy {
    fn takes(&self, name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|allowed| allowed == name)
    }

    /// The user named in the headers.
    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[HeaderName]| {
            names
                .iter()
                .filter_map(|name| headers.get(name)?.to_str().ok())
                .find(|value| !value.is_empty())
                .map(CompactString::from)
        };
        let mut user = User {
            name: first(&self.user_headers)?,
            uid: first(&self.uid_headers).unwrap_or_default(),
            ..User::default()
        };
        for name in &self.group_headers {
            let groups = headers.get_all(name).iter();
            user.groups.extend(
                groups
                    .filter_map(|group| group.to_str().ok())
                    .filter(|group| !group.is_empty())
                    .map(CompactString::from),
            );
        }
        for prefix in &self.extra_prefixes {
            for name in headers.keys() {
                let Some(key) = name.as_str().strip_prefix(prefix.as_str()) else {
                    continue;
                };
                let key = impersonate::unescaped(key);
                let mut values = user.extra(&key).to_vec();
                let more = headers.get_all(name).iter();
                values.extend(more.filter_map(|value| value.to_str().ok()).map(Into::into));
                user.set_extra(&key, values);
            }
        }
        Some(user)
    }
}

/// The token among the subprotocols of a WebSocket, and the other subprotocols.
fn socket_token(headers: &HeaderMap) -> Result<Option<(String, Vec<String>)>, &'static str> {
    let has = |name: HeaderName, word: &str| {
        headers.get_all(name).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|value| value.to_ascii_lowercase().contains(word))
        })
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Ok(None);
    }
    let (mut token, mut others) = (None, Vec::new());
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for protocol in value.to_str().unwrap_or_default().split(',') {
            let protocol = protocol.trim();
            let Some(encoded) = protocol.strip_prefix(SOCKET) else {
                others.push(protocol.to_owned());
                continue;
            };
            if token.is_some() {
                return Err("multiple base64.bearer.authorization tokens specified");
            }
            let decoded = BASE64
                .decode(encoded)
                .map_err(|_| "invalid base64.bearer.authorization token encoding")?;
            token = Some(
                String::from_utf8(decoded)
                    .map_err(|_| "invalid base64.bearer.authorization token")?,
            );
        }
    }
    match token {
        Some(token) if !token.is_empty() => {
            if others.is_empty() {
                return Err("missing additional subprotocol");
            }
            Ok(Some((token, others)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
