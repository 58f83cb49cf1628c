//! bootstrap-signer-controller and token-cleaner-controller: the first signs the public `cluster-info` with each token
//! with which nodes may join, the second deletes expired tokens. Follows k8s.io/kubernetes/pkg/controller/bootstrap and
//! k8s.io/cluster-bootstrap/token/jws.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::CompactString;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use ring::hmac;

use crate::auth::tokens::bootstrap::{PREFIX, is_id};
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found};
use crate::client::informer::Informer;
use crate::client::queue::{Next, Queue};
use crate::meta::time;

const TOKENS: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const INFO: &str = "cluster-info";
/// The key that is signed.
const SIGNED: &str = "kubeconfig";
/// The prefix of the keys of signatures, followed by the token's ID.
const SIGNATURE: &str = "jws-kubeconfig-";

crate::slim!(
    /// A bootstrap token.
    Token of v1::Secret where "type=bootstrap.kubernetes.io/token" {
        /// Its contents.
        data: BTreeMap<String, ByteString>
    }
);

crate::slim!(
    /// The existence and changes of `cluster-info`.
    ClusterInfo of v1::ConfigMap where "metadata.name=cluster-info" {}
);

impl Token {
    fn text(&self, key: &str) -> &str {
        let bytes = self.data.get(key);
        bytes
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .unwrap_or_default()
    }

    /// The remaining seconds of its validity at `now`: `None` without expiration, zero if it has expired or its
    /// expiration is invalid.
    fn left(&self, now: i64) -> Option<u64> {
        match self.text("expiration") {
            "" => None,
            text => {
                let until = time::parse(text).unwrap_or(now);
                Some(u64::try_from(until - now).unwrap_or(0))
            }
        }
    }

    /// Its ID and secret, if it may sign at `now`.
    fn signs(&self, now: i64) -> Option<(&str, &str)> {
        let (id, secret) = (self.text("token-id"), self.text("token-secret"));
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let is_named = name.strip_prefix(PREFIX) == Some(id) && is_id(id);
        let is_good = is_named
            && !secret.is_empty()
            && self.left(now) != Some(0)
            && self.text("usage-bootstrap-signing") == "true";
        is_good.then_some((id, secret))
    }
}

/// The signature of a text with a token: a JSON web signature with detached content (RFC 7515, appendix F).
fn signature(content: &str, id: &str, secret: &str) -> String {
    let header = format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
    let header = URL_SAFE_NO_PAD.encode(header);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The new data of `cluster-info`, signed by the tokens that may sign at `now`; `None` if it is up to date, or there is
/// nothing to sign.
fn wanted<'a>(
    data: &BTreeMap<String, String>,
    tokens: impl Iterator<Item = &'a Token>,
    now: i64,
) -> Option<BTreeMap<String, String>> {
    let content = data.get(SIGNED)?;
    let mut wanted = data.clone();
    wanted.retain(|key, _| !key.starts_with(SIGNATURE));
    for (id, secret) in tokens.filter_map(|token| token.signs(now)) {
        let key = format!("{SIGNATURE}{id}");
        wanted.insert(key, signature(content, id, secret));
    }
    (wanted != *data).then_some(wanted)
}

/// Runs the signer.
pub async fn signing(context: Context) {
    let queue = Arc::new(Queue::<()>::new());
    let tokens: Informer<Token> = context.informers.of();
    let infos: Informer<ClusterInfo> = context.informers.of();
    infos.enqueue(&queue, |change| {
        (change.key.namespace == PUBLIC && change.new.is_some()).then_some(())
    });
    tokens.enqueue(&queue, |change| {
        (change.key.namespace == TOKENS).then_some(())
    });
    let maps: Api<v1::ConfigMap> = Api::namespaced(context.client.clone(), PUBLIC);
    let look = |()| {
        let (maps, tokens) = (&maps, &tokens);
        let is_there = infos.get(PUBLIC, INFO).is_some();
        async move {
            if !is_there {
                return Ok(Next::Done);
            }
            let mut map = match maps.get(INFO).await {
                Err(error) if is_not_found(&error) => return Ok(Next::Done),
                found => found?,
            };
            let known = tokens.all();
            let known = known.iter().filter(|(key, _)| key.namespace == TOKENS);
            let known = known.map(|(_, token)| &**token);
            let Some(data) = wanted(map.data.get_or_insert_default(), known, time::now()) else {
                return Ok(Next::Done);
            };
            map.data = Some(data);
            match maps.replace(INFO, &PostParams::default(), &map).await {
                Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(Next::Retry),
                written => written.map(|_| Next::Done),
            }
        }
    };
    context.work(&queue, 1, look).await;
}

/// Runs the cleaner.
pub async fn cleaning(context: Context) {
    let queue = Arc::new(Queue::<CompactString>::new());
    let tokens: Informer<Token> = context.informers.of();
    tokens.enqueue(&queue, |change| {
        let is_there = change.key.namespace == TOKENS && change.new.is_some();
        is_there.then(|| change.key.name.clone())
    });
    let secrets: Api<v1::Secret> = Api::namespaced(context.client.clone(), TOKENS);
    let look = |name: CompactString| {
        let (token, secrets) = (tokens.get(TOKENS, &name), &secrets);
        async move {
            let Some(token) = token else {
                return Ok(Next::Done);
            };
            match token.left(time::now()) {
                None => return Ok(Next::Done),
                Some(0) => {}
                Some(seconds) => return Ok(Next::After(Duration::from_secs(seconds))),
            }
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: token.uid(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match secrets.delete(&name, &params).await {
                Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(error),
                _ => Ok(Next::Done),
            }
        }
    };
    context.work(&queue, 1, look).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, data: &[(&str, &str)]) -> Token {
        let mut token = Token::default();
        token.metadata.name = Some(name.to_owned());
        token.data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect();
        token
    }

    const NAME: &str = "bootstrap-token-abcdef";
    const ID: (&str, &str) = ("token-id", "abcdef");
    const SECRET: (&str, &str) = ("token-secret", "0123456789abcdef");
    const SIGNS: (&str, &str) = ("usage-bootstrap-signing", "true");

    #[test]
    fn tokens_sign_that_are_good_and_are_for_it() {
        const NOW: i64 = 10;
        for (name, data, signs, left) in [
            (NAME, &[ID, SECRET, SIGNS][..], true, None),
            ("bootstrap-token-abcdeg", &[ID, SECRET, SIGNS], false, None),
            ("abcdef", &[ID, SECRET, SIGNS], false, None),
            (NAME, &[ID, SIGNS], false, None),
            (NAME, &[SECRET, SIGNS], false, None),
            (NAME, &[ID, SECRET], false, None),
            (
                NAME,
                &[ID, SECRET, ("usage-bootstrap-signing", "True")],
                false,
                None,
            ),
            (
                NAME,
                &[ID, SECRET, SIGNS, ("expiration", "1970-01-01T00:00:11Z")],
                true,
                Some(1),
            ),
            (
                NAME,
                &[ID, SECRET, SIGNS, ("expiration", "1970-01-01T00:00:10Z")],
                false,
                Some(0),
            ),
            (
                NAME,
                &[ID, SECRET, SIGNS, ("expiration", "soon")],
                false,
                Some(0),
            ),
        ] {
            let token = token(name, data);
            assert_eq!(token.signs(NOW).is_some(), signs, "{name} {data:?}");
            assert_eq!(token.left(NOW), left, "{name} {data:?}");
        }
    }

    #[test]
    fn signatures_are_those_of_the_tokens_there_are() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let known = [token(NAME, &[ID, SECRET, SIGNS])];
        let none: [Token; 0] = [];
        // Computed by upstream's jws.ComputeDetachedSignature.
        let signed =
            "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..psz1NayrXM3IaFzKZGsb5n_mBl7MjtlsZ1xE8MRmF_4";
        let unsigned = map(&[("kubeconfig", "content"), ("other", "a")]);
        let good = map(&[
            ("kubeconfig", "content"),
            ("other", "a"),
            ("jws-kubeconfig-abcdef", signed),
        ]);
        let stale = map(&[
            ("kubeconfig", "content"),
            ("other", "a"),
            ("jws-kubeconfig-abcdef", "a"),
            ("jws-kubeconfig-ghijkl", "b"),
        ]);
        for (data, tokens, expected) in [
            (&unsigned, &known[..], Some(&good)),
            (&good, &known, None),
            (&stale, &known, Some(&good)),
            (&stale, &none, Some(&unsigned)),
            (&unsigned, &none, None),
            (&map(&[("other", "a")]), &known, None),
        ] {
            let told = wanted(data, tokens.iter(), 0);
            assert_eq!(told.as_ref(), expected, "{data:?}");
        }
    }
}
