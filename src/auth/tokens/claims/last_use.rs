//! The use of tokens that secrets hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use compact_str::CompactString;

use super::super::same;
use super::Reference;
use super::objects::{ACCOUNTS, Refusal, SECRETS, Seen, not_found, user_of};
use crate::auth::User;
use crate::meta::time;
use crate::schema::Value;
use crate::store::World;

/// The label of a secret whose token is no longer accepted.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The label of a secret that says on which day its token was last used.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// The use of a secret's token on a day that the secret does not say yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Use {
    /// The secret's namespace.
    pub namespace: CompactString,
    /// Its name.
    pub secret: CompactString,
    /// Its uid.
    pub uid: CompactString,
    /// The day in UTC: `2026-01-31`.
    pub day: CompactString,
}

impl Use {
    /// The use of the token in `secret` at `now`; `None` if its label says that day, or the next one, which another
    /// server with a faster clock has written.
    fn of(secret: &Value, now: i64) -> Option<Use> {
        let meta = secret.at("metadata");
        let said = meta.at("labels").str(LAST_USED);
        let (today, tomorrow) = (day(now), day(now + DAY));
        (said != today && said != tomorrow).then(|| Use {
            namespace: meta.str("namespace").into(),
            secret: meta.str("name").into(),
            uid: meta.str("uid").into(),
            day: today,
        })
    }
}

/// A day in seconds.
const DAY: i64 = 24 * 60 * 60;

/// The day in UTC of a time.
fn day(at: i64) -> CompactString {
    let text = time::print(at);
    text.split('T').next().unwrap_or_default().into()
}

/// A token that a secret holds.
pub(super) struct Held<'a> {
    pub(super) world: &'a World,
    pub(super) namespace: &'a str,
    pub(super) account: &'a Reference,
    pub(super) secret: &'a str,
    pub(super) text: &'a str,
    pub(super) now: i64,
}

impl Held<'_> {
    pub(super) fn user(
        &self,
        warnings: &mut Vec<String>,
        used: &mut Option<Use>,
    ) -> Result<User, Refusal> {
        let Held {
            world,
            namespace,
            account,
            secret,
            ..
        } = *self;
        let mut seen = Seen::default();
        let ends = |object: &Value| object.at("metadata").get("deletionTimestamp").is_some();
        let found = seen
            .look(world, SECRETS, namespace, secret)
            .filter(|found| !ends(found))
            .ok_or("Token has been invalidated")?;
        let held = STANDARD
            .decode(found.at("data").str("token"))
            .unwrap_or_default();
        if !same(&held, self.text.as_bytes()) {
            return Err("Token does not match server's copy".into());
        }
        let holder = seen
            .look(world, ACCOUNTS, namespace, &account.name)
            .ok_or_else(|| not_found("serviceaccounts", &account.name))?;
        if ends(&holder) {
            return Err(format!(
                "ServiceAccount {namespace}/{} has been deleted",
                account.name
            ));
        }
        let uid = holder.at("metadata").str("uid");
        if uid != account.uid {
            return Err(format!(
                "ServiceAccount UID ({uid}) does not match claim ({})",
                account.uid
            ));
        }
        *used = Use::of(&found, self.now);
        if !found
            .path(&["metadata", "labels", INVALID_SINCE])
            .is_empty()
        {
            return Err(format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                account.name
            ));
        }
        if holder
            .list("secrets")
            .iter()
            .any(|reference| reference.str("name") == secret)
        {
            warnings.push("Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.".into());
        }
        Ok(user_of(namespace, account))
    }
}
