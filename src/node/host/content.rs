//! The content of volumes that come from the API (configMap, secret, projected, downwardAPI).
//!
//! It changes atomically: files are links to `..data/FILE`, `..data` is a link to the directory of one version, and a
//! new version replaces that link by one rename.

mod write;

use std::collections::BTreeMap;

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

use self::write::checked;
use super::{Host, text};
use crate::blocking::blocking;
use crate::node::describe::fs_group;
use crate::node::machine::containers;
use crate::node::pod_certificates::Pair;

pub(super) use self::write::{Files, write};

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
mod tests;
