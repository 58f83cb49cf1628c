//! Who a request wants to be.

use compact_str::CompactString;
use http::HeaderMap;

use super::super::User;
use crate::meta::errors::quoted;
use crate::meta::{Status, url};

pub(super) const GROUP: &str = "authentication.k8s.io";

const EXTRA: &str = "impersonate-extra-";

/// The user to impersonate, exactly as in the headers; `None` without such headers. Removes the
/// headers.
///
/// # Errors
/// 400 for groups, a uid or extras without a user.
pub fn wanted(headers: &mut HeaderMap) -> Result<Option<User>, Status> {
    if !headers
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"))
    {
        return Ok(None);
    }
    let text =
        |value: &http::HeaderValue| CompactString::from(String::from_utf8_lossy(value.as_bytes()));
    let first = |name| headers.get(name).map(text).unwrap_or_default();
    let mut user = User {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: headers
            .get_all("impersonate-group")
            .iter()
            .map(text)
            .collect(),
        ..User::default()
    };
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else {
            continue;
        };
        let key = unescaped(key);
        let mut values = user.extra(&key).to_vec();
        values.extend(headers.get_all(name).iter().map(text));
        user.set_extra(&key, values);
    }
    if user.name.is_empty() {
        if user == User::default() {
            return Ok(None);
        }
        return Err(Status::bad_request(format!(
            "requested {} without impersonating a user name",
            shown(&user)
        )));
    }
    let names: Vec<_> = headers
        .keys()
        .filter(|name| {
            matches!(
                name.as_str(),
                "impersonate-user" | "impersonate-uid" | "impersonate-group"
            ) || name.as_str().starts_with(EXTRA)
        })
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Some(user))
}

/// Decodes percent-encoding in a key; returns it unchanged if malformed.
pub(crate) fn unescaped(key: &str) -> String {
    url::path_unescape(key).unwrap_or_else(|_| key.to_owned())
}

/// A user as printed by Go's `%#v`.
fn shown(user: &User) -> String {
    let list = |values: &[CompactString]| {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        format!("[]string{{{}}}", values.join(", "))
    };
    let groups = if user.groups.is_empty() {
        "[]string(nil)".to_owned()
    } else {
        list(&user.groups)
    };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let members: Vec<String> = user
            .extra
            .iter()
            .map(|(key, values)| format!("{}:{}", quoted(key), list(values)))
            .collect();
        format!("map[string][]string{{{}}}", members.join(", "))
    };
    format!(
        "&user.DefaultInfo{{Name:{}, UID:{}, Groups:{groups}, Extra:{extra}}}",
        quoted(&user.name),
        quoted(&user.uid)
    )
}
