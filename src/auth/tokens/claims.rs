//! The claims of service account tokens, and the check that the objects they name still exist. Follows
//! k8s.io/kubernetes pkg/serviceaccount/{claims,legacy}.go.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use compact_str::{CompactString, format_compact};

use super::{jwt, same};
use crate::auth::{User, accounts};
use crate::meta::errors::quoted;
use crate::meta::time;
use crate::resources::cluster::object;
use crate::schema::{Object, Value};
use crate::store::{Revision, World};

/// The clock skew that is tolerated, in seconds.
const LEEWAY: i64 = 60;
/// The issuer of tokens that secrets hold.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
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

/// An object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its name.
    pub name: CompactString,
    /// Its uid; may be empty for the node of a pod.
    pub uid: CompactString,
}

impl Reference {
    /// The name and uid of an object.
    pub fn of(object: &Value) -> Reference {
        let meta = object.at("metadata");
        Reference {
            name: meta.str("name").into(),
            uid: meta.str("uid").into(),
        }
    }

    fn read(value: &Value) -> Reference {
        Reference {
            name: value.str("name").into(),
            uid: value.str("uid").into(),
        }
    }

    fn write(&self) -> Value {
        let mut out = Object::new();
        for (key, text) in [("name", &self.name), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key, text);
            }
        }
        Value::Object(out)
    }
}

/// The objects to which a token is bound, besides its service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// A pod.
    pub pod: Option<Reference>,
    /// A secret.
    pub secret: Option<Reference>,
    /// A node, or the node of the pod.
    pub node: Option<Reference>,
}

/// The contents of a token to issue.
pub struct Wanted<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The token's ID.
    pub id: &'a str,
    /// The audiences.
    pub audiences: &'a [String],
    /// The account's namespace.
    pub namespace: &'a str,
    /// The service account.
    pub account: Reference,
    /// The objects to which it is bound.
    pub bound: Bound,
    /// Now, in seconds since 1970.
    pub now: i64,
    /// Its lifetime, in seconds.
    pub seconds: i64,
    /// After so many seconds, its use indicates a program that does not reload it.
    pub warn_after: Option<i64>,
}

impl Wanted<'_> {
    /// The claims in upstream's order.
    pub fn claims(&self) -> Value {
        let mut kubernetes = Object::new();
        kubernetes.insert("namespace", self.namespace);
        for (key, reference) in [
            ("node", self.bound.node.as_ref()),
            ("pod", self.bound.pod.as_ref()),
            ("secret", self.bound.secret.as_ref()),
            ("serviceaccount", Some(&self.account)),
        ] {
            if let Some(reference) = reference {
                kubernetes.insert(key, reference.write());
            }
        }
        if let Some(seconds) = self.warn_after {
            kubernetes.insert("warnafter", self.now + seconds);
        }
        let audiences: Vec<Value> = self.audiences.iter().map(Value::from).collect();
        let mut claims = Object::new();
        claims.insert("aud", audiences);
        claims.insert("exp", self.now.saturating_add(self.seconds));
        claims.insert("iat", self.now);
        claims.insert("iss", self.issuer);
        claims.insert("jti", self.id);
        claims.insert("kubernetes.io", kubernetes);
        claims.insert("nbf", self.now);
        claims.insert(
            "sub",
            accounts::user_name(self.namespace, &self.account.name),
        );
        Value::Object(claims)
    }
}

/// Claims with a verified signature.
#[derive(Debug)]
pub enum Claims {
    /// Claims of a token from the TokenRequest API.
    Bound {
        /// The token's own id.
        id: CompactString,
        not_before: Option<i64>,
        expires: Option<i64>,
        issued: Option<i64>,
        namespace: CompactString,
        account: Reference,
        bound: Bound,
    },
    /// Claims of a token stored in a secret.
    Legacy {
        subject: CompactString,
        namespace: CompactString,
        account: Reference,
        secret: CompactString,
    },
}

/// The objects checked for a token, with their revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(&'static str, String, Revision)>);

impl Seen {
    /// Whether all of them are unchanged.
    pub fn still(&self, world: &World) -> bool {
        self.0.iter().all(|(resource, key, rev)| {
            world
                .get(resource, key)
                .is_some_and(|entry| entry.rev == *rev)
        })
    }

    fn look(
        &mut self,
        world: &World,
        resource: &'static str,
        namespace: &str,
        name: &str,
    ) -> Option<Value> {
        let key = match namespace {
            "" => format!("{resource}{name}"),
            namespace => format!("{resource}{namespace}/{name}"),
        };
        let entry = world.get(resource, &key)?;
        let value = object(entry);
        // Whether a terminating object still counts depends on the time: check it again.
        let ends = value.at("metadata").get("deletionTimestamp").is_some();
        self.0
            .push((resource, key, if ends { 0 } else { entry.rev }));
        Some(value)
    }
}

const ACCOUNTS: &str = "/registry/serviceaccounts/";
const PODS: &str = "/registry/pods/";
const SECRETS: &str = "/registry/secrets/";
const NODES: &str = "/registry/minions/";

/// Why a token is rejected, as reported by a TokenReview.
type Refusal = String;

/// Whether an object's deletion was requested at `before` or earlier.
fn deleted_before(object: &Value, before: i64) -> bool {
    let meta = object.at("metadata");
    meta.get("deletionTimestamp")
        .and_then(Value::as_str)
        .is_some_and(|at| time::parse(at).is_ok_and(|at| at < before))
}

impl Claims {
    /// Parses verified claims of `issuer`.
    ///
    /// # Errors
    /// They do not have the form of service account tokens.
    pub fn read(claims: &Value) -> Result<Claims, Refusal> {
        let strange = |_| "service account token claims could not be read".to_owned();
        if claims.str("iss") == LEGACY_ISSUER {
            let text = |key: &str| {
                CompactString::from(claims.str(&format!("kubernetes.io/serviceaccount/{key}")))
            };
            return Ok(Claims::Legacy {
                subject: claims.str("sub").into(),
                namespace: text("namespace"),
                account: Reference {
                    name: text("service-account.name"),
                    uid: text("service-account.uid"),
                },
                secret: text("secret.name"),
            });
        }
        let time = |name| jwt::time(claims, name).map_err(strange);
        let private = claims.at("kubernetes.io");
        let bound = |key: &str| private.get(key).map(Reference::read);
        Ok(Claims::Bound {
            id: claims.str("jti").into(),
            not_before: time("nbf")?,
            expires: time("exp")?,
            issued: time("iat")?,
            namespace: private.str("namespace").into(),
            account: Reference::read(private.at("serviceaccount")),
            bound: Bound {
                pod: bound("pod"),
                secret: bound("secret"),
                node: bound("node"),
            },
        })
    }

    /// Whether the token is valid at `now`.
    ///
    /// # Errors
    /// It is not valid yet, or expired.
    pub fn check_time(&self, now: i64) -> Result<(), Refusal> {
        let Claims::Bound {
            not_before,
            expires,
            issued,
            ..
        } = self
        else {
            return Ok(());
        };
        let why = if not_before.is_some_and(|at| now + LEEWAY < at) {
            "service account token is not valid yet"
        } else if expires.is_some_and(|at| now - LEEWAY > at) {
            "service account token has expired"
        } else if issued.is_some_and(|at| now + LEEWAY < at) {
            "service account token is issued in the future"
        } else {
            return Ok(());
        };
        Err(why.into())
    }

    /// The user of the token `text`, if all objects to which it is bound exist in `world`; and the objects checked.
    /// `used` says what the token's secret does not say yet of its use, even if it is refused.
    ///
    /// # Errors
    /// The object that is gone.
    pub fn user(
        &self,
        world: &World,
        text: &str,
        now: i64,
        warnings: &mut Vec<String>,
        used: &mut Option<Use>,
    ) -> Result<(User, Seen), Refusal> {
        let mut seen = Seen::default();
        let user = match self {
            Claims::Bound {
                id,
                namespace,
                account,
                bound,
                ..
            } => {
                let look = Look {
                    world,
                    namespace,
                    before: now - LEEWAY,
                };
                let mut user = look.account(account, &mut seen)?;
                look.bound(bound, &mut user, &mut seen)?;
                if !id.is_empty() {
                    user.set_extra(accounts::CREDENTIAL_ID, vec![format_compact!("JTI={id}")]);
                }
                user
            }
            Claims::Legacy {
                subject,
                namespace,
                account,
                secret,
            } => {
                for (name, claim) in [
                    ("sub", subject),
                    ("namespace", namespace),
                    ("secretName", secret),
                    ("serviceAccountName", &account.name),
                    ("serviceAccountUID", &account.uid),
                ] {
                    if claim.is_empty() {
                        return Err(format!("{name} claim is missing"));
                    }
                }
                if accounts::split(subject) != Some((namespace, &account.name)) {
                    return Err("sub claim is invalid".into());
                }
                let token = Held {
                    world,
                    namespace,
                    account,
                    secret,
                    text,
                    now,
                };
                token.user(warnings, used)?
            }
        };
        Ok((user, seen))
    }
}

fn user_of(namespace: &str, account: &Reference) -> User {
    User {
        name: accounts::user_name(namespace, &account.name),
        uid: account.uid.clone(),
        groups: accounts::groups(namespace).to_vec(),
        extra: Vec::new(),
    }
}

fn not_found(resource: &str, name: &str) -> Refusal {
    format!("{resource} {} not found", quoted(name))
}

struct Look<'a> {
    world: &'a World,
    namespace: &'a str,
    before: i64,
}

impl Look<'_> {
    fn account(&self, account: &Reference, seen: &mut Seen) -> Result<User, Refusal> {
        let found = seen
            .look(self.world, ACCOUNTS, self.namespace, &account.name)
            .ok_or_else(|| not_found("serviceaccounts", &account.name))?;
        let uid = found.at("metadata").str("uid");
        if uid != account.uid {
            return Err(format!(
                "service account UID ({uid}) does not match claim ({})",
                account.uid
            ));
        }
        if deleted_before(&found, self.before) {
            return Err(format!(
                "service account {}/{} has been deleted",
                self.namespace, account.name
            ));
        }
        Ok(user_of(self.namespace, account))
    }

    fn bound(&self, bound: &Bound, user: &mut User, seen: &mut Seen) -> Result<(), Refusal> {
        if let Some(secret) = &bound.secret {
            self.still(SECRETS, "secret", self.namespace, secret, seen)?;
        }
        if let Some(pod) = &bound.pod {
            self.still(PODS, "pod", self.namespace, pod, seen)?;
            user.set_extra(accounts::POD_NAME, vec![pod.name.clone()]);
            user.set_extra(accounts::POD_UID, vec![pod.uid.clone()]);
        }
        if let Some(node) = &bound.node {
            // A pod's node is only informative: the pod's existence is enough.
            if bound.pod.is_none() {
                self.still(NODES, "node", "", node, seen)?;
            }
            user.set_extra(accounts::NODE_NAME, vec![node.name.clone()]);
            if !node.uid.is_empty() {
                user.set_extra(accounts::NODE_UID, vec![node.uid.clone()]);
            }
        }
        Ok(())
    }

    /// Whether an object to which a token is bound still exists.
    fn still(
        &self,
        resource: &'static str,
        kind: &str,
        namespace: &str,
        wanted: &Reference,
        seen: &mut Seen,
    ) -> Result<(), Refusal> {
        let gone = || "service account token has been invalidated".to_owned();
        let found = seen
            .look(self.world, resource, namespace, &wanted.name)
            .ok_or_else(gone)?;
        let uid = found.at("metadata").str("uid");
        if uid != wanted.uid {
            return Err(format!(
                "{kind} UID ({uid}) does not match service account {kind} ref claim ({})",
                wanted.uid
            ));
        }
        if deleted_before(&found, self.before) {
            return Err(gone());
        }
        Ok(())
    }
}

/// A token that a secret holds.
struct Held<'a> {
    world: &'a World,
    namespace: &'a str,
    account: &'a Reference,
    secret: &'a str,
    text: &'a str,
    now: i64,
}

impl Held<'_> {
    fn user(&self, warnings: &mut Vec<String>, used: &mut Option<Use>) -> Result<User, Refusal> {
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
