//! Bearer tokens: those of service accounts, signed by this server; bootstrap tokens of nodes; those from a file.
//!
//! A signature is verified once and then cached; whether the objects to which a token is bound still exist is checked
//! in the store's newest state at each use, which costs a few look-ups if nothing has changed.

pub mod bootstrap;
pub mod claims;
pub mod file;
pub mod jwt;
pub mod keys;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::{Notify, SetOnce};

use claims::{Claims, LEGACY_ISSUER, Seen, Use};
use file::TokenFile;
use keys::{PublicKey, Signer};

use super::User;
use super::rbac::go_list;
use crate::schema::{Object, Value};
use crate::store::Store;

/// Settings for service account tokens.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--service-account-issuer`: new tokens have the first, tokens of all are accepted.
    pub issuers: Vec<String>,
    /// `--api-audiences`: the audiences accepted here.
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration` in seconds.
    pub max_seconds: Option<i64>,
    /// `--service-account-extend-token-expiration`
    pub extend: bool,
    /// `--service-account-jwks-uri`: where clients find the keys.
    pub jwks_uri: String,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap: bool,
}

/// The keys of service account tokens.
#[derive(Debug)]
pub struct Keys {
    /// Signs new tokens.
    pub signer: Signer,
    /// Verify tokens: the signer's public half, and others.
    pub public: Vec<PublicKey>,
}

impl Keys {
    /// Signs with `signer`, and also accepts tokens signed by `more`.
    pub fn new(signer: Signer, more: Vec<PublicKey>) -> Keys {
        let mut public = Vec::new();
        for key in more.into_iter().chain([signer.public.clone()]) {
            if !public.contains(&key) {
                public.push(key);
            }
        }
        Keys { signer, public }
    }
}

/// Keys that may still be being generated.
#[derive(Clone, Default)]
pub struct KeyRing(Arc<SetOnce<Result<Keys, String>>>);

impl KeyRing {
    /// Existing keys.
    pub fn of(keys: Keys) -> KeyRing {
        let ring = KeyRing::default();
        // It is empty, so this succeeds.
        let _ = ring.0.set(Ok(keys));
        ring
    }

    /// Keys that another thread generates with `make`.
    pub fn made_by(make: impl FnOnce() -> Result<Keys, String> + Send + 'static) -> KeyRing {
        let ring = KeyRing::default();
        let made = ring.0.clone();
        std::thread::spawn(move || {
            let keys = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make))
                .unwrap_or_else(|_| Err("making a key broke".to_owned()));
            if let Err(why) = &keys {
                tracing::error!(why, "cannot sign service account tokens");
            }
            let _ = made.set(keys);
        });
        ring
    }

    /// The keys.
    ///
    /// # Errors
    /// Why there are none, or that they are still being generated; no tokens signed by them exist yet then.
    pub fn get(&self) -> Result<&Keys, &str> {
        match self.0.get() {
            Some(keys) => keys.as_ref().map_err(String::as_str),
            None => Err("the key that signs tokens is being made"),
        }
    }
}

/// The user of a valid token, and the requested audiences that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The user, without the group system:authenticated.
    pub user: User,
    /// In the requested order.
    pub audiences: Vec<String>,
}

/// Authenticates and issues tokens.
pub struct Tokens {
    store: Arc<dyn Store>,
    /// The settings.
    pub settings: Settings,
    keys: KeyRing,
    file: Option<TokenFile>,
    known: Mutex<HashMap<[u8; 32], Arc<Known>>>,
    /// What secrets do not say yet of the use of their tokens.
    pub uses: Uses,
}

/// The uses of secrets' tokens that are still to be written down: no more than there are such secrets.
#[derive(Default)]
pub struct Uses {
    open: Mutex<HashSet<Use>>,
    told: Notify,
}

impl Uses {
    fn tell(&self, one: Use) {
        self.open.lock().insert(one);
        self.told.notify_one();
    }

    /// Takes them, and waits until there are any.
    pub async fn take(&self) -> Vec<Use> {
        loop {
            let open = std::mem::take(&mut *self.open.lock());
            if !open.is_empty() {
                return open.into_iter().collect();
            }
            // Whoever tells of one between these lines has left a permit.
            self.told.notified().await;
        }
    }
}

/// A token with a verified signature.
struct Known {
    claims: Claims,
    audiences: Vec<String>,
    proof: ArcSwapOption<(Seen, User)>,
}

/// How many verified tokens are cached.
const REMEMBERED: usize = 10_000;

/// Compares two secrets in constant time.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a
        .iter()
        .zip(b)
        .fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    a.len() == b.len() && differ == 0
}

impl Tokens {
    /// Tokens for the objects in `store`.
    pub fn new(
        store: Arc<dyn Store>,
        settings: Settings,
        keys: KeyRing,
        file: Option<TokenFile>,
    ) -> Tokens {
        Tokens {
            store,
            settings,
            keys,
            file,
            known: Mutex::default(),
            uses: Uses::default(),
        }
    }

    /// The keys.
    ///
    /// # Errors
    /// Why there are none.
    pub fn keys(&self) -> Result<&Keys, &str> {
        self.keys.get()
    }

    /// The user of the token `text`, if it is valid for one of `audiences` at `now`.
    ///
    /// # Errors
    /// The error that a TokenReview shows besides "invalid bearer token"; may be empty.
    pub fn authenticate(
        &self,
        text: &str,
        audiences: &[String],
        now: i64,
        warnings: &mut Vec<String>,
    ) -> Result<Authenticated, Vec<String>> {
        let own: Vec<String> = among(audiences, &self.settings.audiences);
        let elsewhere = |user: User| Authenticated {
            user,
            audiences: own.clone(),
        };
        if let Some(user) = self.file.as_ref().and_then(|file| file.user(text))
            && !own.is_empty()
        {
            return Ok(elsewhere(user.clone()));
        }
        let mut errors = Vec::new();
        match self.of_account(text, audiences, now, warnings) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(why) => errors.push(why),
        }
        if self.settings.bootstrap
            && !own.is_empty()
            && let Some(user) = bootstrap::user(&self.store.world(), text, now)
        {
            return Ok(elsewhere(user));
        }
        Err(errors)
    }

    fn of_account(
        &self,
        text: &str,
        audiences: &[String],
        now: i64,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Authenticated>, String> {
        let Some(known) = self.known(text)? else {
            return Ok(None);
        };
        let of = if known.audiences.is_empty() {
            &self.settings.audiences
        } else {
            &known.audiences
        };
        let both = among(audiences, of);
        if both.is_empty() {
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                go_list(of),
                go_list(audiences)
            ));
        }
        known.claims.check_time(now)?;
        let world = self.store.world();
        let found = |user| {
            Ok(Some(Authenticated {
                user,
                audiences: both,
            }))
        };
        if let Some(proof) = &*known.proof.load()
            && proof.0.still(&world)
        {
            return found(proof.1.clone());
        }
        let mut used = None;
        let judged = known.claims.user(&world, text, now, warnings, &mut used);
        if let Some(used) = used {
            self.uses.tell(used);
        }
        let (user, seen) = judged?;
        // What is told of a secret's token depends on the day, too: it is checked at each use.
        if matches!(known.claims, Claims::Bound { .. }) {
            known.proof.store(Some(Arc::new((seen, user.clone()))));
        }
        found(user)
    }

    /// The verified token; `None` if it is not a service account token.
    fn known(&self, text: &str) -> Result<Option<Arc<Known>>, String> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Some(token) = jwt::Unverified::parse(text) else {
            return Ok(None);
        };
        let issuer = token.issuer();
        if issuer != LEGACY_ISSUER && !self.settings.issuers.iter().any(|own| own == issuer) {
            return Ok(None);
        }
        let verified = token.verify(&self.keys.get()?.public)?;
        let audiences = jwt::texts(&verified, "aud").map_err(
            |_| "go-jose/go-jose/jwt: expected string or array value to unmarshal to Audience",
        )?;
        let known = Arc::new(Known {
            claims: Claims::read(&verified)?,
            audiences,
            proof: ArcSwapOption::empty(),
        });
        let mut all = self.known.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(key, known.clone());
        Ok(Some(known))
    }

    /// Waits until keys are available or have failed: at the first start, token requests wait for the key.
    pub async fn ready(&self) {
        self.keys.0.wait().await;
    }

    /// Signs a token.
    ///
    /// # Errors
    /// There is no key (yet), or the system provides no random numbers.
    pub fn issue(&self, claims: &Value) -> Result<String, String> {
        jwt::sign(claims, &self.keys.get()?.signer)
    }

    /// The issuer of new tokens.
    pub fn issuer(&self) -> &str {
        self.settings.issuers.first().map_or("", String::as_str)
    }

    /// The document at `/.well-known/openid-configuration`.
    ///
    /// # Errors
    /// There are no keys.
    pub fn configuration(&self) -> Result<Value, String> {
        let mut algorithms: Vec<&str> = self
            .keys
            .get()?
            .public
            .iter()
            .map(PublicKey::algorithm)
            .collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        let texts = |texts: &[&str]| -> Vec<Value> { texts.iter().map(|t| (*t).into()).collect() };
        let mut document = Object::new();
        document.insert("issuer", self.issuer());
        document.insert("jwks_uri", self.settings.jwks_uri.as_str());
        document.insert("response_types_supported", texts(&["id_token"]));
        document.insert("subject_types_supported", texts(&["public"]));
        document.insert("id_token_signing_alg_values_supported", texts(&algorithms));
        Ok(Value::Object(document))
    }

    /// The document at `/openid/v1/jwks`.
    ///
    /// # Errors
    /// There are no keys.
    pub fn key_set(&self) -> Result<Value, String> {
        let keys = self.keys.get()?.public.iter().map(PublicKey::jwk);
        let keys: Vec<Value> = keys.collect();
        let mut document = Object::new();
        document.insert("keys", keys);
        Ok(Value::Object(document))
    }
}

/// The items of `wanted` that are in `all`.
fn among(wanted: &[String], all: &[String]) -> Vec<String> {
    wanted
        .iter()
        .filter(|one| all.contains(one))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
