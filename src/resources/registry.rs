//! Descriptors of all served resources, read from upstream's discovery documents at first use.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use compact_str::CompactString;

use super::Rules;
use super::custom::definition::Definitions;
use crate::meta::version;
use crate::schema::types::SchemaRef;
use crate::schema::{Key, Value, builtin, json};
use crate::store::ResourcePrefix;

/// One resource: a place in the store, served in one or more versions.
#[derive(Clone)]
pub struct Resource {
    /// The API group; empty for core.
    pub group: Key,
    /// `pods`
    pub plural: Key,
    /// `pod`
    pub singular: Key,
    /// `Pod`
    pub kind: Key,
    /// `PodList`
    pub list_kind: Key,
    /// `po`
    pub short_names: Vec<Key>,
    /// `all`
    pub categories: Vec<Key>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The key prefix of its objects.
    pub prefix: ResourcePrefix,
    /// The version in which objects are stored.
    pub storage_version: Key,
    /// apiVersion and schema of stored objects, if they belong to another group (events).
    pub stored_as: Option<(CompactString, Arc<SchemaRef>)>,
    /// Served versions, the most preferred first.
    pub versions: Vec<Version>,
    /// Behavior specific to the kind.
    pub rules: Rules,
    /// The definition of a custom resource.
    pub custom: Option<Arc<super::custom::Custom>>,
}

/// One served version of a resource.
#[derive(Clone)]
pub struct Version {
    /// `v1`
    pub name: Key,
    /// The schema of its objects.
    pub schema: Arc<SchemaRef>,
    /// The component name of the schema (`io.k8s.api.core.v1.Pod`), empty for custom resources.
    pub type_name: CompactString,
    /// In the order in which discovery shows them.
    pub verbs: Vec<Key>,
    /// Served subresources.
    pub subresources: Vec<Subresource>,
    /// Table columns.
    pub columns: Arc<[Column]>,
    /// `storageVersionHash` of discovery.
    pub hash: CompactString,
    /// The deprecation warning sent with every response.
    pub deprecation: Option<CompactString>,
    /// Conversion to and from the storage version; `None` if only apiVersion differs.
    pub conversion: Option<Conversion>,
    /// Validation and presentation of a custom resource in this version.
    pub custom: Option<Arc<super::custom::Served>>,
    /// Cached objects in the form shown by this version.
    pub forms: Arc<super::forms::Forms>,
}

/// Converts between a version and the storage version.
#[derive(Clone, Copy)]
pub struct Conversion {
    /// To the storage version.
    pub to_storage: fn(Value) -> Value,
    /// From the storage version.
    pub from_storage: fn(Value) -> Value,
}

/// A served subresource.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`
    pub name: Key,
    /// Group of the body's kind.
    pub group: Key,
    /// Version of the body's kind.
    pub version: Key,
    /// Kind of the body.
    pub kind: Key,
    /// In the order in which discovery shows them.
    pub verbs: Vec<Key>,
}

/// A table column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its heading.
    pub name: CompactString,
    /// `string`, `integer`, `number`, `boolean`, `date`
    pub kind: CompactString,
    /// `name` for the first, else mostly empty.
    pub format: CompactString,
    /// What it shows.
    pub description: CompactString,
    /// 0 for always shown.
    pub priority: i64,
    /// The path of its value in a custom resource.
    pub path: CompactString,
}

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

impl Resource {
    /// The served version called `name`.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// `group/version` or just the version.
    pub fn api_version(&self, version: &str) -> CompactString {
        api_version(&self.group, version)
    }

    /// The version in which objects are stored.
    pub fn storage(&self) -> Option<&Version> {
        self.version(&self.storage_version)
    }

    /// `group/version` of stored objects, which rules and admission use.
    pub fn stored_api_version(&self) -> CompactString {
        match &self.stored_as {
            Some((api_version, _)) => api_version.clone(),
            None => self.api_version(&self.storage_version),
        }
    }

    /// The schema of stored objects.
    pub fn stored_schema(&self) -> Option<&Arc<SchemaRef>> {
        match &self.stored_as {
            Some((_, schema)) => Some(schema),
            None => self.storage().map(|version| &version.schema),
        }
    }

    /// The group with which errors name the kind: that of the internal type.
    pub fn kind_group(&self) -> &str {
        match &self.stored_as {
            Some((api_version, _)) => api_version.split_once('/').map_or("", |(group, _)| group),
            None => &self.group,
        }
    }

    /// The key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> Arc<str> {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix).into()
        } else {
            format!("{}{name}", self.prefix).into()
        }
    }

    /// The prefix of all keys in a namespace (of all objects if empty).
    pub fn keys(&self, namespace: &str) -> Arc<str> {
        if self.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", self.prefix).into()
        } else {
            self.prefix.clone()
        }
    }

    /// The namespace and name in an object's key.
    pub fn split_key<'a>(&self, key: &'a str) -> (&'a str, &'a str) {
        let rest = key.strip_prefix(&*self.prefix).unwrap_or(key);
        if self.namespaced {
            rest.split_once('/').unwrap_or(("", rest))
        } else {
            ("", rest)
        }
    }

    /// The cells of an object's table row in a version.
    pub fn cells(&self, version: &Version, object: &Value, now: i64) -> Vec<Value> {
        match &version.custom {
            Some(served) => super::custom::cells(version, served, object, now),
            None => match &version.conversion {
                // Upstream prints internal objects, which have the fields of all versions.
                Some(conversion) => {
                    (self.rules.printing.cells)(&(conversion.to_storage)(object.clone()), now)
                }
                None => (self.rules.printing.cells)(object, now),
            },
        }
    }

    /// Whether this was made by a CustomResourceDefinition.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }
}

impl Version {
    /// The served subresource called `name`.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether field selectors support a field, besides metadata.
    pub fn selects(&self, resource: &Resource, field: &str) -> bool {
        match &self.custom {
            Some(served) => served.selectable.iter().any(|(name, _)| name == field),
            None => resource.rules.selection.field_called(field).is_some(),
        }
    }

    /// Whether the version has a status subresource.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
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

fn keys_of(value: &Value) -> Vec<Key> {
    value
        .as_array()
        .unwrap_or(&[])
        .iter()
        .filter_map(Value::as_str)
        .map(Key::from)
        .collect()
}

/// Upstream's key prefix of a resource in etcd: the order of lists and some errors show it.
fn prefix(group: &str, plural: &str) -> String {
    match (group, plural) {
        ("", "services") => "/registry/services/specs/".into(),
        ("", "endpoints") => "/registry/services/endpoints/".into(),
        ("", "nodes") => "/registry/minions/".into(),
        ("", "replicationcontrollers") => "/registry/controllers/".into(),
        ("networking.k8s.io", "ingresses") => "/registry/ingress/".into(),
        ("events.k8s.io", "events") => "/registry/events/".into(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io" | METRICS, _) => {
            format!("/registry/{group}/{plural}/")
        }
        _ => format!("/registry/{plural}/"),
    }
}

fn load() -> Registry {
    let document = |bytes: &[u8]| {
        json::parse(bytes)
            .map(|parsed| parsed.value)
            .unwrap_or_default()
    };
    let legacy = document(include_bytes!("documents/legacy-resources.json"));
    let aggregated = document(include_bytes!("documents/aggregated-apis.json"));
    let columns = document(include_bytes!("documents/columns.json"));

    let mut groups = vec![Group::builtin(Key::default(), vec![Key::from("v1")])];
    for item in aggregated.list("items") {
        let versions = item.list("versions").iter();
        let versions = versions.map(|version| Key::from(version.str("version")));
        let name = item.at("metadata").str("name").into();
        groups.push(Group::builtin(name, versions.collect()));
    }
    let mut resources: HashMap<(Key, Key), Resource> = HashMap::new();
    for group in &groups {
        for version in &group.versions {
            let path = if group.name.is_empty() {
                format!("/api/{version}")
            } else {
                format!("/apis/{}/{version}", group.name)
            };
            let list = legacy.at(&path).list("resources");
            for item in list.iter().filter(|item| !item.str("name").contains('/')) {
                let plural = item.str("name");
                let described = read_version(&group.name, version, item, list, &columns);
                resources
                    .entry((group.name.clone(), Key::from(plural)))
                    .or_insert_with(|| read_resource(&group.name, version, item))
                    .versions
                    .push(described);
            }
        }
    }
    Registry {
        resources: resources
            .into_iter()
            .map(|(key, resource)| (key, Arc::new(resource)))
            .collect(),
        groups,
    }
}

fn read_resource(group: &Key, version: &Key, item: &Value) -> Resource {
    let plural = item.str("name");
    let kind = Key::from(item.str("kind"));
    Resource {
        group: group.clone(),
        plural: plural.into(),
        singular: item.str("singularName").into(),
        list_kind: compact_str::format_compact!("{kind}List"),
        kind,
        short_names: keys_of(item.at("shortNames")),
        categories: keys_of(item.at("categories")),
        namespaced: item.bool("namespaced"),
        prefix: prefix(group, plural).into(),
        storage_version: version.clone(),
        stored_as: super::groups::stored_as(group, plural).map(|(api_version, type_name)| {
            (api_version.into(), Arc::new(SchemaRef::named(type_name)))
        }),
        versions: Vec::new(),
        rules: super::groups::rules(group, plural),
        custom: None,
    }
}

fn read_version(
    group: &Key,
    version: &Key,
    item: &Value,
    list: &[Value],
    columns: &Value,
) -> Version {
    let plural = item.str("name");
    let type_name = gvk_type(group, version, item.str("kind")).unwrap_or_default();
    let subresources = list
        .iter()
        .filter_map(|sub| {
            let name = sub.str("name").strip_prefix(plural)?.strip_prefix('/')?;
            let own = |key: &str, fallback: &Key| {
                sub.at(key)
                    .as_str()
                    .map_or_else(|| fallback.clone(), Key::from)
            };
            // A subresource of another group has group and version; a core one has only the version.
            let foreign = sub.get("version").is_some();
            Some(Subresource {
                name: name.into(),
                group: if foreign {
                    sub.str("group").into()
                } else {
                    group.clone()
                },
                version: own("version", version),
                kind: sub.str("kind").into(),
                verbs: keys_of(sub.at("verbs")),
            })
        })
        .collect();
    let key = format!("{} {plural}", api_version(group, version));
    let column = |cells: &Value| {
        let cells = cells.as_array().unwrap_or(&[]);
        let text = |i: usize| cells.get(i).and_then(Value::as_str).unwrap_or_default();
        Column {
            name: text(0).into(),
            kind: text(1).into(),
            format: text(2).into(),
            description: text(0).into(),
            priority: cells.get(3).and_then(Value::as_int).unwrap_or(0),
            path: CompactString::default(),
        }
    };
    Version {
        name: version.clone(),
        schema: Arc::new(SchemaRef::named(type_name)),
        type_name: type_name.into(),
        verbs: keys_of(item.at("verbs")),
        subresources,
        columns: columns.list(&key).iter().map(column).collect(),
        hash: item.str("storageVersionHash").into(),
        deprecation: match (group.as_str(), plural) {
            ("", "endpoints") => Some(
                "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
                    .into(),
            ),
            ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+".into()),
            _ => None,
        },
        conversion: super::groups::conversion(group, plural, version),
        custom: None,
        forms: Arc::default(),
    }
}
