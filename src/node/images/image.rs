//! An image on this host, and its run configuration.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ImageError;
use super::keyring::{Access, Credentials};
use super::reference::Reference;

/// The run configuration of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// The user, as `USER[:GROUP]`.
    pub user: String,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// The program.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    pub cmd: Option<Vec<String>>,
    /// The working directory.
    pub working_dir: String,
    /// The signal that asks its process to end.
    pub stop_signal: Option<String>,
}

/// An image on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// `docker.io/library/busybox:latest`, ...
    pub names: Vec<String>,
    /// `docker.io/library/busybox@sha256:...`, ...
    pub digests: Vec<String>,
    /// Its run configuration.
    pub config: RunConfig,
    /// Its layers, lowest first.
    pub chains: Vec<String>,
    /// The total size of its layers in bytes.
    pub size: u64,
    /// When it was loaded or pulled.
    pub loaded: Timestamp,
    /// Whether it was pulled and can be pulled again; otherwise it was loaded manually.
    #[serde(default)]
    pub pulled: bool,
    /// Who may use it, by the repositories from which it was pulled for pods. None if it is not restricted: it is from
    /// an earlier version, or was fetched manually.
    #[serde(default)]
    pub access: Option<BTreeMap<String, Access>>,
}

impl Image {
    /// The image in `list` with this name, digest or id.
    ///
    /// # Errors
    /// [`ImageError::Name`]
    pub fn named<'i>(list: &'i [Image], name: &str) -> Result<Option<&'i Image>, ImageError> {
        let by_id = |image: &&Image| {
            image.id == name
                || image
                    .id
                    .strip_prefix("sha256:")
                    .is_some_and(|id| name.len() >= 12 && id.starts_with(name))
        };
        match Reference::parse(name) {
            Ok(reference) => {
                let full = reference.to_string();
                let digest = reference.by_digest();
                let named = list.iter().find(|image| match &digest {
                    Some(digest) => image.digests.contains(digest),
                    None => image.names.contains(&full),
                });
                Ok(named.or_else(|| list.iter().find(by_id)))
            }
            Err(error) => list.iter().find(by_id).map(Some).ok_or(error),
        }
    }

    /// The value of the label [`IMAGE_ID`](super::machine::IMAGE_ID) of containers that run it.
    pub fn label(&self) -> &str {
        self.digests.first().unwrap_or(&self.id)
    }

    /// Whether a pod with these credentials for a repository may use it under that repository's name.
    pub fn admits(&self, repository: &str, credentials: &[&Credentials]) -> bool {
        let Some(access) = self.access.as_ref().filter(|_| self.pulled) else {
            return true;
        };
        let access = access.get(repository);
        access.is_some_and(|access| access.admits(credentials))
    }

    /// Also admits those whom another record of it admits.
    pub(super) fn admit(&mut self, others: Option<BTreeMap<String, Access>>) {
        for (repository, access) in others.into_iter().flatten() {
            let own = self.access.get_or_insert_default().entry(repository);
            match own {
                Entry::Vacant(own) => drop(own.insert(access)),
                Entry::Occupied(mut own) => own.get_mut().extend(access),
            }
        }
    }

    /// Whether containers with such a label run it.
    pub fn has_label(&self, label: &str) -> bool {
        self.id == label || self.digests.iter().any(|digest| digest == label)
    }
}
