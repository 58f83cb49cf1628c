//! `reddwarf image load`: OCI layouts and docker archives, as directories or tar files.

mod documents;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use self::documents::{Configuration, DockerImage};
use super::{Access, Image, ImageError, Images, Reference, has_layer, unpack};
use crate::blocking::blocking;
use crate::storage::LayerDirectory;

pub use self::documents::{Manifest, chains_of, choose};

fn wrong(text: impl Into<String>) -> ImageError {
    ImageError::Content(text.into())
}

fn file(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |cause| ImageError::File {
        attempted,
        path,
        cause,
    }
}

/// The file of a blob; an invalid digest never becomes a path.
fn blob(directory: &Path, digest: &str) -> Result<PathBuf, ImageError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(directory.join("blobs/sha256").join(hex))
        }
        _ => Err(wrong(format!("{digest:?} is not a digest that is known"))),
    }
}

/// The content of a small blob, verified by its digest.
fn read_blob(directory: &Path, digest: &str) -> Result<Vec<u8>, ImageError> {
    let path = blob(directory, digest)?;
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(16 << 20).read_to_end(&mut text))
        .map_err(file("read", &path))?;
    match unpack::digest(&text) == digest {
        true => Ok(text),
        false => Err(wrong(format!("the content of {digest} has another digest"))),
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(|error| wrong(format!("{what}: {error}")))
}

/// How to record an image.
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// The digest of its manifest, if it has one.
    pub manifest: Option<&'a str>,
    /// Who may use it, if that is restricted.
    pub access: Option<Access>,
}

/// Opens a layer for reading, by its index.
pub type LayerSource<'a> =
    Box<dyn Fn(usize) -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'a>;

impl Images {
    /// Loads every image in an OCI layout or docker archive, under their own names or as `name`.
    ///
    /// # Errors
    /// [`ImageError::Content`] if the content does not match its digests; nothing is recorded then.
    pub async fn load(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        if path.is_dir() {
            return self.load_directory(path, name).await;
        }
        let scratch = self.records.join(format!(".load-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&scratch);
        let (from, to) = (path.to_owned(), scratch.clone());
        let extracted = blocking(move || extract(&from, &to)).await;
        let result = match extracted {
            Ok(()) => self.load_directory(&scratch, name).await,
            Err(error) => Err(error),
        };
        let _ = std::fs::remove_dir_all(&scratch);
        result
    }

    async fn load_directory(
        &self,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Vec<Image>, ImageError> {
        if path.join("index.json").exists() {
            return self.load_layout(path, name).await;
        }
        let manifest = path.join("manifest.json");
        if manifest.exists() {
            return self.load_docker(path, name).await;
        }
        Err(wrong(format!(
            "{} is neither an OCI layout (index.json) nor a docker archive (manifest.json)",
            path.display()
        )))
    }

    async fn load_layout(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let index = path.join("index.json");
        let text = std::fs::read(&index).map_err(file("read", &index))?;
        let index: Manifest = parse(&text, "index.json")?;
        let mut loaded = Vec::new();
        for descriptor in &index.manifests {
            let given = descriptor
                .annotations
                .get("io.containerd.image.name")
                .or_else(|| {
                    descriptor
                        .annotations
                        .get("org.opencontainers.image.ref.name")
                });
            let name = match (name, given) {
                (Some(name), _) => name.to_owned(),
                (None, Some(given)) => given.clone(),
                (None, None) => {
                    return Err(wrong(
                        "the layout does not name its image; give a name with --name",
                    ));
                }
            };
            let mut digest = descriptor.digest.clone();
            let mut manifest: Manifest = parse(&read_blob(path, &digest)?, "the manifest")?;
            if manifest.config.is_none() {
                let chosen = choose(&manifest.manifests)
                    .ok_or_else(|| wrong("no image of the index is for this machine"))?;
                digest = chosen.digest.clone();
                manifest = parse(&read_blob(path, &digest)?, "the manifest")?;
            }
            let config = manifest
                .config
                .ok_or_else(|| wrong("the manifest has no configuration"))?;
            let text = read_blob(path, &config.digest)?;
            let layers: Vec<PathBuf> = manifest
                .layers
                .iter()
                .map(|layer| blob(path, &layer.digest))
                .collect::<Result<_, _>>()?;
            let expected: Vec<Option<String>> = manifest
                .layers
                .iter()
                .map(|layer| Some(layer.digest.clone()))
                .collect();
            let source: LayerSource<'_> =
                Box::new(move |index: usize| Ok(Box::new(File::open(&layers[index])?) as _));
            loaded.push(
                self.install(
                    Entry {
                        name: &name,
                        manifest: Some(&digest),
                        access: None,
                    },
                    &config.digest,
                    &text,
                    &expected,
                    source,
                )
                .await?,
            );
        }
        match loaded.is_empty() {
            true => Err(wrong("the layout has no image")),
            false => Ok(loaded),
        }
    }

    async fn load_docker(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let manifest = path.join("manifest.json");
        let text = std::fs::read(&manifest).map_err(file("read", &manifest))?;
        let list: Vec<DockerImage> = parse(&text, "manifest.json")?;
        let inside = |name: &str| -> Result<PathBuf, ImageError> {
            let relative = Path::new(name);
            let fine = relative
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            match fine {
                true => Ok(path.join(relative)),
                false => Err(wrong(format!("{name:?} leads out of the archive"))),
            }
        };
        let mut loaded = Vec::new();
        for one in list {
            let names: Vec<String> = match name {
                Some(name) => vec![name.to_owned()],
                None => one.repo_tags.clone().unwrap_or_default(),
            };
            if names.is_empty() {
                return Err(wrong(
                    "the archive does not name its image; give a name with --name",
                ));
            }
            let at = inside(&one.config)?;
            let text = std::fs::read(&at).map_err(file("read", &at))?;
            let id = unpack::digest(&text);
            let paths: Vec<PathBuf> = one
                .layers
                .iter()
                .map(|layer| inside(layer))
                .collect::<Result<_, _>>()?;
            let expected = vec![None; paths.len()];
            for name in &names {
                let paths = paths.clone();
                let source: LayerSource<'_> =
                    Box::new(move |index: usize| Ok(Box::new(File::open(&paths[index])?) as _));
                let entry = Entry {
                    name,
                    manifest: None,
                    access: None,
                };
                loaded.push(self.install(entry, &id, &text, &expected, source).await?);
            }
        }
        Ok(loaded)
    }

    /// Unpacks missing layers, and records the image under the name in `entry`.
    ///
    /// # Errors
    /// [`ImageError::Content`] if a layer does not match `expected` and the configuration.
    pub async fn install(
        &self,
        entry: Entry<'_>,
        id: &str,
        configuration: &[u8],
        expected: &[Option<String>],
        source: LayerSource<'_>,
    ) -> Result<Image, ImageError> {
        let reference = Reference::parse(entry.name)?;
        let parsed: Configuration = parse(configuration, "the configuration")?;
        let diffs = parsed.rootfs.diff_ids;
        if diffs.len() != expected.len() {
            return Err(wrong(format!(
                "it has {} layers, and its configuration names {}",
                expected.len(),
                diffs.len()
            )));
        }
        let _adding = self.adding().await?;
        let chains = chains_of(configuration)?;
        let mut size = 0;
        for (index, (diff, expected)) in diffs.iter().zip(expected).enumerate() {
            let parent = index.checked_sub(1).map(|below| chains[below].clone());
            let chain = &chains[index];
            let _alone = self.alone(chain).await;
            if !has_layer(&self.engine.layers().await?, chain) {
                let to = self.engine.begin_layer(parent.as_deref(), chain).await?;
                let unpacked = self.unpack(index, to, &source, expected, diff).await;
                match unpacked {
                    Ok(bytes) => size += bytes,
                    Err(error) => {
                        // An invalid layer should not take up space; a failure to remove it matters less than the error
                        // itself.
                        let _ = self.engine.remove_layer(chain).await;
                        return Err(error);
                    }
                }
                self.engine.seal_layer(chain).await?;
            }
        }
        let digests = entry
            .manifest
            .map(|digest| format!("{}@{digest}", reference.name()))
            .into_iter()
            .chain(reference.by_digest())
            .collect::<std::collections::BTreeSet<_>>();
        let image = Image {
            id: id.to_owned(),
            names: match reference.tag {
                Some(_) => vec![format!(
                    "{}:{}",
                    reference.name(),
                    reference.tag.as_deref().unwrap_or_default()
                )],
                None => Vec::new(),
            },
            digests: digests.into_iter().collect(),
            config: parsed.config.unwrap_or_default(),
            chains,
            size,
            loaded: Timestamp::now(),
            pulled: false,
            access: entry
                .access
                .map(|access| BTreeMap::from([(reference.name(), access)])),
        };
        let own = self.clone();
        blocking(move || own.save(image)).await
    }
}

impl Images {
    /// Unpacks a layer and verifies it against manifest (`expected`) and configuration (`diff`). Returns its size.
    async fn unpack(
        &self,
        index: usize,
        to: LayerDirectory,
        source: &LayerSource<'_>,
        expected: &Option<String>,
        diff: &str,
    ) -> Result<u64, ImageError> {
        let named = |error: io::Error| wrong(format!("layer {index}: {error}"));
        let from = source(index).map_err(named)?;
        let unpacked = blocking(move || unpack::layer(from, &to)).await;
        let (own, inner, bytes) = unpacked.map_err(named)?;
        if expected.as_ref().is_some_and(|expected| *expected != own) {
            return Err(wrong(format!(
                "layer {index} has digest {own}, and the manifest says {}",
                expected.as_deref().unwrap_or_default()
            )));
        }
        if inner != *diff {
            return Err(wrong(format!(
                "layer {index} unpacks to {inner}, and the configuration says {diff}"
            )));
        }
        Ok(bytes)
    }
}

/// Extracts the regular files of a tar file into a directory.
fn extract(from: &Path, to: &Path) -> Result<(), ImageError> {
    let archive = File::open(from).map_err(file("read", from))?;
    std::fs::create_dir_all(to).map_err(file("make", to))?;
    let mut reader = io::BufReader::new(archive);
    let gzip = io::BufRead::fill_buf(&mut reader)
        .map_err(file("read", from))?
        .starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn Read> = match gzip {
        true => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        false => Box::new(reader),
    };
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(false);
    let whole = || -> io::Result<()> {
        for entry in archive.entries()? {
            let mut entry = entry?;
            let kind = entry.header().entry_type();
            if kind.is_file() || kind.is_dir() {
                // Rejects names that lead out of it.
                entry.unpack_in(to)?;
            } else if kind.is_symlink() || kind.is_hard_link() {
                return Err(io::Error::other(
                    "links are not expected in an image archive",
                ));
            }
        }
        Ok(())
    };
    let mut whole = whole;
    whole().map_err(|error| wrong(format!("{}: {error}", from.display())))
}
