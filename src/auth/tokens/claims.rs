//! The claims of service account tokens, and the check that the objects they name still exist. Follows
//! k8s.io/kubernetes pkg/serviceaccount/{claims,legacy}.go.

mod last_use;
mod objects;

use compact_str::{CompactString, format_compact};

use self::last_use::Held;
use self::objects::{Look, Refusal};
use super::jwt;
use crate::auth::{User, accounts};
use crate::schema::{Object, Value};
use crate::store::World;

pub use self::last_use::{LAST_USED, Use};
pub use self::objects::Seen;

/// The clock skew that is tolerated, in seconds.
const LEEWAY: i64 = 60;
/// The issuer of tokens that secrets hold.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
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
