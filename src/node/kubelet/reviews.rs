//! Authentication and authorization on a node whose API server is another process: certificates of the cluster's CA are
//! verified here, tokens and permissions are reviewed by the API server, and its responses are cached. Follows
//! pkg/kubelet/server/auth.go and the webhooks in k8s.io/apiserver/pkg/{authentication,authorization}/...

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::auth::pki::{ClientCertificates, Subject};
use crate::auth::{AUTHENTICATED, Attributes, User};
use crate::node::{Allow, Authenticate};

/// How long the user of a token is cached.
pub(super) const TOKEN: Duration = Duration::from_secs(120);
/// How long a permission is cached.
pub(super) const ALLOWED: Duration = Duration::from_secs(300);
/// How long a denial is cached.
pub(super) const REFUSED: Duration = Duration::from_secs(30);
/// How many answers of each kind are cached.
const KEPT: usize = 1024;

/// A cache with expiration.
struct Answers<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Answers<K, V> {
    fn new() -> Self {
        Answers(Mutex::default())
    }
    fn get(&self, key: &K) -> Option<V> {
        let known = self.0.lock();
        let (until, value) = known.get(key)?;
        (*until > Instant::now()).then(|| value.clone())
    }
    fn keep(&self, key: K, value: V, life: Duration) {
        let mut known = self.0.lock();
        let now = Instant::now();
        if known.len() >= KEPT {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() < KEPT {
            known.insert(key, (now + life, value));
        }
    }
}

/// Sends reviews to an API server, as the node.
pub struct Reviews {
    client: kube::Client,
    clients: ClientCertificates,
    tokens: Answers<[u8; 32], Option<User>>,
    permissions: Answers<(User, String, String, String), bool>,
}

impl Reviews {
    /// Reviews through `client`, except for certificates, which `clients` verifies.
    pub fn new(client: kube::Client, clients: ClientCertificates) -> Arc<Self> {
        Arc::new(Reviews {
            client,
            clients,
            tokens: Answers::new(),
            permissions: Answers::new(),
        })
    }

    /// The function that authenticates requests.
    pub fn authenticate(self: &Arc<Self>) -> Authenticate {
        let own = self.clone();
        Arc::new(move |shown| {
            let (own, user) = (own.clone(), own.certified(&shown));
            Box::new(move |headers| {
                let (own, user, token) = (own.clone(), user.clone(), bearer(headers));
                async move {
                    match (user, token) {
                        (Some(user), _) => Some(user),
                        (None, Some(token)) => own.token(token).await,
                        (None, None) => None,
                    }
                }
                .boxed()
            })
        })
    }

    /// The function that authorizes requests.
    pub fn allow(self: &Arc<Self>) -> Allow {
        let own = self.clone();
        Arc::new(move |user, wants| {
            let own = own.clone();
            let review = SubjectAccessReviewSpec {
                user: Some(user.name.to_string()),
                uid: (!user.uid.is_empty()).then(|| user.uid.to_string()),
                groups: Some(user.groups.iter().map(ToString::to_string).collect()),
                resource_attributes: Some(resource(wants)),
                ..SubjectAccessReviewSpec::default()
            };
            let text = |text: &str| text.to_owned();
            let key = (
                user.clone(),
                text(wants.verb),
                text(wants.subresource),
                text(wants.name),
            );
            async move { own.permission(key, review).await }.boxed()
        })
    }

    /// The user of valid client certificates.
    fn certified(&self, shown: &[CertificateDer<'static>]) -> Option<User> {
        let own = shown.first()?;
        self.clients.judge(shown, crate::meta::time::now()).ok()?;
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        let subject = Subject::of(parsed.subject());
        let groups = subject.groups.iter().map(|group| group.as_str());
        let groups: Vec<&str> = groups.chain([AUTHENTICATED]).collect();
        (!subject.name.is_empty()).then(|| User::new(&subject.name, &groups))
    }

    async fn token(&self, token: String) -> Option<User> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let key: [u8; 32] = digest.as_ref().try_into().ok()?;
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token,
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        // Failures to reach the API server are not cached.
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer
            .inspect_err(|error| tracing::debug!(%error, "a token review failed"))
            .ok()?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let user = user.map(|user| {
            let groups = user.groups.unwrap_or_default();
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            let mut known = User::new(&user.username.unwrap_or_default(), &groups);
            known.uid = user.uid.unwrap_or_default().into();
            known
        });
        let life = if user.is_some() { TOKEN } else { REFUSED };
        self.tokens.keep(key, user.clone(), life);
        user
    }

    async fn permission(
        &self,
        key: (User, String, String, String),
        spec: SubjectAccessReviewSpec,
    ) -> bool {
        if let Some(known) = self.permissions.get(&key) {
            return known;
        }
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => {
                let allowed = answer.status.is_some_and(|status| status.allowed);
                let life = if allowed { ALLOWED } else { REFUSED };
                self.permissions.keep(key, allowed, life);
                allowed
            }
            Err(error) => {
                tracing::debug!(%error, "an access review failed");
                false
            }
        }
    }
}

fn resource(wants: &Attributes<'_>) -> ResourceAttributes {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ResourceAttributes {
        verb: text(wants.verb),
        version: text(wants.version),
        group: text(wants.group),
        resource: text(wants.resource),
        subresource: text(wants.subresource),
        name: text(wants.name),
        namespace: text(wants.namespace),
        ..ResourceAttributes::default()
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_headers() {
        for (text, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().expect("a header"));
            assert_eq!(bearer(&headers).as_deref(), token, "{text}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn answers_hold_for_a_while_and_are_bounded() {
        let answers = Answers::new();
        answers.keep(0, true, Duration::from_secs(60));
        answers.keep(1, true, Duration::ZERO);
        assert_eq!((answers.get(&0), answers.get(&1)), (Some(true), None));
        for key in 2..2 + KEPT {
            answers.keep(key, true, Duration::from_secs(60));
        }
        assert!(answers.0.lock().len() <= KEPT);
        assert_eq!(answers.get(&0), Some(true));
    }
}
