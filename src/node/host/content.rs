//! The content of volumes that come from the API (configMap, secret, projected, downwardAPI).
//!
//! It changes atomically: files are links to `..data/FILE`, `..data` is a link to the directory of one version, and a
//! new version replaces that link by one rename.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, Pod,
    PodCertificateProjection, Secret, SecretProjection, ServiceAccount,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use kube::api::{Api, PostParams};

use super::{Host, text};
use crate::blocking::blocking;
use crate::node::describe::fs_group;
use crate::node::machine::containers;
use crate::node::pod_certificates::Pair;
use crate::private;

/// Who may use a file: its mode, and its owner if that is not root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    mode: u32,
    owner: Option<u32>,
}

impl Access {
    /// A file of root.
    fn of_root(mode: i32) -> Access {
        let mode = mode as u32;
        Access { mode, owner: None }
    }

    /// A file that is only for the pod: a token, trust anchors, a certificate with its key. If all containers run as the
    /// same user or share files with a group, nobody else may read it. Follows `collectData` of
    /// pkg/volume/projected/projected.go.
    fn of_pod(pod: &Pod, mode: i32) -> Access {
        let owner = user(pod);
        match owner.is_some() || fs_group(pod).is_some() {
            true => Access { mode: 0o600, owner },
            false => Access::of_root(mode),
        }
    }
}

/// The user as which all containers of a pod run, if it says so for all of them. Follows `FsUserFrom` of
/// pkg/volume/util/util.go.
fn user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let common = spec.security_context.as_ref();
    let common = common.and_then(|context| context.run_as_user);
    let mut users = containers(spec).into_iter().map(|(_, container)| {
        let own = container.security_context.as_ref();
        own.and_then(|context| context.run_as_user).or(common)
    });
    let first = users.next()??;
    let same = users.all(|user| user == Some(first));
    u32::try_from(first).ok().filter(|_| same)
}

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    content: Vec<u8>,
    access: Access,
}

/// The content of a volume: files by path.
pub(super) type Files = BTreeMap<String, Shown>;

/// Checks that a path in a volume does not lead out of it.
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

/// Replaces the content of a volume, if it differs. `group` may read everything. Other volumes are mounted at the
/// directories `mounts`, which are made and kept.
pub(super) fn write(
    directory: &Path,
    files: &Files,
    mounts: &BTreeSet<String>,
    group: Option<u32>,
) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let data = directory.join("..data");
    if !holds(&data, files) {
        replace(directory, files, group)?;
    }
    // Done even if the content is up to date: its writer may have been killed before this.
    let mut tops: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for top in &tops {
        let shown = directory.join(top);
        if std::fs::symlink_metadata(&shown).is_err() {
            symlink(Path::new("..data").join(top), shown)?;
        }
    }
    for mount in mounts {
        let top = mount.split('/').next().unwrap_or_default();
        // A file of the volume stays what it is; the mount fails then, as it must.
        if !tops.contains(top) {
            std::fs::create_dir_all(directory.join(mount))?;
            tops.insert(top);
        }
    }
    let version = std::fs::read_link(&data)?;
    for entry in std::fs::read_dir(directory)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name == "..data" || Path::new(&*name) == version || tops.contains(&*name) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(path)?,
            false => std::fs::remove_file(path)?,
        }
    }
    Ok(())
}

/// Replaces the visible version.
fn replace(directory: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    let data = directory.join("..data");
    let stamp = Timestamp::now()
        .strftime("..%Y_%m_%d_%H_%M_%S.%f")
        .to_string();
    let version = directory.join(&stamp);
    let _ = std::fs::remove_dir_all(&version);
    if let Err(error) = write_version(&version, files, group) {
        // The old version stays. An incomplete new one would take up space, of which there may be none.
        let _ = std::fs::remove_dir_all(&version);
        return Err(error);
    }
    let link = directory.join("..data_tmp");
    let _ = std::fs::remove_file(&link);
    symlink(&stamp, &link)?;
    std::fs::rename(&link, &data)
}

/// Creates the directory of one version.
fn write_version(version: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir(version)?;
    std::fs::set_permissions(version, std::fs::Permissions::from_mode(0o755))?;
    let give = |path: &Path, owner: Option<u32>| match (owner, group) {
        (None, None) => Ok(()),
        _ => std::os::unix::fs::chown(path, owner, group),
    };
    give(version, None)?;
    for (path, Shown { content, access }) in files {
        let whole = version.join(path);
        if let Some(parent) = whole.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Nobody else may read it before it has its own mode.
        let mut file = private::file().create_new(true).open(&whole)?;
        file.write_all(content)?;
        give(&whole, access.owner)?;
        let shared = if group.is_some() { 0o440 } else { 0 };
        let mode = access.mode | shared;
        std::fs::set_permissions(&whole, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether a version has exactly these files.
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
        && files.iter().all(|(path, shown)| {
            std::fs::read(data.join(path)).is_ok_and(|found| found == shown.content)
        })
}

/// The lifetime claims of a token.
#[derive(serde::Deserialize)]
struct Life {
    iat: i64,
    exp: i64,
}

/// When a token that was requested for `life` seconds must be renewed: after most of its lifetime, and at least once a
/// day. None if it has no issue time. Servers may issue it for less, and for more than clients should rely on.
fn renewed(token: &str, life: i64) -> Option<Timestamp> {
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let Life { iat, exp } = serde_json::from_slice(&claims).ok()?;
    let life = exp.saturating_sub(iat).min(life).max(0);
    let after = (life / 10 * 8).min(24 * 3600);
    Timestamp::from_second(iat.saturating_add(after)).ok()
}

/// The keys that a volume shows, under their configured paths.
fn chosen(
    values: BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
    missing: &str,
) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return values
            .into_iter()
            .map(|(key, content)| {
                let access = Access::of_root(mode);
                Ok((checked(&key)?.to_owned(), Shown { content, access }))
            })
            .collect();
    };
    let mut files = Files::new();
    for item in items {
        match values.get(&item.key) {
            Some(value) => {
                let (content, access) = (value.clone(), Access::of_root(item.mode.unwrap_or(mode)));
                files.insert(checked(&item.path)?.to_owned(), Shown { content, access });
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(files)
}

fn of_map(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten();
    let text = text.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten();
    let binary = binary.map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

fn of_secret(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

/// The sources of a volume, and its default file mode: a volume of one object is treated as a projection. None if it
/// does not come from the API.
fn sources(volume: &Volume) -> Option<(i32, Vec<VolumeProjection>)> {
    let (mode, sources) = if let Some(of) = volume.config_map.clone() {
        let config_map = Some(ConfigMapProjection {
            items: of.items,
            name: of.name,
            optional: of.optional,
        });
        let source = VolumeProjection {
            config_map,
            ..VolumeProjection::default()
        };
        (of.default_mode, vec![source])
    } else if let Some(of) = volume.secret.clone() {
        let secret = Some(SecretProjection {
            items: of.items,
            name: of.secret_name.unwrap_or_default(),
            optional: of.optional,
        });
        let source = VolumeProjection {
            secret,
            ..VolumeProjection::default()
        };
        (of.default_mode, vec![source])
    } else if let Some(of) = volume.downward_api.clone() {
        let downward_api = Some(DownwardAPIProjection { items: of.items });
        let source = VolumeProjection {
            downward_api,
            ..VolumeProjection::default()
        };
        (of.default_mode, vec![source])
    } else {
        let of = volume.projected.clone()?;
        (of.default_mode, of.sources.unwrap_or_default())
    };
    Some((mode.unwrap_or(0o644), sources))
}

/// The files of a certificate, those that its source names.
fn certified(pair: &Pair, of: &PodCertificateProjection, access: Access) -> Result<Files, String> {
    let mut files = Files::new();
    for (path, parts) in [
        (&of.credential_bundle_path, &[&pair.key, &pair.chain][..]),
        (&of.key_path, &[&pair.key]),
        (&of.certificate_chain_path, &[&pair.chain]),
    ] {
        if let Some(path) = path.as_deref().filter(|path| !path.is_empty()) {
            let content = parts.iter().flat_map(|part| part.bytes()).collect();
            files.insert(checked(path)?.to_owned(), Shown { content, access });
        }
    }
    Ok(files)
}

impl Host {
    /// The values in an object of the pod's namespace; None if it does not exist and is optional.
    async fn values<K>(
        &self,
        pod: &Pod,
        name: &str,
        optional: bool,
        of: fn(&K) -> BTreeMap<String, Vec<u8>>,
    ) -> Result<BTreeMap<String, Vec<u8>>, String>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let found = self.object::<K>(pod, name).await;
        match found.map_err(|error| error.to_string())? {
            None if !optional => {
                let kind = K::kind(&()).to_lowercase();
                Err(format!("{kind} {name:?} not found"))
            }
            found => Ok(found.map(|found| of(&found)).unwrap_or_default()),
        }
    }

    /// The desired content of a volume that comes from the API; None for other kinds.
    pub(super) async fn content(
        &self,
        pod: &Pod,
        volume: &Volume,
    ) -> Result<Option<Files>, String> {
        let Some((mode, sources)) = sources(volume) else {
            return Ok(None);
        };
        let mut files = Files::new();
        for (index, source) in sources.into_iter().enumerate() {
            if let Some(of) = source.config_map {
                let optional = of.optional == Some(true);
                let values = self.values(pod, &of.name, optional, of_map).await?;
                let missing = "configmap references non-existent config key";
                files.extend(chosen(values, of.items.as_ref(), mode, optional, missing)?);
            }
            if let Some(of) = source.secret {
                let optional = of.optional == Some(true);
                let values = self.values(pod, &of.name, optional, of_secret).await?;
                let missing = "references non-existent secret key";
                files.extend(chosen(values, of.items.as_ref(), mode, optional, missing)?);
            }
            if let Some(of) = source.downward_api {
                let items = of.items.unwrap_or_default();
                files.extend(self.downward(pod, &items, mode)?);
            }
            let access = Access::of_pod(pod, mode);
            if let Some(of) = source.service_account_token {
                let content = self.token(pod, volume, &of).await?.into_bytes();
                files.insert(checked(&of.path)?.to_owned(), Shown { content, access });
            }
            if let Some(of) = source.cluster_trust_bundle {
                let content = self.trust_anchors(&of).await?.into_bytes();
                files.insert(checked(&of.path)?.to_owned(), Shown { content, access });
            }
            if let Some(of) = source.pod_certificate {
                let pair = self.certificates.of(pod, &volume.name, index)?;
                files.extend(certified(&pair, &of, access)?);
            }
        }
        Ok(Some(files))
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
            let content = value.into_bytes();
            let access = Access::of_root(item.mode.unwrap_or(mode));
            files.insert(checked(&item.path)?.to_owned(), Shown { content, access });
        }
        Ok(files)
    }

    /// A token bound to the pod; the existing one until most of its lifetime is over.
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
        let read = blocking(move || std::fs::read_to_string(there)).await;
        if let Ok(token) = read
            && renewed(&token, life).is_some_and(|at| Timestamp::now() < at)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_in_the_files_that_are_named() {
        let pair = Pair {
            key: "k\n".into(),
            chain: "c\n".into(),
        };
        let named = |bundle: &str, key: &str, chain: &str| PodCertificateProjection {
            credential_bundle_path: Some(bundle.into()),
            key_path: Some(key.into()),
            certificate_chain_path: Some(chain.into()),
            ..PodCertificateProjection::default()
        };
        let access = Access {
            mode: 0o600,
            owner: Some(7),
        };
        for (of, wanted) in [
            (named("b", "", ""), vec![("b", "k\nc\n")]),
            (named("", "d/k", "c"), vec![("c", "c\n"), ("d/k", "k\n")]),
            (PodCertificateProjection::default(), vec![]),
        ] {
            let wanted = wanted.into_iter();
            let wanted = wanted.map(|(path, text)| {
                let content = text.into();
                (path.into(), Shown { content, access })
            });
            assert_eq!(certified(&pair, &of, access), Ok(wanted.collect()));
        }
        assert!(certified(&pair, &named("../b", "", ""), access).is_err());
    }

    #[test]
    fn what_is_only_for_the_pod_belongs_to_its_user() {
        use serde_json::{Value, json};
        let none = Value::Null;
        for (common, group, own, expected) in [
            (&none, &none, &none, (0o644, None)),
            (&json!(7), &none, &none, (0o600, Some(7))),
            (&json!(7), &none, &json!(8), (0o644, None)),
            (&none, &none, &json!(8), (0o644, None)),
            (&json!(0), &none, &none, (0o600, Some(0))),
            (&none, &json!(9), &none, (0o600, None)),
            (&json!(7), &json!(9), &json!(7), (0o600, Some(7))),
        ] {
            let pod = json!({"spec": {
                "securityContext": {"runAsUser": common, "fsGroup": group},
                "initContainers": [{"name": "i"}],
                "containers": [{"name": "c", "securityContext": {"runAsUser": own}}]}});
            let pod = serde_json::from_value(pod).expect("a pod");
            let Access { mode, owner } = Access::of_pod(&pod, 0o644);
            assert_eq!((mode, owner), expected, "{common} {group} {own}");
        }
    }

    #[test]
    fn volumes_change_all_at_once_and_keep_nothing_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let files = |list: &[(&str, &str)]| -> Files {
            list.iter()
                .map(|(name, content)| {
                    let (content, access) = (content.as_bytes().to_vec(), Access::of_root(0o640));
                    ((*name).to_owned(), Shown { content, access })
                })
                .collect()
        };
        let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
        let none = BTreeSet::new();
        write(path, &files(&[("a", "1"), ("d/b", "2")]), &none, None).expect("written");
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
        write(path, &files(&[("a", "1"), ("d/b", "2")]), &none, None).expect("written");
        assert_eq!(
            std::fs::read_link(path.join("..data")).expect("a link"),
            version,
            "nothing to do"
        );
        write(path, &files(&[("a", "3"), ("c", "4")]), &none, None).expect("written");
        assert_eq!(
            (read("a"), read("d/b"), read("c")),
            (Some("3".into()), None, Some("4".into()))
        );
        let names: Vec<_> = std::fs::read_dir(path).expect("read").flatten().collect();
        assert_eq!(names.len(), 4, "a, c, ..data and its version: {names:?}");
        // As left by an agent that was killed after it switched the version, and by one that was killed earlier.
        std::fs::remove_file(path.join("c")).expect("removed");
        std::fs::create_dir(path.join("..old")).expect("made");
        std::fs::write(path.join("..old/secret"), "").expect("written");
        symlink("..old", path.join("..data_tmp")).expect("made");
        symlink("..data/gone", path.join("gone")).expect("made");
        write(path, &files(&[("a", "3"), ("c", "4")]), &none, None).expect("written");
        assert_eq!(read("c"), Some("4".into()));
        let names: Vec<_> = std::fs::read_dir(path).expect("read").flatten().collect();
        assert_eq!(names.len(), 4, "a, c, ..data and its version: {names:?}");
        // Other volumes are mounted below: what was made for that stays, and a file stays a file.
        let mounts = ["tls", "deep/er", "a"].map(str::to_owned).into();
        for content in ["3", "4"] {
            write(path, &files(&[("a", content), ("c", "4")]), &mounts, None).expect("written");
            assert!(path.join("tls").is_dir() && path.join("deep/er").is_dir());
            assert_eq!(read("a"), Some(content.into()));
            std::fs::write(path.join("tls/kept"), "").expect("written");
        }
        assert!(path.join("tls/kept").exists());
        write(path, &files(&[("a", "3"), ("c", "4")]), &none, None).expect("written");
        assert!(!path.join("tls").exists());
        // As on a full disk: one file cannot be created, after others were.
        let torn = files(&[("a", "5"), ("a/b", "6")]);
        assert!(write(path, &torn, &none, None).is_err());
        assert_eq!((read("a"), read("c")), (Some("3".into()), Some("4".into())));
        let left: Vec<_> = std::fs::read_dir(path).expect("read").flatten().collect();
        assert_eq!(left.len(), 4, "nothing of it is left: {left:?}");
    }

    #[test]
    fn tokens_are_renewed_by_what_they_say_of_themselves() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for (claims, life, expected) in [
            (r#"{"iat":1000,"exp":4600}"#, 3600, Some(1000 + 2880)),
            // Issued for less than requested, and for longer than it should be relied on.
            (r#"{"iat":1000,"exp":1600}"#, 3600, Some(1000 + 480)),
            (r#"{"iat":1000,"exp":31537000}"#, 3607, Some(1000 + 2880)),
            (r#"{"iat":0,"exp":31536000}"#, 31_536_000, Some(24 * 3600)),
            (r#"{"iat":9,"exp":-9}"#, 3600, Some(9)),
            (r#"{"exp":4600}"#, 3600, None),
        ] {
            let at = renewed(&token(claims), life).map(Timestamp::as_second);
            assert_eq!(at, expected, "{claims} {life}");
        }
        assert_eq!(renewed("no token", 3600), None);
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

    #[test]
    fn what_a_volume_shows_of_an_object_is_chosen() {
        let values = || BTreeMap::from([("a".to_owned(), b"1".to_vec())]);
        let item = |key: &str, mode| {
            vec![KeyToPath {
                key: key.into(),
                mode,
                path: format!("d/{key}"),
                user: None,
            }]
        };
        let file = |path: &str, mode| {
            let (content, access) = (b"1".to_vec(), Access::of_root(mode));
            Files::from([(path.to_owned(), Shown { content, access })])
        };
        for (items, optional, expected) in [
            (None, false, Ok(file("a", 0o644))),
            (Some(vec![]), false, Ok(file("a", 0o644))),
            (Some(item("a", None)), false, Ok(file("d/a", 0o644))),
            (Some(item("a", Some(0o400))), false, Ok(file("d/a", 0o400))),
            (Some(item("b", None)), true, Ok(Files::new())),
            (Some(item("b", None)), false, Err("no key: b".to_owned())),
        ] {
            let found = chosen(values(), items.as_ref(), 0o644, optional, "no key");
            assert_eq!(found, expected, "{items:?} {optional}");
        }
        let secret: Volume = serde_json::from_value(serde_json::json!({
            "name": "v", "secret": {"secretName": "s", "defaultMode": 256, "optional": true}}))
        .expect("a volume");
        let (mode, all) = sources(&secret).expect("it comes from the API");
        let of = all[0].secret.as_ref().expect("a secret");
        assert_eq!(
            (mode, all.len(), &*of.name, of.optional),
            (256, 1, "s", Some(true))
        );
        assert!(sources(&Volume::default()).is_none());
    }
}
