//! Names of datasets (`zfs_namecheck.c`, `zfs_validate_name`).

use crate::fakehost::host::Host;

/// The longest name in bytes, including the snapshot part.
const LONGEST: usize = 255;
/// The most components of a name.
const DEEPEST: usize = 50;

/// What is wrong with the name of a file system, or of a snapshot.
pub fn wrong(name: &str, snapshot: bool) -> Option<String> {
    if name.len() > LONGEST {
        return Some("name is too long".to_owned());
    }
    if name.is_empty() {
        return Some("empty component in name".to_owned());
    }
    let (dataset, tail) = match name.split_once('@') {
        Some((dataset, tail)) => (dataset, Some(tail)),
        None => (name, None),
    };
    if dataset.starts_with('/') {
        return Some("leading slash in name".to_owned());
    }
    if dataset.ends_with('/') {
        return Some("trailing slash in name".to_owned());
    }
    if tail.is_some_and(|tail| tail.contains('@')) {
        return Some("multiple '@' delimiters in name".to_owned());
    }
    if let Some(letter) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "-_.: /@".contains(*c)))
        .or_else(|| tail.is_some_and(|tail| tail.contains('/')).then_some('/'))
    {
        return Some(format!("invalid character '{letter}' in name"));
    }
    if dataset.split('/').any(str::is_empty) || tail.is_some_and(str::is_empty) {
        return Some("empty component in name".to_owned());
    }
    if dataset.split('/').any(|c| c == "." || c == "..") {
        return Some("self reference, '.' is found in name".to_owned());
    }
    if !dataset.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Some("pool doesn't begin with a letter".to_owned());
    }
    if dataset.split('/').count() > DEEPEST {
        return Some("name is too long".to_owned());
    }
    match (snapshot, tail) {
        (false, Some(_)) => Some("snapshot delimiter '@' is not expected here".to_owned()),
        (true, None) => Some("missing '@' delimiter in snapshot name".to_owned()),
        _ => None,
    }
}

/// The parent dataset, except for a pool's.
pub fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(parent, _)| parent)
}

/// The pool of a dataset or snapshot.
pub fn pool(name: &str) -> &str {
    name.split(['/', '@']).next().unwrap_or(name)
}

/// Whether `name` is `top` or below it.
pub fn is_below(name: &str, top: &str) -> bool {
    name.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Host {
    /// Whether a pool exists and is imported.
    pub fn has_pool(&self, name: &str) -> bool {
        self.pools.get(name).is_some_and(|pool| pool.imported)
    }

    /// Whether a file system exists.
    pub fn has_dataset(&self, name: &str) -> bool {
        self.has_pool(pool(name)) && self.datasets.contains_key(name)
    }

    /// Whether a file system or snapshot exists.
    pub fn has_zfs(&self, name: &str) -> bool {
        match name.split_once('@') {
            Some((dataset, snapshot)) => {
                self.has_dataset(dataset)
                    && self.datasets[dataset]
                        .snapshots
                        .iter()
                        .any(|s| s.name == snapshot)
            }
            None => self.has_dataset(name),
        }
    }

    /// Checks that a file system, or a snapshot if allowed, exists.
    ///
    /// # Errors
    /// The text after `cannot open`.
    pub fn open_zfs(&self, name: &str, snapshot: bool) -> Result<(), String> {
        if let Some(wrong) = wrong(name, snapshot) {
            return Err(format!("cannot open '{name}': {wrong}"));
        }
        if !self.has_zfs(name) {
            return Err(format!("cannot open '{name}': dataset does not exist"));
        }
        Ok(())
    }

    /// A file system and its descendants, sorted by name: a parent comes before its children.
    pub fn tree(&self, top: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .datasets
            .keys()
            .filter(|name| is_below(name, top))
            .cloned()
            .collect();
        names.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        names
    }

    /// The clones of a snapshot.
    pub fn clones(&self, snapshot: &str) -> Vec<String> {
        self.datasets
            .iter()
            .filter(|(_, d)| d.origin.as_deref() == Some(snapshot))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::wrong;

    #[test]
    fn names_are_judged_as_zfs_does() {
        let long = format!("tank/{}", "a".repeat(251));
        let deep = vec!["a"; 51].join("/");
        for (name, snapshot, text) in [
            ("tank/sha256-ab", false, None),
            ("tank/a:b", false, None),
            ("tank/x@ready", true, None),
            (&long[..255], false, None),
            (&long, false, Some("name is too long")),
            (&deep, false, Some("name is too long")),
            ("/tank", false, Some("leading slash in name")),
            ("tank/", false, Some("trailing slash in name")),
            ("tank//x", false, Some("empty component in name")),
            ("tank/a%b", false, Some("invalid character '%' in name")),
            ("tank/é", false, Some("invalid character 'é' in name")),
            ("1tank/x", false, Some("pool doesn't begin with a letter")),
            (
                "tank@a",
                false,
                Some("snapshot delimiter '@' is not expected here"),
            ),
            ("tank@a@b", true, Some("multiple '@' delimiters in name")),
            (
                "tank/x",
                true,
                Some("missing '@' delimiter in snapshot name"),
            ),
        ] {
            assert_eq!(wrong(name, snapshot).as_deref(), text, "{name}");
        }
    }
}
