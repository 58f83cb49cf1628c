//! Volumes: made before the zone, brought up to date while it runs.
//!
//! What comes from the API (configMap, secret, projected, downwardAPI) changes all at once: files are links to
//! `..data/FILE`, `..data` is a link to a directory of one version, and a new version is one rename.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, PersistentVolume,
    PersistentVolumeClaim, Pod, PodSpec, Secret, ServiceAccount, ServiceAccountTokenProjection,
    Volume,
};
use kube::api::{Api, PostParams};

use super::{Host, text, uid};
use crate::meta::quantity::Quantity;
use crate::node::supplies::Lack;
use crate::node::volumes::DRIVER;
use crate::storage::beneath;

/// The content of a volume: files by path, each with its mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

fn lack(message: impl Into<String>) -> Lack {
    Lack::new("FailedMount", message)
}

/// A path in a volume, which never leads out of it.
fn checked(path: &str) -> Result<&str, String> {
    let fine = !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        && !path.starts_with("..");
    match fine {
        true => Ok(path),
        false => Err(format!("invalid path: {path:?}")),
    }
}

/// Replaces what a volume holds, if it is something else. `group` may read everything.
fn write(directory: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let data = directory.join("..data");
    if holds(&data, files) {
        return Ok(());
    }
    let stamp = Timestamp::now()
        .strftime("..%Y_%m_%d_%H_%M_%S.%f")
        .to_string();
    let version = directory.join(&stamp);
    let _ = std::fs::remove_dir_all(&version);
    std::fs::create_dir(&version)?;
    std::fs::set_permissions(&version, std::fs::Permissions::from_mode(0o755))?;
    let owner = |path: &Path| -> io::Result<()> {
        match group {
            Some(group) => std::os::unix::fs::chown(path, None, Some(group)),
            None => Ok(()),
        }
    };
    owner(&version)?;
    for (path, (content, mode)) in files {
        let whole = version.join(path);
        if let Some(parent) = whole.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&whole, content)?;
        owner(&whole)?;
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        std::fs::set_permissions(&whole, std::fs::Permissions::from_mode(mode))?;
    }
    let before = std::fs::read_link(&data).ok();
    let link = directory.join("..data_tmp");
    let _ = std::fs::remove_file(&link);
    symlink(&stamp, &link)?;
    std::fs::rename(&link, &data)?;
    let tops: std::collections::BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for top in &tops {
        let shown = directory.join(top);
        if std::fs::symlink_metadata(&shown).is_err() {
            symlink(Path::new("..data").join(top), shown)?;
        }
    }
    for entry in std::fs::read_dir(directory)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !tops.contains(name.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    if let Some(before) = before {
        let _ = std::fs::remove_dir_all(directory.join(before));
    }
    Ok(())
}

/// Whether a version holds just these files.
fn holds(data: &Path, files: &Files) -> bool {
    if !data.exists() {
        return false;
    }
    let mut count = 0;
    let mut left = vec![data.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count == files.len()
        && files.iter().all(|(path, (content, _))| {
            std::fs::read(data.join(path)).is_ok_and(|found| found == *content)
        })
}

/// The keys that a volume shows, under the paths that it gives them.
fn chosen(
    values: BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
    what: &str,
) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return values
            .into_iter()
            .map(|(key, value)| Ok((checked(&key)?.to_owned(), (value, mode as u32))))
            .collect();
    };
    let mut files = Files::new();
    for item in items {
        match values.get(&item.key) {
            Some(value) => {
                let mode = item.mode.unwrap_or(mode) as u32;
                files.insert(checked(&item.path)?.to_owned(), (value.clone(), mode));
            }
            None if optional => {}
            None => {
                return Err(format!(
                    "{what} references non-existent config key: {}",
                    item.key
                ));
            }
        }
    }
    Ok(files)
}

fn of_map(map: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.into_bytes()));
    let binary = map
        .binary_data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.0));
    text.chain(binary).collect()
}

fn of_secret(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    secret
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.0))
        .collect()
}

impl Host {
    /// Where a volume is: what comes from the API where it is only read.
    pub(super) fn volume_directory(&self, pod: &Pod, volume: &Volume) -> PathBuf {
        let above = match volume.empty_dir {
            Some(_) => self.writable(uid(pod)),
            None => self.pod_directory(uid(pod)),
        };
        above.join("volumes").join(&volume.name)
    }

    /// Where the volumes that the pod claims are.
    pub(super) async fn claims(&self, pod: &Pod) -> Result<Vec<PathBuf>, Lack> {
        let mut paths = Vec::new();
        for volume in pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
        {
            if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
                paths.push(self.claimed(pod, volume).await?);
            }
        }
        Ok(paths)
    }

    /// Makes what is missing of the pod's volumes and writes what comes from the API.
    pub(super) async fn write_volumes(&self, pod: &Pod, first: bool) -> Result<(), Lack> {
        let spec = pod.spec.clone().unwrap_or_default();
        let context = spec.security_context.clone().unwrap_or_default();
        let group = context.fs_group.and_then(|group| u32::try_from(group).ok());
        for volume in spec.volumes.iter().flatten() {
            let directory = self.volume_directory(pod, volume);
            let told = |error: String| {
                lack(format!(
                    "MountVolume.SetUp failed for volume {:?} : {error}",
                    volume.name
                ))
            };
            if volume.empty_dir.is_some() {
                if first && !directory.exists() {
                    let name = Path::new("volumes").join(&volume.name);
                    let writable = self.writable(uid(pod));
                    // Whoever runs in the pod may have put links there.
                    let made = || -> io::Result<()> {
                        let made = beneath::make_directory(&writable, &name, 0o777)?;
                        if let Some(group) = group {
                            let group = rustix::fs::Gid::from_raw(group);
                            rustix::fs::fchown(&made, None, Some(group))?;
                            let mode = rustix::fs::Mode::from_raw_mode(0o2777);
                            rustix::fs::fchmod(&made, mode)?;
                        }
                        Ok(())
                    };
                    made().map_err(|error| told(error.to_string()))?;
                }
            } else if let Some(of) = &volume.host_path {
                if first {
                    host_path(of).map_err(told)?;
                }
            } else if let Some(files) = self.content(pod, volume).await.map_err(told)? {
                let written =
                    tokio::task::spawn_blocking(move || write(&directory, &files, group)).await;
                written
                    .map_err(|error| told(error.to_string()))?
                    .map_err(|error| told(error.to_string()))?;
            } else if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
                self.claimed(pod, volume).await?;
            } else {
                return Err(told("this node does not offer volumes of this kind".into()));
            }
        }
        Ok(())
    }

    async fn map(
        &self,
        pod: &Pod,
        name: &str,
        optional: bool,
    ) -> Result<Option<ConfigMap>, String> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        match api.get_opt(name).await.map_err(|error| error.to_string())? {
            None if !optional => Err(format!("configmap {name:?} not found")),
            found => Ok(found),
        }
    }

    async fn secret(
        &self,
        pod: &Pod,
        name: &str,
        optional: bool,
    ) -> Result<Option<Secret>, String> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        match api.get_opt(name).await.map_err(|error| error.to_string())? {
            None if !optional => Err(format!("secret {name:?} not found")),
            found => Ok(found),
        }
    }

    fn downward(
        &self,
        pod: &Pod,
        items: &[DownwardAPIVolumeFile],
        mode: i32,
    ) -> Result<Files, String> {
        let mut files = Files::new();
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(of), _) => self.field(pod, None, of)?,
                (_, Some(of)) => self.resource(pod, None, of)?,
                _ => String::new(),
            };
            let mode = item.mode.unwrap_or(mode) as u32;
            files.insert(checked(&item.path)?.to_owned(), (value.into_bytes(), mode));
        }
        Ok(files)
    }

    /// What a volume that comes from the API is to hold; nothing if it is of another kind.
    async fn content(&self, pod: &Pod, volume: &Volume) -> Result<Option<Files>, String> {
        if let Some(of) = &volume.config_map {
            let optional = of.optional == Some(true);
            let values = self
                .map(pod, &of.name, optional)
                .await?
                .map(of_map)
                .unwrap_or_default();
            return chosen(
                values,
                of.items.as_ref(),
                of.default_mode.unwrap_or(0o644),
                optional,
                "configmap",
            )
            .map(Some);
        }
        if let Some(of) = &volume.secret {
            let optional = of.optional == Some(true);
            let name = text(of.secret_name.as_ref());
            let values = self
                .secret(pod, name, optional)
                .await?
                .map(of_secret)
                .unwrap_or_default();
            return chosen(
                values,
                of.items.as_ref(),
                of.default_mode.unwrap_or(0o644),
                optional,
                "secret",
            )
            .map(Some);
        }
        if let Some(of) = &volume.downward_api {
            let items = of.items.clone().unwrap_or_default();
            return self
                .downward(pod, &items, of.default_mode.unwrap_or(0o644))
                .map(Some);
        }
        let Some(of) = &volume.projected else {
            return Ok(None);
        };
        let mode = of.default_mode.unwrap_or(0o644);
        let mut files = Files::new();
        for source in of.sources.iter().flatten() {
            if let Some(of) = &source.config_map {
                let optional = of.optional == Some(true);
                let values = self
                    .map(pod, &of.name, optional)
                    .await?
                    .map(of_map)
                    .unwrap_or_default();
                files.extend(chosen(
                    values,
                    of.items.as_ref(),
                    mode,
                    optional,
                    "configmap",
                )?);
            }
            if let Some(of) = &source.secret {
                let optional = of.optional == Some(true);
                let values = self
                    .secret(pod, &of.name, optional)
                    .await?
                    .map(of_secret)
                    .unwrap_or_default();
                files.extend(chosen(values, of.items.as_ref(), mode, optional, "secret")?);
            }
            if let Some(of) = &source.downward_api {
                let items = of.items.clone().unwrap_or_default();
                files.extend(self.downward(pod, &items, mode)?);
            }
            if let Some(of) = &source.service_account_token {
                let token = self.token(pod, volume, of).await?;
                // A token is its pod's alone, unless the pod shares its files with a group.
                let own = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.security_context.as_ref());
                let group = own.is_some_and(|context| context.fs_group.is_some());
                let mode = if group { 0o600 } else { mode as u32 };
                files.insert(checked(&of.path)?.to_owned(), (token.into_bytes(), mode));
            }
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                return Err("this node does not offer projections of this kind".into());
            }
        }
        Ok(Some(files))
    }

    /// A token bound to the pod; the one that is there until most of its life is over.
    async fn token(
        &self,
        pod: &Pod,
        volume: &Volume,
        of: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let there = self
            .volume_directory(pod, volume)
            .join("..data")
            .join(&of.path);
        let life = of.expiration_seconds.unwrap_or(3600);
        if let Ok(found) = there.metadata()
            && let Ok(Ok(age)) = found.modified().map(|at| at.elapsed())
            && (age.as_secs() as i64) < (life * 8 / 10).min(24 * 3600)
            && let Ok(token) = std::fs::read_to_string(&there)
        {
            return Ok(token);
        }
        let namespace = text(pod.metadata.namespace.as_ref());
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".into());
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: of
                    .audience
                    .clone()
                    .filter(|audience| !audience.is_empty())
                    .map(|audience| vec![audience]),
                expiration_seconds: Some(life),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("failed to fetch token: {error}"))?;
        answer
            .status
            .and_then(|status| status.token)
            .ok_or_else(|| "failed to fetch token: the answer has none".to_owned())
    }

    /// Where the volume behind a claim is on this host.
    async fn claimed(&self, pod: &Pod, volume: &Volume) -> Result<PathBuf, Lack> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let claim = match &volume.persistent_volume_claim {
            Some(of) => of.claim_name.clone(),
            None => format!("{}-{}", text(pod.metadata.name.as_ref()), volume.name),
        };
        let wrong = |error: String| lack(format!("Unable to attach or mount volumes: {error}"));
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let found = claims
            .get_opt(&claim)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let found =
            found.ok_or_else(|| wrong(format!("persistentvolumeclaim {claim:?} not found")))?;
        let bound = found
            .spec
            .and_then(|spec| spec.volume_name)
            .filter(|name| !name.is_empty());
        let name = bound.ok_or_else(|| wrong(format!("PVC {namespace}/{claim} is not bound")))?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let persistent = volumes
            .get_opt(&name)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let spec = persistent
            .and_then(|persistent| persistent.spec)
            .ok_or_else(|| wrong(format!("persistentvolume {name:?} not found")))?;
        if let Some(of) = &spec.host_path {
            host_path(of).map_err(wrong)?;
            return Ok(PathBuf::from(&of.path));
        }
        if let Some(of) = &spec.local {
            return Ok(PathBuf::from(&of.path));
        }
        if let Some(of) = spec.csi.as_ref().filter(|of| of.driver == DRIVER) {
            let quota = spec
                .capacity
                .as_ref()
                .and_then(|capacity| Quantity::parse(&capacity.get("storage")?.0).ok())
                .map(|quota| quota.value().max(0) as u64);
            let made = self
                .storage
                .make_volume(&of.volume_handle, quota, None)
                .await;
            return Ok(made.map_err(|error| wrong(error.to_string()))?.path);
        }
        Err(wrong(format!(
            "this node does not offer volumes of the kind of {name}"
        )))
    }

    /// Whether containers may never write to a volume.
    pub(super) fn always_read_only(&self, spec: &PodSpec, name: &str) -> bool {
        spec.volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == name)
            .is_some_and(|volume| {
                volume.config_map.is_some()
                    || volume.secret.is_some()
                    || volume.projected.is_some()
                    || volume.downward_api.is_some()
                    || volume
                        .persistent_volume_claim
                        .as_ref()
                        .is_some_and(|claim| claim.read_only == Some(true))
            })
    }

    /// Where a volume is on this host.
    pub(super) async fn volume_path(&self, pod: &Pod, name: &str) -> Result<PathBuf, Lack> {
        let spec = pod.spec.as_ref();
        let volume = spec
            .and_then(|spec| {
                spec.volumes
                    .iter()
                    .flatten()
                    .find(|volume| volume.name == name)
            })
            .ok_or_else(|| lack(format!("volume {name:?} is not one of the pod's")))?;
        if let Some(of) = &volume.host_path {
            return Ok(PathBuf::from(&of.path));
        }
        if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            return self.claimed(pod, volume).await;
        }
        Ok(self.volume_directory(pod, volume))
    }
}

/// Checks a path of the host, or makes it where it may be made.
fn host_path(of: &HostPathVolumeSource) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt as _;
    let path = Path::new(&of.path);
    let found = std::fs::metadata(path);
    let is = |matches: fn(&std::fs::FileType) -> bool, what: &str| match &found {
        Ok(found) if matches(&found.file_type()) => Ok(()),
        _ => Err(format!(
            "hostPath type check failed: {} is not {what}",
            of.path
        )),
    };
    let text = |error: io::Error| format!("{}: {error}", of.path);
    match of.type_.as_deref().unwrap_or_default() {
        "" => match found {
            Ok(_) => Ok(()),
            Err(_) => std::fs::create_dir_all(path).map_err(text),
        },
        "DirectoryOrCreate" => match found {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(format!(
                "hostPath type check failed: {} is not a directory",
                of.path
            )),
            Err(_) => std::fs::create_dir_all(path).map_err(text),
        },
        "FileOrCreate" => match found {
            Ok(found) if found.is_file() => Ok(()),
            Ok(_) => Err(format!(
                "hostPath type check failed: {} is not a file",
                of.path
            )),
            Err(_) => std::fs::write(path, "").map_err(text),
        },
        "Directory" => is(std::fs::FileType::is_dir, "a directory"),
        "File" => is(std::fs::FileType::is_file, "a file"),
        "Socket" => is(|kind| kind.is_socket(), "a socket file"),
        "CharDevice" => is(|kind| kind.is_char_device(), "a character device"),
        "BlockDevice" => is(|kind| kind.is_block_device(), "a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_change_all_at_once_and_keep_nothing_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let files = |list: &[(&str, &str)]| -> Files {
            list.iter()
                .map(|(name, content)| ((*name).to_owned(), (content.as_bytes().to_vec(), 0o640)))
                .collect()
        };
        let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
        write(path, &files(&[("a", "1"), ("d/b", "2")]), None).expect("written");
        assert_eq!(
            (read("a"), read("d/b")),
            (Some("1".into()), Some("2".into()))
        );
        let mode = std::fs::metadata(path.join("a"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        let version = std::fs::read_link(path.join("..data")).expect("a link");
        write(path, &files(&[("a", "1"), ("d/b", "2")]), None).expect("written");
        assert_eq!(
            std::fs::read_link(path.join("..data")).expect("a link"),
            version,
            "nothing to do"
        );
        write(path, &files(&[("a", "3"), ("c", "4")]), None).expect("written");
        assert_eq!(
            (read("a"), read("d/b"), read("c")),
            (Some("3".into()), None, Some("4".into()))
        );
        let names: Vec<_> = std::fs::read_dir(path).expect("read").flatten().collect();
        assert_eq!(names.len(), 4, "a, c, ..data and its version: {names:?}");
    }

    #[test]
    fn paths_stay_inside() {
        for (path, fine) in [
            ("a", true),
            ("a/b", true),
            ("../a", false),
            ("/a", false),
            ("a/../b", false),
            ("..a", false),
            ("", false),
        ] {
            assert_eq!(checked(path).is_ok(), fine, "{path:?}");
        }
    }
}
