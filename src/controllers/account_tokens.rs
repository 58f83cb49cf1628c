//! serviceaccount-token-controller: fills secrets that name a service account with a token for it. Follows
//! k8s.io/kubernetes/pkg/controller/serviceaccount/tokens_controller.go.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use super::service_accounts::ServiceAccount;
use crate::auth::tokens::claims::LEGACY_ISSUER;
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::queue::{Next, Queue};
use crate::schema::Object;

const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
const TOKEN: &str = "token";

impl Cached for v1::Secret {
    // Only secrets that hold such tokens: others can be many and large.
    const FIELDS: &'static str = "type=kubernetes.io/service-account-token";
}

/// A secret, and the service account that it named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Work {
    secret: Key,
    account: CompactString,
}

/// The fields missing in a secret.
#[derive(Debug, PartialEq, Eq)]
struct Lack {
    ca: bool,
    namespace: bool,
    token: bool,
}

/// The fields missing in a secret; None if it is complete.
fn lack(secret: &v1::Secret, root_ca: &str) -> Option<Lack> {
    let data = |key: &str| -> &[u8] {
        let found = secret.data.as_ref().and_then(|data| data.get(key));
        found.map_or(&[], |bytes| &bytes.0)
    };
    let lack = Lack {
        ca: !root_ca.is_empty() && data(CA) != root_ca.as_bytes(),
        namespace: data(NAMESPACE).is_empty(),
        token: data(TOKEN).is_empty(),
    };
    (lack.ca || lack.namespace || lack.token).then_some(lack)
}

/// The claims of a token in a secret: it never expires.
fn claims(namespace: &str, secret: &str, account: &str, uid: &str) -> Object {
    let mut claims = Object::new();
    claims.insert("iss", LEGACY_ISSUER);
    for (key, value) in [
        ("namespace", namespace),
        ("secret.name", secret),
        ("service-account.name", account),
        ("service-account.uid", uid),
    ] {
        claims.insert(format!("kubernetes.io/serviceaccount/{key}"), value);
    }
    claims.insert(
        "sub",
        format!("system:serviceaccount:{namespace}:{account}"),
    );
    claims
}

/// Why a secret has to be looked at again.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("{}", crate::client::errors::text(.0))]
    Api(#[from] kube::Error),
    #[error("a token cannot be signed: {0}")]
    Unsigned(String),
}

/// Runs the controller.
pub async fn run(context: Context) {
    if context.settings.tokens.is_none() {
        tracing::info!("secrets get no tokens: there is no signing key");
        return context.ends.cancelled().await;
    }
    let queue = Arc::new(Queue::<Work>::new());
    let secrets: Informer<v1::Secret> = context.informers.of();
    let accounts: Informer<ServiceAccount> = context.informers.of();
    let named = |key: &Key, secret: &v1::Secret| Work {
        secret: key.clone(),
        account: secret
            .annotations()
            .get(NAME)
            .map_or("", String::as_str)
            .into(),
    };
    secrets.enqueue(&queue, move |change| {
        let secret = change.new.or(change.old);
        secret.map(|secret| named(change.key, secret))
    });
    let held = secrets.clone();
    accounts.enqueue(&queue, move |change| {
        let (old, new) = (change.old, change.new);
        if old.map(|old| &old.metadata.uid) == new.map(|new| &new.metadata.uid) {
            return Vec::new();
        }
        let secrets = held.list(&change.key.namespace).into_iter();
        secrets
            .map(|(key, secret)| named(&key, &secret))
            .filter(|work| work.account == change.key.name)
            .collect()
    });
    let look = |work: Work| {
        let (context, found) = (
            &context,
            secrets.get(&work.secret.namespace, &work.secret.name),
        );
        async move {
            if work.account.is_empty() {
                return Ok(Next::Done);
            }
            match found {
                Some(secret) => fill(context, &work, &secret).await,
                None => forget(context, &work).await,
            }
        }
    };
    context.work(&queue, 1, look).await;
}

/// Adds the missing fields to a secret, or deletes it if its service account is gone.
async fn fill(context: &Context, work: &Work, secret: &v1::Secret) -> Result<Next, Unfinished> {
    let namespace = &work.secret.namespace;
    let api: Api<v1::Secret> = Api::namespaced(context.client.clone(), namespace);
    let accounts: Api<v1::ServiceAccount> = Api::namespaced(context.client.clone(), namespace);
    let wanted = secret.annotations().get(UID).filter(|uid| !uid.is_empty());
    let account = accounts.get_opt(&work.account).await?;
    let account = account.and_then(|account| account.metadata.uid);
    let Some(uid) = account.filter(|uid| wanted.is_none_or(|wanted| wanted == uid)) else {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: secret.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        return settled(api.delete(&work.secret.name, &params).await);
    };
    let Some(lack) = lack(secret, &context.settings.root_ca) else {
        return Ok(Next::Done);
    };
    let mut new = secret.clone();
    let data = new.data.get_or_insert_default();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    if lack.ca {
        data.insert(CA.to_owned(), bytes(&context.settings.root_ca));
    }
    if lack.namespace {
        data.insert(NAMESPACE.to_owned(), bytes(namespace));
    }
    if lack.token
        && let Some(tokens) = context.settings.tokens.clone()
    {
        let claims = claims(namespace, &work.secret.name, &work.account, &uid);
        tokens.ready().await;
        let token = tokens.issue(&claims.into()).map_err(Unfinished::Unsigned)?;
        data.insert(TOKEN.to_owned(), bytes(&token));
    }
    let annotations = new.annotations_mut();
    annotations.insert(NAME.to_owned(), work.account.to_string());
    annotations.insert(UID.to_owned(), uid);
    settled(
        api.replace(&work.secret.name, &PostParams::default(), &new)
            .await,
    )
}

/// Removes a deleted secret from its service account.
async fn forget(context: &Context, work: &Work) -> Result<Next, Unfinished> {
    let api: Api<v1::ServiceAccount> =
        Api::namespaced(context.client.clone(), &work.secret.namespace);
    let Some(mut account) = api.get_opt(&work.account).await? else {
        return Ok(Next::Done);
    };
    let Some(secrets) = &mut account.secrets else {
        return Ok(Next::Done);
    };
    let had = secrets.len();
    secrets.retain(|secret| secret.name.as_deref() != Some(&work.secret.name));
    if secrets.len() == had {
        return Ok(Next::Done);
    }
    settled(
        api.replace(&work.account, &PostParams::default(), &account)
            .await,
    )
}

/// The outcome of a write: an object that changed meanwhile is enqueued again by its change.
fn settled<T>(result: Result<T, kube::Error>) -> Result<Next, Unfinished> {
    match result {
        Err(error) if is_conflict(&error) => Ok(Next::Retry),
        Err(error) if !is_not_found(&error) => Err(error.into()),
        _ => Ok(Next::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_lack_what_is_not_as_it_should_be() {
        let secret = |data: &str| -> v1::Secret {
            serde_json::from_str(&format!(r#"{{"metadata":{{}},"data":{{{data}}}}}"#)).unwrap()
        };
        let all = |ca, namespace, token| {
            Some(Lack {
                ca,
                namespace,
                token,
            })
        };
        // "PEM", "n", "t"
        let whole = r#""ca.crt":"UEVN","namespace":"bg==","token":"dA==""#;
        assert_eq!(lack(&secret(""), "PEM"), all(true, true, true));
        assert_eq!(lack(&secret(""), ""), all(false, true, true));
        assert_eq!(lack(&secret(whole), "PEM"), None);
        assert_eq!(lack(&secret(whole), "NEW"), all(true, false, false));
    }
}
