//! Bearer tokens: those of service accounts, which this server signs; those by which nodes bootstrap; those of a file.
//!
//! A signature is judged once and then remembered; whether all that a token is bound to is still there is asked of
//! the store's newest state at each use, which costs a few look-ups while nothing has changed.

pub mod bootstrap;
pub mod claims;
pub mod file;
pub mod jwt;
pub mod keys;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::SetOnce;

use claims::{Claims, LEGACY_ISSUER, Seen};
use file::TokenFile;
use keys::{PublicKey, Signer};

use super::User;
use super::rbac::go_list;
use crate::schema::{Object, Value};
use crate::store::Store;

/// How the tokens of service accounts are made and judged.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--service-account-issuer`: the first is told in new tokens, all are taken.
    pub issuers: Vec<String>,
    /// `--api-audiences`: whom tokens must be for to be taken here.
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration` in seconds.
    pub max_seconds: Option<i64>,
    /// `--service-account-extend-token-expiration`
    pub extend: bool,
    /// `--service-account-jwks-uri`: where the keys are to be had.
    pub jwks_uri: String,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap: bool,
}

/// The keys of service account tokens.
#[derive(Debug)]
pub struct Keys {
    /// What signs new tokens.
    pub signer: Signer,
    /// What judges tokens: the signer's public half, and others.
    pub public: Vec<PublicKey>,
}

impl Keys {
    /// Keys that sign with `signer`, and take what `more` judges.
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

/// Keys that may still be in the making.
#[derive(Clone, Default)]
pub struct KeyRing(Arc<SetOnce<Result<Keys, String>>>);

impl KeyRing {
    /// Keys that are there.
    pub fn of(keys: Keys) -> KeyRing {
        let ring = KeyRing::default();
        // It is empty: nothing is in the way.
        let _ = ring.0.set(Ok(keys));
        ring
    }

    /// Keys that another thread makes with `make`.
    pub fn made_by(make: impl FnOnce() -> Result<Keys, String> + Send + 'static) -> KeyRing {
        let ring = KeyRing::default();
        let made = ring.0.clone();
        std::thread::spawn(move || {
            let keys = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make))
                .unwrap_or_else(|_| Err("making a key broke".to_owned()));
            if let Err(why) = &keys {
                tracing::error!(why, "service account tokens cannot be signed");
            }
            let _ = made.set(keys);
        });
        ring
    }

    /// The keys.
    ///
    /// # Errors
    /// Why there are none: also that they are still made, when no token by them can be about yet.
    pub fn get(&self) -> Result<&Keys, &str> {
        match self.0.get() {
            Some(keys) => keys.as_ref().map_err(String::as_str),
            None => Err("the key that signs tokens is being made"),
        }
    }
}

/// Who showed a good token, and for which of the audiences that were asked for it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The user, without the group of authenticated ones.
    pub user: User,
    /// In the order in which they were asked for.
    pub audiences: Vec<String>,
}

/// Judges and makes tokens.
pub struct Tokens {
    store: Arc<dyn Store>,
    /// How.
    pub settings: Settings,
    keys: KeyRing,
    file: Option<TokenFile>,
    known: Mutex<HashMap<[u8; 32], Arc<Known>>>,
}

/// A token whose signature is good.
struct Known {
    claims: Claims,
    audiences: Vec<String>,
    proof: ArcSwapOption<(Seen, User)>,
}

/// Tokens that are remembered.
const REMEMBERED: usize = 10_000;

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a
        .iter()
        .zip(b)
        .fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    a.len() == b.len() && differ == 0
}

impl Tokens {
    /// Tokens over what is in `store`.
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
        }
    }

    /// The keys.
    ///
    /// # Errors
    /// Why there are none.
    pub fn keys(&self) -> Result<&Keys, &str> {
        self.keys.get()
    }

    /// Whose token `text` is, if it is for one of `audiences`, at `now`.
    ///
    /// # Errors
    /// What those who ask by a TokenReview are told beside "invalid bearer token"; may be nothing.
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
        let told = warnings.len();
        let (user, seen) = known.claims.user(&world, text, now, warnings)?;
        if warnings.len() == told {
            known.proof.store(Some(Arc::new((seen, user.clone()))));
        }
        found(user)
    }

    /// The token, its signature judged; none where it is no token of service accounts.
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

    /// Waits until it is known whether there are keys: who wants a token at a first start waits for its key.
    pub async fn ready(&self) {
        self.keys.0.wait().await;
    }

    /// A signed token.
    ///
    /// # Errors
    /// There is no key (yet), or the system gives no random numbers.
    pub fn issue(&self, claims: &Value) -> Result<String, String> {
        jwt::sign(claims, &self.keys.get()?.signer)
    }

    /// The issuer that new tokens tell.
    pub fn issuer(&self) -> &str {
        self.settings.issuers.first().map_or("", String::as_str)
    }

    /// The document of `/.well-known/openid-configuration`.
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

    /// The document of `/openid/v1/jwks`.
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

/// Those of `wanted` that are in `all`.
fn among(wanted: &[String], all: &[String]) -> Vec<String> {
    wanted
        .iter()
        .filter(|one| all.contains(one))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
