//! Discovery documents, in both formats.

use crate::resources::registry::{Registry, Resource, Version, api_version};
use crate::schema::{Key, Object, Value};

/// `/api`
pub fn core_versions(address: &str) -> Value {
    crate::value!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    })
}

fn group_version(group: &str, version: &str) -> Value {
    let mut out = Object::with_capacity(2);
    out.insert("groupVersion", api_version(group, version));
    out.insert("version", version);
    Value::Object(out)
}

/// One group as `/apis` lists it.
fn group_entry(group: &crate::resources::registry::Group) -> Object {
    let versions: Vec<Value> = group
        .listed
        .iter()
        .map(|version| group_version(&group.name, version))
        .collect();
    let mut out = Object::with_capacity(3);
    out.insert("name", &group.name);
    out.insert(
        "preferredVersion",
        versions.first().cloned().unwrap_or_default(),
    );
    out.insert("versions", versions);
    out
}

/// `/apis`
pub fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry
        .listed_groups()
        .into_iter()
        .filter(|group| !group.name.is_empty())
        .map(|group| Value::Object(group_entry(group)))
        .collect();
    let mut out = Object::with_capacity(3);
    out.insert("kind", "APIGroupList");
    out.insert("apiVersion", "v1");
    out.insert("groups", groups);
    Value::Object(out)
}

/// `/apis/GROUP`, if it is served.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let mut out = group_entry(registry.group(name)?);
    out.insert_first("apiVersion", "v1");
    out.insert_first("kind", "APIGroup");
    Some(Value::Object(out))
}

/// The resources of a group and version, by name.
fn resources_of<'a>(
    registry: &'a Registry,
    group: &str,
    version: &str,
) -> Vec<(&'a Resource, &'a Version)> {
    let mut found: Vec<_> = registry
        .resources()
        .filter(|resource| resource.group == group)
        .filter_map(|resource| Some((&**resource, resource.version(version)?)))
        .collect();
    found.sort_by(|a, b| a.0.plural.cmp(&b.0.plural));
    found
}

fn list_of(keys: &[Key]) -> Value {
    Value::Array(keys.iter().map(Value::from).collect())
}

/// `/api/v1` and `/apis/GROUP/VERSION`, if they are served.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    if !registry
        .group(group)?
        .versions
        .iter()
        .any(|served| served == version)
    {
        return None;
    }
    let mut list = Vec::new();
    for (resource, served) in resources_of(registry, group, version) {
        let mut item = Object::with_capacity(8);
        item.insert("name", &resource.plural);
        item.insert("singularName", &resource.singular);
        item.insert("namespaced", resource.namespaced);
        item.insert("kind", &resource.kind);
        item.insert("verbs", list_of(&served.verbs));
        if !resource.short_names.is_empty() {
            item.insert("shortNames", list_of(&resource.short_names));
        }
        if !resource.categories.is_empty() {
            item.insert("categories", list_of(&resource.categories));
        }
        if !served.hash.is_empty() {
            item.insert("storageVersionHash", &served.hash);
        }
        list.push(Value::Object(item));
        for sub in &served.subresources {
            let mut item = Object::with_capacity(6);
            item.insert("name", format!("{}/{}", resource.plural, sub.name));
            item.insert("singularName", "");
            item.insert("namespaced", resource.namespaced);
            if sub.group != group || sub.version != version {
                item.insert("group", &sub.group);
                item.insert("version", &sub.version);
            }
            item.insert("kind", &sub.kind);
            item.insert("verbs", list_of(&sub.verbs));
            list.push(Value::Object(item));
        }
    }
    let mut out = Object::with_capacity(4);
    out.insert("kind", "APIResourceList");
    if !group.is_empty() {
        out.insert("apiVersion", "v1");
    }
    out.insert("groupVersion", api_version(group, version));
    out.insert("resources", list);
    Some(Value::Object(out))
}

/// `/api` and `/apis` in the aggregated form: every resource in one document.
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let response_kind = |group: &str, version: &str, kind: &str| {
        let mut out = Object::with_capacity(3);
        out.insert("group", group);
        out.insert("version", version);
        out.insert("kind", kind);
        out
    };
    let mut items = Vec::new();
    for group in registry
        .groups()
        .iter()
        .filter(|group| group.name.is_empty() == core && !group.versions.is_empty())
    {
        let mut versions = Vec::new();
        for version in &group.versions {
            let mut list = Vec::new();
            for (resource, served) in resources_of(registry, &group.name, version) {
                let custom = resource.is_custom();
                let (own_group, own_version) = if custom {
                    (&*group.name, version.as_str())
                } else {
                    ("", "")
                };
                let mut item = Object::with_capacity(8);
                item.insert("resource", &resource.plural);
                item.insert(
                    "responseKind",
                    response_kind(own_group, own_version, &resource.kind),
                );
                item.insert(
                    "scope",
                    if resource.namespaced {
                        "Namespaced"
                    } else {
                        "Cluster"
                    },
                );
                item.insert("singularResource", &resource.singular);
                item.insert("verbs", list_of(&served.verbs));
                if !resource.short_names.is_empty() {
                    item.insert("shortNames", list_of(&resource.short_names));
                }
                if !resource.categories.is_empty() {
                    item.insert("categories", list_of(&resource.categories));
                }
                let subresources: Vec<Value> = served
                    .subresources
                    .iter()
                    .map(|sub| {
                        let foreign = sub.group != group.name || sub.version != *version;
                        let (g, v) = if foreign {
                            (&*sub.group, sub.version.as_str())
                        } else {
                            (own_group, own_version)
                        };
                        let mut item = Object::with_capacity(3);
                        item.insert("subresource", &sub.name);
                        item.insert("responseKind", response_kind(g, v, &sub.kind));
                        item.insert("verbs", list_of(&sub.verbs));
                        Value::Object(item)
                    })
                    .collect();
                if !subresources.is_empty() {
                    item.insert("subresources", subresources);
                }
                list.push(Value::Object(item));
            }
            let mut item = Object::with_capacity(3);
            item.insert("version", version);
            item.insert("resources", list);
            item.insert("freshness", "Current");
            versions.push(Value::Object(item));
        }
        let mut meta = Object::new();
        if !core {
            meta.insert("name", &group.name);
        }
        let mut item = Object::with_capacity(2);
        item.insert("metadata", meta);
        item.insert("versions", versions);
        items.push(Value::Object(item));
    }
    let mut out = Object::with_capacity(4);
    out.insert("kind", "APIGroupDiscoveryList");
    out.insert("apiVersion", "apidiscovery.k8s.io/v2");
    out.insert("metadata", Object::new());
    out.insert("items", items);
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    /// Both formats are derived from the registry, which was read from the legacy format: they must equal upstream's
    /// documents.
    #[test]
    fn discovery_is_upstreams_own_document_again() {
        let read = |bytes: &[u8]| json::parse(bytes).unwrap().value;
        let registry = Registry::builtin();
        let legacy = read(include_bytes!(
            "../resources/documents/legacy-resources.json"
        ));
        for (path, want) in legacy.as_object().unwrap().iter() {
            let mut parts = path
                .trim_start_matches("/apis/")
                .trim_start_matches("/api/")
                .split('/');
            let (a, b) = (parts.next().unwrap(), parts.next());
            let (group, version) = b.map_or(("", a), |version| (a, version));
            assert_eq!(
                json::to_string(&resources(registry, group, version).unwrap()),
                json::to_string(want),
                "{path}"
            );
        }
        let apis = read(include_bytes!(
            "../resources/documents/aggregated-apis.json"
        ));
        assert_eq!(aggregated(registry, false), apis);
        let api = read(include_bytes!("../resources/documents/aggregated-api.json"));
        assert_eq!(aggregated(registry, true), api);
    }
}
