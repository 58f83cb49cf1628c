//! Descriptors of all served resources, read from upstream's discovery documents at first use.

mod load;
mod resource;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use compact_str::CompactString;

use self::load::{load, read_resource, read_version};
use super::custom::definition::Definitions;
use crate::meta::version;
use crate::schema::{Key, Value, builtin};

pub use self::resource::{Column, Conversion, Resource, Subresource, Version};

/// Everything served at one moment.
#[derive(Clone, Default)]
pub struct Registry {
    resources: HashMap<(Key, Key), Arc<Resource>>,
    /// Built-in groups in the order of discovery, then custom ones by name.
    groups: Vec<Group>,
}

/// A group in discovery.
#[derive(Clone, Debug)]
pub struct Group {
    /// Empty for core.
    pub name: Key,
    /// Versions with resources, the preferred first.
    pub versions: Vec<Key>,
    /// Versions in the group's own documents, the preferred first: also those of definitions that are not established.
    pub listed: Vec<Key>,
    /// Whether it only has custom resources.
    pub custom: bool,
}

impl Group {
    fn builtin(name: Key, versions: Vec<Key>) -> Group {
        Group {
            name,
            listed: versions.clone(),
            versions,
            custom: false,
        }
    }
}

/// `group/version` or just the version for core.
pub fn api_version(group: &str, version: &str) -> CompactString {
    if group.is_empty() {
        version.into()
    } else {
        compact_str::format_compact!("{group}/{version}")
    }
}

/// The group of resource metrics.
pub const METRICS: &str = "metrics.k8s.io";

impl Registry {
    /// The built-in resources. Cheap to call again.
    pub fn builtin() -> &'static Registry {
        static BUILTIN: LazyLock<Registry> = LazyLock::new(load);
        &BUILTIN
    }

    /// The resource `plural` of `group`.
    pub fn get(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(Key::from(group), Key::from(plural)))
    }

    /// The resource of a kind.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.resources
            .values()
            .find(|resource| resource.group == group && resource.kind == kind)
    }

    /// All resources, in no order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The groups in the order of discovery.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The groups in the order of `/apis`: those of definitions by the names of their API services, which begin with the
    /// version.
    pub fn listed_groups(&self) -> Vec<&Group> {
        let mut groups: Vec<&Group> = self.groups.iter().collect();
        let made = groups.iter().filter(|group| group.custom).count();
        // They stand together.
        let first = groups.iter().position(|group| group.custom).unwrap_or(0);
        groups[first..first + made].sort_by_cached_key(|group| {
            let versions = group.listed.iter();
            versions
                .map(|version| service_name(&group.name, version))
                .min()
        });
        groups
    }

    /// The group called `name`.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The built-in resources, those of CustomResourceDefinitions, and, if `metrics`, resource metrics. A definition
    /// in a built-in group is not served, and replaces nothing.
    pub fn serving(definitions: &Definitions, metrics: bool) -> Registry {
        let mut registry = Self::builtin().clone();
        let own = Self::builtin();
        let mut groups: HashMap<Key, Group> = HashMap::new();
        for (group, version) in definitions
            .objects
            .values()
            .flat_map(|object| served(object))
        {
            if own.group(group).is_some() {
                continue;
            }
            let made = groups.entry(group.into()).or_insert_with(|| Group {
                name: group.into(),
                versions: Vec::new(),
                listed: Vec::new(),
                custom: true,
            });
            once(&mut made.listed, &version.into());
        }
        for resource in definitions.resources.values() {
            let Some(made) = groups.get_mut(&resource.group) else {
                continue;
            };
            for version in &resource.versions {
                once(&mut made.versions, &version.name);
            }
            let place = (resource.group.clone(), resource.plural.clone());
            registry.resources.insert(place, resource.clone());
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        for group in &mut groups {
            group.versions.sort_by(|a, b| version::compare(b, a));
            group.listed.sort_by(|a, b| version::compare(b, a));
        }
        registry.groups.append(&mut groups);
        if metrics {
            registry.add_metrics();
        }
        registry
    }

    /// Serves `metrics.k8s.io` after all other groups, according to upstream's group priorities.
    fn add_metrics(&mut self) {
        let (group, version) = (Key::from(METRICS), Key::from("v1beta1"));
        for (plural, kind, namespaced) in [
            ("nodes", "NodeMetrics", false),
            ("pods", "PodMetrics", true),
        ] {
            let item = crate::value!({
                "name": plural,
                "singularName": "",
                "namespaced": namespaced,
                "kind": kind,
                "verbs": ["get", "list"]
            });
            let mut resource = read_resource(&group, &version, &item);
            let served = read_version(&group, &version, &item, &[], &Value::Null);
            resource.versions.push(served);
            let place = (group.clone(), resource.plural.clone());
            self.resources.insert(place, Arc::new(resource));
        }
        self.groups.retain(|other| other.name != group);
        self.groups.push(Group::builtin(group, vec![version]));
    }
}

/// The name of the API service of a group and version.
pub fn service_name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

/// The group and version of each version that a definition serves, whether it is established or not.
pub fn served(definition: &Value) -> impl Iterator<Item = (&str, &str)> {
    let spec = definition.at("spec");
    let versions = spec.list("versions").iter();
    let served = versions.filter(|version| version.bool("served"));
    served.map(|version| (spec.str("group"), version.str("name")))
}

fn once(list: &mut Vec<Key>, one: &Key) {
    if !list.contains(one) {
        list.push(one.clone());
    }
}

/// The component name of a kind that every group and version has, such as `DeleteOptions`.
fn everywhere(kind: &str) -> (&'static str, &'static str, &str) {
    ("", "", kind)
}

/// The component name of a kind: `io.k8s.api.apps.v1.Deployment`.
pub fn gvk_type(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    static INDEX: LazyLock<HashMap<(&'static str, &'static str, &'static str), &'static str>> =
        LazyLock::new(|| {
            let document: &'static Value = &builtin::DOCUMENT;
            let mut index = HashMap::new();
            for (name, schema) in document
                .as_object()
                .into_iter()
                .flat_map(|object| object.iter())
            {
                const GVK: &str = "x-kubernetes-group-version-kind";
                if schema.at(GVK).as_str().is_some() {
                    let (_, kind) = name.rsplit_once('.').unwrap_or_default();
                    index.insert(everywhere(kind), name.as_str());
                }
                for gvk in schema.list(GVK) {
                    index.insert(
                        (gvk.str("group"), gvk.str("version"), gvk.str("kind")),
                        name.as_str(),
                    );
                }
            }
            index
        });
    let found = INDEX.get(&(group, version, kind));
    found.or_else(|| INDEX.get(&everywhere(kind))).copied()
}
