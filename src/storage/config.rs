//! Locations of stored data in a pool.

use std::path::PathBuf;

/// The datasets (ZFS) or directories of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePoolConfig {
    /// The pool: a ZFS pool or dataset, or a directory.
    pub pool: String,
    /// Roots of zones and processes.
    pub zones: String,
    /// Layers of images.
    pub images: String,
    /// Persistent volumes.
    pub volumes: String,
}

/// Why a storage configuration is invalid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Two of the locations are the same, or one contains the other.
    #[error(
        "{first} and {second} overlap: {value:?} would contain both; give each a separate place"
    )]
    Overlap {
        /// A flag.
        first: &'static str,
        /// Another.
        second: &'static str,
        /// The common location.
        value: String,
    },
    /// An invalid name.
    #[error("{flag} {value:?} is not usable: {reason}")]
    Name {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl StoragePoolConfig {
    /// `{pool}/zones`, `{pool}/images` and `{pool}/volumes`, unless a value is given.
    ///
    /// # Errors
    /// [`ConfigError`], naming the flags.
    pub fn derive(
        pool: &str,
        zones: Option<&str>,
        images: Option<&str>,
        volumes: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let base = if pool.len() > 1 {
            pool.trim_end_matches('/')
        } else {
            pool
        };
        let named = [
            ("--storage-pool", base.to_owned()),
            (
                "--zones-dataset",
                zones.map_or(format!("{base}/zones"), str::to_owned),
            ),
            (
                "--images-dataset",
                images.map_or(format!("{base}/images"), str::to_owned),
            ),
            (
                "--volumes-dataset",
                volumes.map_or(format!("{base}/volumes"), str::to_owned),
            ),
        ];
        for (flag, value) in &named {
            let wrong = |reason| ConfigError::Name {
                flag,
                value: value.clone(),
                reason,
            };
            if value.is_empty() {
                return Err(wrong("it is empty"));
            }
            if value.split('/').any(|part| part == ".." || part == ".") {
                return Err(wrong("`.` and `..` are not allowed"));
            }
            if value.chars().any(char::is_control) {
                return Err(wrong("it has control characters"));
            }
        }
        for (index, (first, one)) in named.iter().enumerate().skip(1) {
            for (second, other) in &named[index + 1..] {
                let inside = |outer: &str, inner: &str| {
                    outer == inner
                        || inner
                            .strip_prefix(outer)
                            .is_some_and(|rest| rest.starts_with('/'))
                };
                if inside(one, other) || inside(other, one) {
                    return Err(ConfigError::Overlap {
                        first,
                        second,
                        value: if one.len() < other.len() { one } else { other }.clone(),
                    });
                }
            }
        }
        let [(_, pool), (_, zones), (_, images), (_, volumes)] = named;
        Ok(StoragePoolConfig {
            pool,
            zones,
            images,
            volumes,
        })
    }

    /// The locations as directories.
    pub fn directories(&self) -> [PathBuf; 3] {
        [&self.zones, &self.images, &self.volumes].map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_are_derived_overridden_and_kept_apart() {
        let derived = StoragePoolConfig::derive("rpool/rd", None, None, None).expect("fine");
        assert_eq!(derived.zones, "rpool/rd/zones");
        let own =
            StoragePoolConfig::derive("rpool", None, Some("fast/images"), None).expect("fine");
        assert_eq!(
            (own.images.as_str(), own.volumes.as_str()),
            ("fast/images", "rpool/volumes")
        );
        for (zones, images, error) in [
            ("a/b", "a/b", "--zones-dataset and --images-dataset overlap"),
            (
                "a/b",
                "a/b/c",
                "--zones-dataset and --images-dataset overlap",
            ),
            ("a/../b", "x", "--zones-dataset \"a/../b\" is not usable"),
            ("", "x", "it is empty"),
        ] {
            let found = StoragePoolConfig::derive("p", Some(zones), Some(images), None)
                .expect_err("refused")
                .to_string();
            assert!(found.contains(error), "{found}");
        }
        StoragePoolConfig::derive("p", Some("a/b"), Some("a/bc"), None).expect("not inside");
    }
}
