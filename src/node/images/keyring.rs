//! Credentials of pods for registries. Follows pkg/credentialprovider.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::unpack;

/// What credentials of no other registry are tried for, where images name none.
const DEFAULT: &str = "index.docker.io";

/// A secret that credentials were in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of the credentials that were in it.
    pub hash: String,
}

impl Holder {
    /// Whether who has this secret may use what was pulled with the other: the same, changed or not, or what is the same.
    fn is_as_good_as(&self, other: &Holder) -> bool {
        let is_same =
            (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name);
        is_same || self.hash == other.hash
    }
}

/// Who may use an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Its registry gave it to nobody in particular.
    Anyone,
    /// Who has one of these.
    Holders(Vec<Holder>),
}

impl Access {
    /// Whether one of these credentials is enough.
    pub fn admits(&self, credentials: &[&Credentials]) -> bool {
        match self {
            Access::Anyone => true,
            Access::Holders(holders) => credentials.iter().any(|own| {
                let mut holders = holders.iter();
                holders.any(|holder| own.holder.is_as_good_as(holder))
            }),
        }
    }

    /// Admits whom the other admits, too.
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

/// Who asks a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password or token.
    pub password: String,
    /// Where they are from.
    pub holder: Holder,
}

/// Credentials by what they are for: `HOST`, `HOST:PORT`, `HOST/PATH`, `*.DOMAIN`.
#[derive(Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Credentials>>);

impl Keyring {
    /// Adds those of a secret: the content of its `.dockerconfigjson` or `.dockercfg`.
    ///
    /// # Errors
    /// What is wrong with the text.
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

    /// Those for a repository (`HOST/PATH`), what is for most of its name first.
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

/// What a key of a secret is for: without its scheme, and without the version of an API.
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

/// Whether what is for a place is for a repository: hosts are compared part by part, in which `*` is anything; the path
/// begins the other.
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

/// Whether a text is as a pattern says, in which `*` is anything and `?` one character.
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
