//! What can be done on which path, read off the registry: the part that both OpenAPI versions share.

use std::collections::BTreeMap;

use crate::resources::{Registry, Resource, Version, gvk_type};
use crate::schema::{Key, Object, Value, builtin};

/// A member of a path template or of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `fieldManager`
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// Part of the path, and so required.
    pub in_path: bool,
}

const fn query(name: &'static str, kind: &'static str) -> Parameter {
    Parameter {
        name,
        kind,
        in_path: false,
    }
}

const fn path(name: &'static str) -> Parameter {
    Parameter {
        name,
        kind: "string",
        in_path: true,
    }
}

const PRETTY: Parameter = query("pretty", "string");
const WRITE: &[Parameter] = &[
    query("dryRun", "string"),
    query("fieldManager", "string"),
    query("fieldValidation", "string"),
];
const PATCH: &[Parameter] = &[
    query("dryRun", "string"),
    query("fieldManager", "string"),
    query("fieldValidation", "string"),
    query("force", "boolean"),
];
const DELETE: &[Parameter] = &[
    query("dryRun", "string"),
    query("gracePeriodSeconds", "integer"),
    query(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
    ),
    query("orphanDependents", "boolean"),
    query("propagationPolicy", "string"),
];
const LIST: &[Parameter] = &[
    query("allowWatchBookmarks", "boolean"),
    query("continue", "string"),
    query("fieldSelector", "string"),
    query("labelSelector", "string"),
    query("limit", "integer"),
    query("resourceVersion", "string"),
    query("resourceVersionMatch", "string"),
    query("sendInitialEvents", "boolean"),
    query("shardSelector", "string"),
    query("timeoutSeconds", "integer"),
    query("watch", "boolean"),
];

/// One operation of a path.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`.
    pub method: &'static str,
    /// `x-kubernetes-action`
    pub action: &'static str,
    /// `readCoreV1NamespacedConfigMap`
    pub id: String,
    /// One line for people.
    pub description: String,
    /// Of the query, beside those of the path.
    pub parameters: Vec<Parameter>,
    /// The component name of the body's type; `Patch` of apimachinery for patches.
    pub body: Option<String>,
    /// The body may be left out.
    pub body_optional: bool,
    /// Codes and the component name of what they answer with.
    pub responses: Vec<(u16, &'static str, String)>,
    /// Group, version and kind of the body.
    pub gvk: (String, String, String),
}

/// A path and its operations.
#[derive(Clone, Debug)]
pub struct PathItem {
    /// `/api/v1/namespaces/{namespace}/configmaps/{name}`
    pub path: String,
    /// In upstream's order.
    pub operations: Vec<Operation>,
    /// Shared by the operations.
    pub parameters: Vec<Parameter>,
}

/// A type that an operation takes or answers with.
#[derive(Clone, Copy)]
enum Type {
    /// The resource's, or the subresource's.
    One,
    /// The list of the resource's.
    List,
    /// A component by its name.
    Named(&'static str),
}

/// What is the same in all operations of a verb.
struct Verb {
    name: &'static str,
    method: &'static str,
    action: &'static str,
    /// What identifiers begin with.
    prefix: &'static str,
    /// What they have before the kind.
    collection: &'static str,
    /// What descriptions begin with.
    words: &'static str,
    parameters: &'static [Parameter],
    body: Option<Type>,
    answer: Type,
    answers: &'static [(u16, &'static str)],
}

const DONE: &[(u16, &str)] = &[(200, "OK")];
const WRITTEN: &[(u16, &str)] = &[(200, "OK"), (201, "Created")];

const fn verb(name: &'static str, method: &'static str, prefix: &'static str) -> Verb {
    Verb {
        name,
        method,
        action: method,
        prefix,
        collection: "",
        words: prefix,
        parameters: &[],
        body: None,
        answer: Type::One,
        answers: DONE,
    }
}

const VERBS: [Verb; 7] = [
    Verb {
        action: "list",
        words: "list or watch objects of kind",
        parameters: LIST,
        answer: Type::List,
        ..verb("list", "get", "list")
    },
    Verb {
        parameters: WRITE,
        body: Some(Type::One),
        answers: &[(200, "OK"), (201, "Created"), (202, "Accepted")],
        ..verb("create", "post", "create")
    },
    Verb {
        action: "deletecollection",
        collection: "Collection",
        words: "delete collection of",
        parameters: DELETE,
        body: Some(Type::Named(DELETE_OPTIONS)),
        answer: Type::Named(STATUS),
        ..verb("deletecollection", "delete", "delete")
    },
    verb("get", "get", "read"),
    Verb {
        parameters: WRITE,
        body: Some(Type::One),
        answers: WRITTEN,
        ..verb("update", "put", "replace")
    },
    Verb {
        words: "partially update",
        parameters: PATCH,
        body: Some(Type::Named(PATCH_TYPE)),
        answers: WRITTEN,
        ..verb("patch", "patch", "patch")
    },
    Verb {
        parameters: DELETE,
        body: Some(Type::Named(DELETE_OPTIONS)),
        answer: Type::Named(STATUS),
        answers: &[(200, "OK"), (202, "Accepted")],
        ..verb("delete", "delete", "delete")
    },
];

/// The component name of the type of patches.
pub const PATCH_TYPE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// `rbacAuthorization` of `rbac.authorization.k8s.io`, `core` of the group without a name.
pub fn group_name(group: &str) -> String {
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    if short.is_empty() {
        return "core".to_owned();
    }
    let mut out = String::new();
    for (i, word) in short.split('.').enumerate() {
        out.push_str(&if i == 0 {
            word.to_owned()
        } else {
            capital(word)
        });
    }
    out
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// Every path of the built-in resources of a group in one version, in order.
pub fn paths(registry: &Registry, group: &str, version: &str) -> Vec<PathItem> {
    let mut resources: Vec<(&Resource, &Version)> = registry
        .resources()
        .filter(|resource| *resource.group == *group && !resource.is_custom())
        .filter_map(|resource| Some((&**resource, resource.version(version)?)))
        .filter(|(_, version)| !version.type_name.is_empty())
        .collect();
    resources.sort_by(|a, b| a.0.plural.cmp(&b.0.plural));
    let mut out = Vec::new();
    for (resource, version) in resources {
        let of = Of { resource, version };
        out.extend(of.paths());
    }
    out.retain(|item| !item.operations.is_empty());
    out.sort_by(|a: &PathItem, b| a.path.cmp(&b.path));
    out
}

/// How a version of OpenAPI writes what is done on a path.
pub struct Form {
    /// An operation under a tag.
    pub operation: fn(&Operation, &str) -> Value,
    /// A parameter.
    pub parameter: fn(&Parameter) -> Value,
}

/// Writes the paths of a group in one version into `paths`, and the types that they speak of into `names`.
pub fn write(
    (group, version): (&str, &str),
    items: &[PathItem],
    form: &Form,
    paths: &mut Object,
    names: &mut Vec<String>,
) {
    let tag = format!("{}_{version}", group_name(group));
    for item in items {
        let mut operations = Object::new();
        for operation in &item.operations {
            names.extend(operation.body.clone());
            names.extend(operation.responses.iter().map(|(.., name)| name.clone()));
            operations.insert(operation.method, (form.operation)(operation, &tag));
        }
        let parameters: Vec<Value> = item.parameters.iter().map(form.parameter).collect();
        operations.insert("parameters", parameters);
        paths.insert(item.path.as_str(), operations);
    }
}

/// The schemas called `names` and all that they refer to, each as `form` writes it, in order of their names.
pub fn schemas(mut names: Vec<String>, form: fn(&Value) -> Value) -> Object {
    let document = &*builtin::DOCUMENT;
    let mut known = BTreeMap::new();
    while let Some(name) = names.pop() {
        if let Some(schema) = document.get(&name).filter(|_| !known.contains_key(&name)) {
            references(schema, &mut names);
            known.insert(name, schema);
        }
    }
    let schemas = known.into_iter();
    schemas
        .map(|(name, schema)| (Key::from(name), form(schema)))
        .collect()
}

/// What refers to a schema of version 3 begins so.
pub const REFERENCE: &str = "#/components/schemas/";

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter() {
                match (key.as_str(), value.as_str()) {
                    ("$ref", Some(name)) => {
                        out.extend(name.strip_prefix(REFERENCE).map(str::to_owned));
                    }
                    _ => references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

struct Of<'a> {
    resource: &'a Resource,
    version: &'a Version,
}

impl Of<'_> {
    fn paths(&self) -> Vec<PathItem> {
        let resource = self.resource;
        let root = if resource.group.is_empty() {
            format!("/api/{}", self.version.name)
        } else {
            format!("/apis/{}/{}", resource.group, self.version.name)
        };
        let place = if resource.namespaced {
            format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
        } else {
            format!("{root}/{}", resource.plural)
        };
        let mut outer = vec![PRETTY];
        if resource.namespaced {
            outer.insert(0, path("namespace"));
        }
        let mut inner = outer.clone();
        inner.insert(0, path("name"));
        let mut out = vec![
            PathItem {
                path: place.clone(),
                operations: self.operations(
                    "",
                    &["list", "create", "deletecollection"],
                    "Namespaced",
                ),
                parameters: outer,
            },
            PathItem {
                path: format!("{place}/{{name}}"),
                operations: self.operations(
                    "",
                    &["get", "update", "delete", "patch"],
                    "Namespaced",
                ),
                parameters: inner.clone(),
            },
        ];
        if resource.namespaced {
            out.push(PathItem {
                path: format!("{root}/{}", resource.plural),
                operations: self.operations("", &["list"], "ForAllNamespaces"),
                parameters: vec![PRETTY],
            });
        }
        for sub in &self.version.subresources {
            out.push(PathItem {
                path: format!("{place}/{{name}}/{}", sub.name),
                operations: self.operations(
                    &sub.name,
                    &["get", "update", "create", "delete", "patch"],
                    "Namespaced",
                ),
                parameters: inner.clone(),
            });
        }
        out
    }

    fn operations(&self, sub: &str, verbs: &[&str], scope: &str) -> Vec<Operation> {
        let served = match self.version.subresource(sub) {
            Some(sub) => &sub.verbs,
            None => &self.version.verbs,
        };
        verbs
            .iter()
            .filter(|verb| served.iter().any(|known| **known == ***verb))
            .filter_map(|verb| self.operation(sub, verb, scope))
            .collect()
    }

    fn operation(&self, sub: &str, verb: &str, scope: &str) -> Option<Operation> {
        let (resource, version) = (self.resource, self.version);
        let verb = VERBS.iter().find(|known| known.name == verb)?;
        let named = |kind: &str| {
            let found = gvk_type(&resource.group, &version.name, kind);
            found.unwrap_or_default().to_owned()
        };
        let (gvk, one) = match version.subresource(sub) {
            Some(sub) => (
                (&sub.group, &sub.version, &sub.kind),
                gvk_type(&sub.group, &sub.version, &sub.kind)?.to_owned(),
            ),
            None => (
                (&resource.group, &version.name, &resource.kind),
                named(&resource.kind),
            ),
        };
        let name = |what: Type| match what {
            Type::One => one.clone(),
            Type::List => named(&resource.list_kind),
            Type::Named(name) => name.to_owned(),
        };
        let kind = &resource.kind;
        let of_kind = match sub {
            "" => kind.to_string(),
            sub => format!("{sub} of the specified {kind}"),
        };
        let namespaced = resource.namespaced && scope == "Namespaced";
        let id = [
            verb.prefix,
            &capital(&group_name(&resource.group)),
            &capital(&version.name),
            verb.collection,
            if namespaced { scope } else { "" },
            kind,
            &capital(sub),
            if scope == "Namespaced" { "" } else { scope },
        ];
        let responses = verb
            .answers
            .iter()
            .map(|(code, words)| (*code, *words, name(verb.answer)));
        Some(Operation {
            method: verb.method,
            action: verb.action,
            id: id.concat(),
            description: format!("{} {of_kind}", verb.words),
            parameters: verb.parameters.to_vec(),
            body: verb.body.map(name),
            body_optional: verb.method == "delete",
            responses: responses.collect(),
            gvk: (gvk.0.to_string(), gvk.1.to_string(), gvk.2.to_string()),
        })
    }
}
