//! Bootstrap tokens for new nodes: secrets in kube-system. Follows k8s.io/kubernetes
//! plugin/pkg/auth/authenticator/token/bootstrap and k8s.io/cluster-bootstrap/util/secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use compact_str::{CompactString, format_compact};

use super::same;
use crate::auth::User;
use crate::meta::time;
use crate::resources::cluster::object;
use crate::schema::Value;
use crate::store::World;

const SECRETS: &str = "/registry/secrets/";
const GROUP: &str = "system:bootstrappers";
/// The prefix of their secrets' names, followed by the token ID.
pub const PREFIX: &str = "bootstrap-token-";
/// The type of their secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";

/// The ID and secret of a token of the form `abcdef.0123456789abcdef`.
pub fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    (is_id(id) && secret.len() == 16 && is_small(secret)).then_some((id, secret))
}

/// Whether the text is a valid token ID.
pub fn is_id(text: &str) -> bool {
    text.len() == 6 && is_small(text)
}

fn is_small(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The user of a bootstrap token, if `world` has its secret and the token is valid at `now`.
pub fn user(world: &World, token: &str, now: i64) -> Option<User> {
    let (id, _) = parts(token)?;
    let key = format!("{SECRETS}kube-system/{PREFIX}{id}");
    let secret = object(world.get(SECRETS, &key)?);
    judged(&secret, token, now)
}

/// The user of a token with the ID in `secret`, if the token is valid.
fn judged(secret: &Value, token: &str, now: i64) -> Option<User> {
    let (id, given) = parts(token)?;
    let data = |key: &str| {
        STANDARD
            .decode(secret.at("data").str(key))
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default()
    };
    if secret.at("metadata").get("deletionTimestamp").is_some()
        || secret.str("type") != TYPE
        || !same(data("token-secret").as_bytes(), given.as_bytes())
        || data("token-id") != id
        || has_expired(&data("expiration"), now)
        || data("usage-bootstrap-authentication") != "true"
    {
        return None;
    }
    let mut groups = vec![CompactString::from(GROUP)];
    let extra = data("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return None;
        }
        groups.push(group.into());
    }
    groups.sort();
    groups.dedup();
    Some(User {
        name: format_compact!("system:bootstrap:{id}"),
        groups,
        ..User::default()
    })
}

/// An expiration that cannot be parsed counts as passed.
fn has_expired(expiration: &str, now: i64) -> bool {
    !expiration.is_empty() && !time::parse(expiration).is_ok_and(|at| at > now)
}

/// Whether a token may add this group to its user, in addition to `system:bootstrappers`.
pub fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else {
        return false;
    };
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":-".contains(&byte);
    (1..=256).contains(&rest.len())
        && rest.bytes().all(inner)
        && rest
            .bytes()
            .last()
            .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Object;

    fn secret(changes: &[(&str, &str)]) -> Value {
        let mut data: Object = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ]
        .into_iter()
        .map(|(key, value)| (key, STANDARD.encode(value)))
        .collect();
        for (key, value) in changes {
            data.insert(*key, STANDARD.encode(value));
        }
        let mut secret = Object::new();
        secret.insert("metadata", Object::new());
        secret.insert("type", "bootstrap.kubernetes.io/token");
        secret.insert("data", data);
        Value::Object(secret)
    }

    #[test]
    fn a_token_is_good_if_all_of_its_secret_is() {
        const TOKEN: &str = "abcdef.0123456789abcdef";
        for (changes, token, groups) in [
            (&[][..], TOKEN, Some("system:bootstrappers")),
            (
                &[(
                    "auth-extra-groups",
                    "system:bootstrappers:x,system:bootstrappers:a:b-c",
                )],
                TOKEN,
                Some("system:bootstrappers system:bootstrappers:a:b-c system:bootstrappers:x"),
            ),
            (&[("auth-extra-groups", "system:masters")], TOKEN, None),
            (
                &[("auth-extra-groups", "system:bootstrappers:")],
                TOKEN,
                None,
            ),
            (
                &[("auth-extra-groups", "system:bootstrappers:a-")],
                TOKEN,
                None,
            ),
            (
                &[("expiration", "1970-01-01T00:00:11Z")],
                TOKEN,
                Some("system:bootstrappers"),
            ),
            (&[("expiration", "1970-01-01T00:00:10Z")], TOKEN, None),
            (&[("expiration", "soon")], TOKEN, None),
            (&[("usage-bootstrap-authentication", "True")], TOKEN, None),
            (&[("token-id", "abcdeg")], TOKEN, None),
            (&[], "abcdef.0123456789abcdeg", None),
            (&[], "abcdef.0123456789abcde", None),
            (&[], "abcdef.0123456789abcdefg", None),
            (&[], "ABCDEF.0123456789abcdef", None),
            (&[], "abcdef", None),
        ] {
            let user = judged(&secret(changes), token, 10);
            let told = user.map(|user| user.groups.join(" "));
            assert_eq!(told.as_deref(), groups, "{changes:?} {token}");
        }
        let mut ends = secret(&[]);
        ends.object_mut()
            .object_mut("metadata")
            .insert("deletionTimestamp", "1970-01-01T00:00:00Z");
        assert_eq!(judged(&ends, TOKEN, 10), None);
        let mut other = secret(&[]);
        other.set("type", "Opaque");
        assert_eq!(judged(&other, TOKEN, 10), None);
    }
}
