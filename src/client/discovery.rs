//! Every resource that the API serves, and objects of any resource by their metadata alone.

use std::borrow::Cow;
use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::core::discovery::v2::APIGroupDiscoveryList;
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource};
use serde::{Deserialize, Deserializer};

/// A resource as described by discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Names and versions.
    pub resource: ApiResource,
    /// Whether it is namespaced.
    pub namespaced: bool,
    /// Its verbs.
    pub verbs: Vec<String>,
    /// Its subresources.
    pub subresources: Vec<String>,
}

impl Served {
    /// Whether it has all of `verbs`.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs
            .iter()
            .all(|verb| self.verbs.iter().any(|known| known == verb))
    }

    /// Whether it has a subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|known| known == subresource)
    }

    /// A client for its objects' metadata, in a namespace, or in all if that is empty.
    pub fn api(&self, client: &Client, namespace: &str) -> Api<Bare> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }
}

/// Every resource, each in the version that its group prefers (or the first that has it), in the order of discovery.
///
/// # Errors
/// Discovery failed.
pub async fn resources(client: &Client) -> Result<Vec<Served>, kube::Error> {
    let mut known = HashSet::new();
    let mut out = all(client).await?;
    out.retain(|served| {
        let resource = &served.resource;
        known.insert((resource.group.clone(), resource.plural.clone()))
    });
    Ok(out)
}

/// Every resource in every version, preferred versions first.
///
/// # Errors
/// Discovery failed.
pub async fn all(client: &Client) -> Result<Vec<Served>, kube::Error> {
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    let mut out = Vec::new();
    read(&core, &mut out);
    read(&groups, &mut out);
    Ok(out)
}

fn read(list: &APIGroupDiscoveryList, out: &mut Vec<Served>) {
    for group in &list.items {
        let group_name = group
            .metadata
            .as_ref()
            .and_then(|meta| meta.name.as_deref())
            .unwrap_or_default();
        for version in &group.versions {
            let version_name = version.version.as_deref().unwrap_or_default();
            for resource in &version.resources {
                let plural = resource.resource.as_deref().unwrap_or_default();
                let Some(kind) = resource.response_kind.as_ref() else {
                    continue;
                };
                out.push(Served {
                    resource: ApiResource {
                        group: group_name.to_owned(),
                        version: version_name.to_owned(),
                        api_version: if group_name.is_empty() {
                            version_name.to_owned()
                        } else {
                            format!("{group_name}/{version_name}")
                        },
                        kind: kind.kind.clone().unwrap_or_default(),
                        plural: plural.to_owned(),
                    },
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    verbs: resource.verbs.clone(),
                    subresources: resource
                        .subresources
                        .iter()
                        .filter_map(|subresource| subresource.subresource.clone())
                        .collect(),
                });
            }
        }
    }
}

/// An object of any kind, with only its metadata.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Bare {
    /// Its metadata, without managedFields.
    #[serde(default, deserialize_with = "lean")]
    pub metadata: ObjectMeta,
}

impl Resource for Bare {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Reads metadata without managedFields, which controllers never use.
///
/// # Errors
/// The metadata has wrong types.
pub fn lean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lean {
        name: Option<String>,
        generate_name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
        labels: Option<std::collections::BTreeMap<String, String>>,
        annotations: Option<std::collections::BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
        finalizers: Option<Vec<String>>,
    }
    let lean = Option::<Lean>::deserialize(deserializer)?;
    Ok(lean.map_or_else(ObjectMeta::default, |lean| ObjectMeta {
        name: lean.name,
        generate_name: lean.generate_name,
        namespace: lean.namespace,
        uid: lean.uid,
        resource_version: lean.resource_version,
        generation: lean.generation,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        deletion_grace_period_seconds: lean.deletion_grace_period_seconds,
        labels: lean.labels,
        annotations: lean.annotations,
        owner_references: lean.owner_references,
        finalizers: lean.finalizers,
        ..ObjectMeta::default()
    }))
}
