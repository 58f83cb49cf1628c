//! Image names, parsed like `github.com/distribution/reference`.

use super::ImageError;

/// A complete name: `busybox` becomes `docker.io/library/busybox:latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`
    pub registry: String,
    /// `library/busybox`
    pub repository: String,
    /// `latest`; None for a digest without a tag.
    pub tag: Option<String>,
    /// `sha256:...`
    pub digest: Option<String>,
}

impl Reference {
    /// Parses a name.
    ///
    /// # Errors
    /// [`ImageError::Name`].
    pub fn parse(name: &str) -> Result<Self, ImageError> {
        let wrong = || ImageError::Name {
            name: name.to_owned(),
        };
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (name, None),
        };
        if let Some(digest) = digest {
            let hex = digest.strip_prefix("sha256:").ok_or_else(wrong)?;
            if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(wrong());
            }
        }
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let first = tag
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            let fine = tag
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
            if !first || !fine || tag.len() > 128 {
                return Err(wrong());
            }
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first.to_owned(), rest.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), path.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{path}")),
        };
        let registry = match registry.as_str() {
            "index.docker.io" => "docker.io".to_owned(),
            _ => registry,
        };
        let part = |part: &str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
                && part.bytes().next().is_some_and(plain)
                && part.bytes().last().is_some_and(plain)
        };
        let host = registry
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
        if !host || !repository.split('/').all(part) || repository.len() > 255 {
            return Err(wrong());
        }
        Ok(Reference {
            registry,
            repository,
            tag: match (tag, digest) {
                (Some(tag), _) => Some(tag.to_owned()),
                (None, None) => Some("latest".to_owned()),
                (None, Some(_)) => None,
            },
            digest: digest.map(str::to_owned),
        })
    }

    /// `REGISTRY/REPOSITORY`
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `REGISTRY/REPOSITORY@DIGEST`, if it has a digest.
    pub fn by_digest(&self) -> Option<String> {
        self.digest
            .as_ref()
            .map(|digest| format!("{}@{digest}", self.name()))
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_whole_or_refused() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("busybox@{digest}");
        for (given, whole) in [
            (
                "busybox",
                Some("docker.io/library/busybox:latest".to_owned()),
            ),
            ("a/b:1", Some("docker.io/a/b:1".into())),
            ("localhost:5000/b", Some("localhost:5000/b:latest".into())),
            (
                "registry.k8s.io/pause:3.10",
                Some("registry.k8s.io/pause:3.10".into()),
            ),
            (
                &with_digest,
                Some(format!("docker.io/library/busybox@{digest}")),
            ),
            ("App", None),
            ("a b", None),
            ("", None),
            ("a/../b", None),
            ("a:", None),
            ("a@sha256:12", None),
        ] {
            let found = Reference::parse(given).ok().map(|found| found.to_string());
            assert_eq!(found, whole, "{given:?}");
        }
    }
}
