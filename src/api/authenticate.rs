//! Who sent a request: a front proxy's word, the client certificate of the connection, a bearer token, or nobody in
//! particular; the first that is good counts. Follows k8s.io/apiserver/pkg/authentication/request.

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
    /// Judges client certificates.
    pub clients: Arc<ClientCertificates>,
    /// Proxies that authenticate others, if there are any.
    pub front_proxy: Option<FrontProxy>,
    /// Judges bearer tokens.
    pub tokens: Arc<Tokens>,
    /// Whether requests without credentials are taken.
    pub anonymous: bool,
}

/// A proxy that says who a request is from, in headers that are believed for its client certificate.
pub struct FrontProxy {
    /// Judges the proxy's certificate.
    pub clients: ClientCertificates,
    /// Common names that it may have; empty for any.
    pub allowed_names: Vec<String>,
    /// Headers that may hold the user's name; the first that does counts.
    pub user_headers: Vec<HeaderName>,
    /// Headers that may hold the user's uid.
    pub uid_headers: Vec<HeaderName>,
    /// Headers that hold groups.
    pub group_headers: Vec<HeaderName>,
    /// What the names of headers with extra facts begin with, in small letters.
    pub extra_prefixes: Vec<String>,
}

/// The client of a connection.
pub struct Peer {
    certificates: Vec<CertificateDer<'static>>,
    /// When the certificates were judged, and whose they are: judging costs more than most requests.
    judged: Mutex<Option<(i64, Judged)>>,
}

#[derive(Clone)]
struct Judged {
    /// By the authorities of clients; `None` where the certificate names nobody.
    user: Result<Option<User>, ()>,
    /// Whether it is the front proxy's.
    proxy: bool,
}

/// How long, in seconds, a judgement about certificates holds.
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

/// What an `Authorization` header says.
#[derive(Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// Nothing about a bearer token.
    None,
    /// A token behind too many spaces, which counts as none.
    Spaced,
    /// A token.
    Token(&'a str),
}

impl<'a> Bearer<'a> {
    /// Reads the text of the header.
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
/// What precedes a token among the protocols of a WebSocket.
const SOCKET: &str = "base64url.bearer.authorization.k8s.io.";

impl Authentication {
    /// The user of a request, and texts for `Warning` headers. Takes away the headers that say who asks: nobody behind
    /// the server is to see or to believe them.
    ///
    /// # Errors
    /// 401 for credentials that are no good.
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
                tracing::debug!(why, "a WebSocket's token cannot be read");
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
                tracing::debug!(?why, "a bearer token is not taken");
                None
            }
        }
    }

    /// What a TokenReview answers about what stands behind `Bearer ` in a header: who it is and for which audiences,
    /// or what is wrong, in texts of which none is told twice. Who asks is not warned of what whoever shows the token is.
    ///
    /// # Errors
    /// What is wrong.
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
                    tracing::debug!(%why, "a client certificate is not taken");
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

/// Somebody who is not known.
fn anonymous() -> User {
    User::new(ANONYMOUS, &[UNAUTHENTICATED])
}

/// A user who has shown good credentials is in the group of all such.
fn authenticated(mut user: User) -> User {
    if user.name != ANONYMOUS && !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}

/// Whom a certificate is of.
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

    /// The user; none for a certificate without a name.
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

    /// Whom the headers name.
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

/// The token among the protocols of a WebSocket, and the other protocols.
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
