//! Registry credentials of pods. Follows pkg/credentialprovider.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::unpack;

/// The registry whose credentials are tried for images without a registry in their name.
const DEFAULT: &str = "index.docker.io";

/// A secret that contained credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A hash of the credentials in it.
    pub hash: String,
}

impl Holder {
    /// Whether a pod with this secret may use an image that was pulled with the other: it is the same secret, changed
    /// or not, or has the same credentials.
    fn is_as_good_as(&self, other: &Holder) -> bool {
        let is_same =
            (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name);
        is_same || self.hash == other.hash
    }
}

/// Who may use an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Everybody: its registry needs no credentials.
    Anyone,
    /// Pods with one of these secrets.
    Holders(Vec<Holder>),
}

impl Access {
    /// Whether one of these credentials grants access.
    pub fn admits(&self, credentials: &[&Credentials]) -> bool {
        match self {
            Access::Anyone => true,
            Access::Holders(holders) => credentials.iter().any(|own| {
                let mut holders = holders.iter();
                holders.any(|holder| own.holder.is_as_good_as(holder))
            }),
        }
    }

    /// Also admits those whom the other admits.
    pub fn extend(&mut self, other: Access) {
        match (&mut *self, other) {
            (Access::Anyone, _) => {}
            (Access::Holders(_), Access::Anyone) => *self = Access::Anyone,
            (Access::Holders(own), Access::Holders(others)) => {
                own.retain(|holder| !others.contains(holder));
                own.extend(others);
            }
        }
    }
}

/// The credentials for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password or token.
    pub password: String,
    /// The secret that they come from.
    pub holder: Holder,
}

/// Credentials by the registry that they are for: `HOST`, `HOST:PORT`, `HOST/PATH`, `*.DOMAIN`.
#[derive(Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Credentials>>);

impl Keyring {
    /// Adds the credentials of a secret: the content of its `.dockerconfigjson` or `.dockercfg`.
    ///
    /// # Errors
    /// The text is malformed.
    pub fn add(&mut self, secret: &Holder, text: &[u8]) -> Result<(), String> {
        let parsed: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let listed = parsed.get("auths").unwrap_or(&parsed);
        for (key, value) in listed.as_object().into_iter().flatten() {
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            let joined = STANDARD.decode(text("auth")).ok();
            let joined = joined.and_then(|bytes| String::from_utf8(bytes).ok());
            let (user, password) = match joined.as_deref().and_then(|one| one.split_once(':')) {
                Some((user, password)) => (user.to_owned(), password.to_owned()),
                None => (text("username"), text("password")),
            };
            if user.is_empty() {
                continue;
            }
            let hash = unpack::digest(format!("{user}\0{password}").as_bytes());
            let holder = Holder {
                hash,
                ..secret.clone()
            };
            self.0.entry(place(key)).or_default().push(Credentials {
                user,
                password,
                holder,
            });
        }
        Ok(())
    }

    /// The credentials for a repository (`HOST/PATH`), the most specific ones first.
    pub fn lookup(&self, repository: &str) -> Vec<&Credentials> {
        let places = self.0.iter().rev();
        let found: Vec<&Credentials> = places
            .filter(|(place, _)| is_for(place, repository))
            .flat_map(|(_, all)| all)
            .collect();
        let is_default = repository.starts_with("docker.io/");
        match self
            .0
            .get(DEFAULT)
            .filter(|_| found.is_empty() && is_default)
        {
            Some(all) => all.iter().collect(),
            None => found,
        }
    }
}

/// The registry in a key of a secret: without scheme and API version.
fn place(key: &str) -> String {
    let plain = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let plain = plain.unwrap_or(key);
    let (host, path) = match plain.find('/') {
        Some(at) => plain.split_at(at),
        None => (plain, ""),
    };
    let version = ["/v1/", "/v2/"]
        .into_iter()
        .find(|version| path.starts_with(version));
    let path = version.map_or(path, |_| &path[3..]);
    match path {
        "" | "/" => host.to_owned(),
        path => format!("{host}{path}"),
    }
}

/// Whether credentials for a registry apply to a repository: host names are compared label by label, where `*` matches
/// anything; the path must be a prefix.
fn is_for(place: &str, repository: &str) -> bool {
    let split = |whole: &str| {
        let (host, path) = whole.split_once('/').unwrap_or((whole, ""));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
        (parts, port.to_owned(), path.to_owned())
    };
    let (glob, glob_port, glob_path) = split(place);
    let (host, port, path) = split(repository);
    glob_port == port
        && glob.len() == host.len()
        && path.starts_with(&glob_path)
        && glob
            .iter()
            .zip(&host)
            .all(|(glob, part)| matches(glob.as_bytes(), part.as_bytes()))
}

/// Whether a text matches a pattern with `*` for any text and `?` for one character.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, text)| matches(pattern, text))
        }
        (Some((b'?', rest)), Some((_, text))) => matches(rest, text),
        (Some((one, rest)), Some((other, text))) => one == other && matches(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str, hash: &str) -> Holder {
        let [uid, namespace] = ["u", "n"].map(str::to_owned);
        let [name, hash] = [name, hash].map(str::to_owned);
        Holder {
            uid,
            namespace,
            name,
            hash,
        }
    }

    #[test]
    fn credentials_are_found_by_what_they_are_for() {
        let auth = STANDARD.encode("hub:se:cret");
        let text = format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "localhost:5000": {{"username": "port", "password": "p"}},
                "ghcr.io/a": {{"username": "a", "password": "p"}},
                "https://ghcr.io/a/b": {{"username": "b", "password": "p"}},
                "ghcr.io": {{"username": "all", "password": "p"}},
                "*.example.org/v2/": {{"username": "glob", "password": "p"}},
                "empty": {{}}}}}}"#
        );
        let mut keyring = Keyring::default();
        keyring
            .add(&holder("one", ""), text.as_bytes())
            .expect("sound");
        let more = br#"{"ghcr.io": {"username": "other", "password": "p"}}"#;
        keyring.add(&holder("two", ""), more).expect("sound");
        for (repository, expected) in [
            ("docker.io/library/busybox", &["hub"][..]),
            ("localhost:5000/x", &["port"]),
            ("localhost/x", &[]),
            ("ghcr.io/a/b/c", &["b", "a", "all", "other"]),
            ("ghcr.io/c", &["all", "other"]),
            ("eu.example.org/x", &["glob"]),
            ("example.org/x", &[]),
            ("empty/x", &[]),
        ] {
            let found = keyring.lookup(repository).into_iter();
            let users: Vec<_> = found.map(|one| one.user.as_str()).collect();
            assert_eq!(users, expected, "{repository}");
        }
        let hub = keyring.lookup("docker.io/library/busybox")[0];
        assert_eq!((&*hub.password, &*hub.holder.name), ("se:cret", "one"));
        assert!(
            Keyring::default()
                .add(&holder("bad", ""), b"nonsense")
                .is_err()
        );
    }

    #[test]
    fn an_image_is_for_those_whose_secrets_fetched_it() {
        let own = |name: &str, hash: &str| Credentials {
            user: String::new(),
            password: String::new(),
            holder: holder(name, hash),
        };
        let mut access = Access::Holders(vec![holder("a", "1")]);
        for (credentials, expected) in [
            (own("a", "1"), true),
            (own("a", "2"), true),
            (own("b", "1"), true),
            (own("b", "2"), false),
        ] {
            assert_eq!(access.admits(&[&credentials]), expected, "{credentials:?}");
        }
        assert!(!access.admits(&[]));
        access.extend(Access::Holders(vec![holder("b", "2"), holder("a", "1")]));
        let both = vec![holder("b", "2"), holder("a", "1")];
        assert_eq!(access, Access::Holders(both));
        access.extend(Access::Anyone);
        access.extend(Access::Holders(Vec::new()));
        assert!(access.admits(&[]));
    }
}
