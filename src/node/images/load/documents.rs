//! The documents that describe an image.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::super::{ImageError, RunConfig, unpack};
use super::{blob, parse};

/// A digest and information about its content.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// `sha256:...`
    pub digest: String,
    /// Its size in bytes as transferred; 0 if unknown.
    #[serde(default)]
    pub size: u64,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The platform that it is for.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// A platform.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Platform {
    /// `amd64`
    pub architecture: String,
    /// `linux`
    pub os: String,
}

/// An index or a manifest.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// Manifests of an index.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The configuration.
    #[serde(default)]
    pub config: Option<Descriptor>,
    /// Layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    #[serde(default)]
    pub(super) config: Option<RunConfig>,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}

/// An entry in the `manifest.json` of a docker archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

/// The manifest in an index that is for this platform.
pub fn choose(list: &[Descriptor]) -> Option<&Descriptor> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    list.iter()
        .find(|one| {
            one.platform
                .as_ref()
                .is_some_and(|platform| platform.os == "linux" && platform.architecture == own)
        })
        .or_else(|| list.iter().find(|one| one.platform.is_none()))
}

/// The chain IDs of the layers in a configuration: each is the digest of a layer and all below it.
///
/// # Errors
/// [`ImageError::Content`].
pub fn chains_of(configuration: &[u8]) -> Result<Vec<String>, ImageError> {
    let parsed: Configuration = parse(configuration, "the configuration")?;
    let mut chains: Vec<String> = Vec::new();
    for diff in parsed.rootfs.diff_ids {
        let chain = match chains.last() {
            None => diff,
            Some(parent) => unpack::digest(format!("{parent} {diff}").as_bytes()),
        };
        // Digests become directory names.
        blob(Path::new(""), &chain)?;
        chains.push(chain);
    }
    Ok(chains)
}
