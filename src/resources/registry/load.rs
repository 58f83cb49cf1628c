//! Reads the registry of built-in resources from upstream's discovery documents.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;

use super::resource::{Column, Resource, Subresource, Version};
use super::{Group, METRICS, Registry, api_version, gvk_type};
use crate::schema::types::SchemaRef;
use crate::schema::{Key, Value, json};

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

pub(super) fn load() -> Registry {
    let document = |bytes: &[u8]| {
        json::parse(bytes)
            .map(|parsed| parsed.value)
            .unwrap_or_default()
    };
    let legacy = document(include_bytes!("../documents/legacy-resources.json"));
    let aggregated = document(include_bytes!("../documents/aggregated-apis.json"));
    let columns = document(include_bytes!("../documents/columns.json"));

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

pub(super) fn read_resource(group: &Key, version: &Key, item: &Value) -> Resource {
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
        stored_as: super::super::groups::stored_as(group, plural).map(
            |(api_version, type_name)| (api_version.into(), Arc::new(SchemaRef::named(type_name))),
        ),
        versions: Vec::new(),
        rules: super::super::groups::rules(group, plural),
        custom: None,
    }
}

pub(super) fn read_version(
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
        conversion: super::super::groups::conversion(group, plural, version),
        custom: None,
        forms: Arc::default(),
    }
}
