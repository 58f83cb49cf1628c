//! The operations of each path, derived from the registry: the part that both OpenAPI versions share.

use std::collections::BTreeMap;

use super::{connections, custom, prose};
use crate::resources::{Registry, Resource, Version, gvk_type};
use crate::schema::{Key, Object, Value, builtin};
use crate::value;

/// A parameter in the path or the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `fieldManager`
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// Whether it is part of the path, and so required.
    pub in_path: bool,
}

pub const fn query(name: &'static str, kind: &'static str) -> Parameter {
    Parameter {
        name,
        kind,
        in_path: false,
    }
}

pub const fn path(name: &'static str) -> Parameter {
    Parameter {
        name,
        kind: "string",
        in_path: true,
    }
}

pub const PRETTY: Parameter = query("pretty", "string");
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
const DELETE_ALL: &[Parameter] = &[
    query("continue", "string"),
    query("dryRun", "string"),
    query("fieldSelector", "string"),
    query("gracePeriodSeconds", "integer"),
    query(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
    ),
    query("labelSelector", "string"),
    query("limit", "integer"),
    query("orphanDependents", "boolean"),
    query("propagationPolicy", "string"),
    query("resourceVersion", "string"),
    query("resourceVersionMatch", "string"),
    query("sendInitialEvents", "boolean"),
    query("shardSelector", "string"),
    query("timeoutSeconds", "integer"),
];
const READ: &[Parameter] = &[query("resourceVersion", "string")];
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

/// The media types of objects.
pub const OBJECTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// The media types of a list that may be a watch.
const STREAMS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
/// The media types of custom resources, in both directions.
pub const CUSTOM_MEDIA: &[&str] = &["application/json", "application/yaml"];

/// One operation of a path.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`.
    pub method: &'static str,
    /// `x-kubernetes-action`; empty if the path is not a resource.
    pub action: &'static str,
    /// `readCoreV1NamespacedConfigMap`
    pub id: String,
    /// A one-line description.
    pub description: String,
    /// Query parameters besides those of the path.
    pub parameters: Vec<Parameter>,
    /// The component name of the body's type; `Patch` of apimachinery for patches.
    pub body: Option<String>,
    /// Whether the body is optional.
    pub body_optional: bool,
    /// Status codes with description and component name of the response; None for text.
    pub responses: Vec<(u16, &'static str, Option<String>)>,
    /// The media types of the responses.
    pub produces: &'static [&'static str],
    /// Group, version and kind of the body.
    pub gvk: (String, String, String),
    /// Whether it is on a custom resource, which has neither protobuf nor strategic merge patches.
    pub custom: bool,
}

impl Operation {
    /// `out` with what both versions say at its end: the answers, of which `answer` makes the form of a component's name (or
    /// of a text), and the kind, whose group, version and kind `gvk` puts in order.
    pub fn finish<'a>(
        &'a self,
        mut out: Object,
        answer: impl Fn(Option<&str>) -> (&'static str, Value),
        gvk: impl Fn(&'a str, &'a str, &'a str) -> Value,
    ) -> Value {
        let mut responses = Object::new();
        for (code, description, name) in &self.responses {
            let mut response = Object::new();
            response.insert("description", *description);
            let (form, answer) = answer(name.as_deref());
            response.insert(form, answer);
            responses.insert(code.to_string(), response);
        }
        responses.insert("401", value!({"description": "Unauthorized"}));
        out.insert("responses", responses);
        if !self.action.is_empty() {
            out.insert("x-kubernetes-action", self.action);
            let (group, version, kind) = &self.gvk;
            out.insert("x-kubernetes-group-version-kind", gvk(group, version, kind));
        }
        Value::Object(out)
    }
}

/// A path and its operations.
#[derive(Clone, Debug)]
pub struct PathItem {
    /// `/api/v1/namespaces/{namespace}/configmaps/{name}`
    pub path: String,
    /// In upstream's order.
    pub operations: Vec<Operation>,
    /// Parameters shared by the operations.
    pub parameters: Vec<Parameter>,
}

/// The type of a body or response.
#[derive(Clone, Copy)]
enum Type {
    /// The type of the resource, or the subresource.
    One,
    /// The list type of the resource.
    List,
    /// The response to a deletion.
    Deleted,
    /// A component with this name.
    Named(&'static str),
}

/// The common parts of all operations of a verb.
struct Verb {
    name: &'static str,
    method: &'static str,
    action: &'static str,
    /// The beginning of identifiers.
    prefix: &'static str,
    /// The part before the kind.
    collection: &'static str,
    /// The part after the kind.
    suffix: &'static str,
    /// The beginning of descriptions.
    words: &'static str,
    /// Their end.
    hint: &'static str,
    parameters: &'static [Parameter],
    body: Option<Type>,
    answer: Type,
    produces: &'static [&'static str],
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
        suffix: "",
        words: prefix,
        hint: "",
        parameters: &[],
        body: None,
        answer: Type::One,
        produces: OBJECTS,
        answers: DONE,
    }
}

const VERBS: [Verb; 9] = [
    Verb {
        action: "list",
        words: "list or watch objects of kind",
        parameters: LIST,
        answer: Type::List,
        produces: STREAMS,
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
        parameters: DELETE_ALL,
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
        answer: Type::Deleted,
        answers: &[(200, "OK"), (202, "Accepted")],
        ..verb("delete", "delete", "delete")
    },
    Verb {
        words: "watch changes to an object of kind",
        hint: ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with \
               the 'fieldSelector' parameter.",
        ..watch("watch")
    },
    Verb {
        suffix: "List",
        words: "watch individual changes to a list of",
        hint: ". deprecated: use the 'watch' parameter with a list operation instead.",
        ..watch("watchlist")
    },
];

/// A watch at the old paths.
const fn watch(name: &'static str) -> Verb {
    Verb {
        action: name,
        parameters: LIST,
        answer: Type::Named(WATCH_EVENT),
        produces: STREAMS,
        ..verb(name, "get", "watch")
    }
}

/// The verbs of custom resources.
const CUSTOM: [Verb; 7] = {
    let [list, create, delete_all, get, update, patch, delete, ..] = VERBS;
    [
        Verb {
            words: "list objects of kind",
            ..list
        },
        create,
        Verb {
            parameters: LIST,
            body: None,
            ..delete_all
        },
        Verb {
            parameters: READ,
            ..get
        },
        update,
        Verb {
            answers: DONE,
            ..patch
        },
        delete,
    ]
};

/// The component name of the type of patches.
pub const PATCH_TYPE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
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

pub fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// All paths of a group's resources in one version, in order.
pub fn paths(registry: &Registry, group: &str, version: &str) -> Vec<PathItem> {
    let mut resources: Vec<(&Resource, &Version)> = registry
        .resources()
        .filter(|resource| *resource.group == *group)
        .filter_map(|resource| Some((&**resource, resource.version(version)?)))
        .filter(|(resource, version)| resource.is_custom() || !version.type_name.is_empty())
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

/// How an OpenAPI version encodes a document.
pub struct Form {
    /// Whether it is version 2, not 3.
    pub v2: bool,
    /// An operation under a tag.
    pub operation: fn(&Operation, &str) -> Value,
    /// A parameter.
    pub parameter: fn(&Parameter) -> Value,
    /// A schema of a built-in type, given in version 3.
    pub schema: fn(&Value) -> Value,
}

/// The prefix of references to schemas in version 3.
pub const REFERENCE: &str = "#/components/schemas/";
/// The prefix of references to schemas in version 2.
pub const REFERENCE_V2: &str = "#/definitions/";

impl Form {
    /// A schema that refers to a type, with its own description unless that is empty.
    pub fn refer(&self, name: &str, words: &str) -> Value {
        if self.v2 {
            let mut out = value!({"$ref": (format!("{REFERENCE_V2}{name}"))});
            if !words.is_empty() {
                out.set("description", words);
            }
            return out;
        }
        let reference = value!({"$ref": (format!("{REFERENCE}{name}"))});
        match words {
            "" => reference,
            words => value!({"description": words, "allOf": (vec![reference])}),
        }
    }
}

/// A document being written: the operations of paths, and the types that they use.
#[derive(Default)]
pub struct Writing {
    paths: Object,
    names: Vec<String>,
    /// The types of custom resources, in the form of the document.
    custom: BTreeMap<String, Value>,
}

impl Writing {
    /// Adds everything that a group serves in one version.
    pub fn add(&mut self, registry: &Registry, group: &str, version: &str, form: &Form) {
        let tag = format!("{}_{version}", group_name(group));
        for resource in registry
            .resources()
            .filter(|resource| *resource.group == *group)
        {
            if let (Some(custom), Some(_)) = (&resource.custom, resource.version(version)) {
                self.custom
                    .extend(custom::types(resource, custom, version, form));
            }
        }
        for item in paths(registry, group, version) {
            self.item(item, &tag, form);
        }
    }

    /// Adds a path.
    pub fn item(&mut self, item: PathItem, tag: &str, form: &Form) {
        let (shared, operations) = share(item.parameters, item.operations);
        let mut written = Object::new();
        for operation in &operations {
            self.names.extend(operation.body.clone());
            let answers = operation.responses.iter();
            self.names
                .extend(answers.filter_map(|(.., name)| name.clone()));
            written.insert(operation.method, (form.operation)(operation, tag));
        }
        if !shared.is_empty() {
            let parameters: Vec<Value> = shared.iter().map(form.parameter).collect();
            written.insert("parameters", parameters);
        }
        self.paths.insert(item.path, written);
    }

    /// The paths, and the schemas of all types that they use, sorted by name. `everywhere` are the groups and versions
    /// for which shared types are listed.
    pub fn finish(self, form: &Form, everywhere: &[(&str, &str)]) -> (Object, Object) {
        let mut names = self.names;
        let document = &*builtin::DOCUMENT;
        let mut known = self.custom;
        known
            .values()
            .for_each(|schema| references(schema, &mut names));
        while let Some(name) = names.pop() {
            if let Some(schema) = document.get(&name).filter(|_| !known.contains_key(&name)) {
                references(schema, &mut names);
                let mut schema = (form.schema)(schema);
                belong(&name, schema.object_mut(), everywhere);
                prose::describe(&name, schema.object_mut());
                known.insert(name, schema);
            }
        }
        let schemas = known.into_iter();
        let schemas = schemas.map(|(name, schema)| (Key::from(name), schema));
        (self.paths, schemas.collect())
    }
}

/// Moves parameters that all operations of a path share to the path, sorted by name.
fn share(
    mut shared: Vec<Parameter>,
    mut operations: Vec<Operation>,
) -> (Vec<Parameter>, Vec<Operation>) {
    if let Some((first, others)) = operations.split_first() {
        let all = first.parameters.iter().filter(|parameter| {
            others
                .iter()
                .all(|operation| operation.parameters.contains(parameter))
        });
        shared.extend(all);
    }
    shared.sort_by_key(|parameter| parameter.name);
    for operation in &mut operations {
        operation
            .parameters
            .retain(|parameter| !shared.contains(parameter));
    }
    (shared, operations)
}

/// Lists the kinds of a type that is part of many groups.
fn belong(name: &str, schema: &mut Object, everywhere: &[(&str, &str)]) {
    const GVK: &str = "x-kubernetes-group-version-kind";
    if schema.get(GVK).and_then(Value::as_str).is_none() {
        return;
    }
    let (_, kind) = name.rsplit_once('.').unwrap_or_default();
    let kinds = everywhere.iter();
    let kinds = kinds
        .map(|(group, version)| value!({"group": (*group), "kind": kind, "version": (*version)}));
    schema.insert(GVK, kinds.collect::<Vec<Value>>());
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter() {
                match (key.as_str(), value.as_str()) {
                    ("$ref", Some(name)) => {
                        let name = name
                            .strip_prefix(REFERENCE)
                            .or(name.strip_prefix(REFERENCE_V2));
                        out.extend(name.map(str::to_owned));
                    }
                    _ => references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

/// A resource in a version.
pub struct Of<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// Its version.
    pub version: &'a Version,
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
        if !resource.is_custom() {
            out.extend(self.old_watches(&root));
        }
        for sub in &self.version.subresources {
            if let Some(options) = connections::options(&sub.name, &sub.kind) {
                out.extend(connections::paths(self, &place, sub, options, &inner));
                continue;
            }
            out.push(PathItem {
                path: format!("{place}/{{name}}/{}", sub.name),
                operations: self.operations(
                    &sub.name,
                    match resource.is_custom() {
                        true => &["get", "update", "patch"],
                        false => &["get", "update", "create", "delete", "patch"],
                    },
                    "Namespaced",
                ),
                parameters: inner.clone(),
            });
        }
        out
    }

    /// The old paths of watches, from before lists had the parameter `watch`.
    fn old_watches(&self, root: &str) -> Vec<PathItem> {
        let plural = &self.resource.plural;
        if !self.version.verbs.iter().any(|verb| **verb == *"watch") {
            return Vec::new();
        }
        let item = |path: String, verb, scope, parameters: Vec<Parameter>| PathItem {
            path,
            operations: self.operation("", verb, scope).into_iter().collect(),
            parameters,
        };
        let all = format!("{root}/watch/{plural}");
        if !self.resource.namespaced {
            let one = format!("{all}/{{name}}");
            return vec![
                item(all, "watchlist", "Namespaced", vec![PRETTY]),
                item(one, "watch", "Namespaced", vec![path("name"), PRETTY]),
            ];
        }
        let some = format!("{root}/watch/namespaces/{{namespace}}/{plural}");
        let one = format!("{some}/{{name}}");
        let (name, namespace) = (path("name"), path("namespace"));
        vec![
            item(all, "watchlist", "ForAllNamespaces", vec![PRETTY]),
            item(some, "watchlist", "Namespaced", vec![namespace, PRETTY]),
            item(one, "watch", "Namespaced", vec![name, namespace, PRETTY]),
        ]
    }

    fn operations(&self, sub: &str, verbs: &[&str], scope: &str) -> Vec<Operation> {
        let served = match self.version.subresource(sub) {
            Some(sub) => &sub.verbs,
            None => &self.version.verbs,
        };
        // Whether a definition is being deleted makes no difference in the documents.
        let all = self.resource.is_custom();
        verbs
            .iter()
            .filter(|verb| all || served.iter().any(|known| **known == ***verb))
            .filter_map(|verb| self.operation(sub, verb, scope))
            .collect()
    }

    fn operation(&self, sub: &str, verb: &str, scope: &str) -> Option<Operation> {
        let (resource, version) = (self.resource, self.version);
        let custom = resource.is_custom();
        let verbs: &[Verb] = if custom { &CUSTOM } else { &VERBS };
        let mut verbs = verbs.iter();
        let verb = verbs.find(|known| known.name == verb)?;
        let named = |group: &str, version: &str, kind: &str| match gvk_type(group, version, kind) {
            Some(name) => name.to_owned(),
            None => custom::name(group, version, kind),
        };
        let of_resource = (&resource.group, &version.name, &resource.kind);
        let of_sub = version.subresource(sub);
        let body = of_sub.map(|sub| (&sub.group, &sub.version, &sub.kind));
        let body = body.unwrap_or(of_resource);
        let gvk = if custom { of_resource } else { body };
        // Options of connecting subresources have no type in the documents.
        if !custom && gvk_type(body.0, body.1, body.2).is_none() {
            return None;
        }
        let one = named(body.0, body.1, body.2);
        let name = |what: Type| match what {
            Type::One => one.clone(),
            Type::List => named(&resource.group, &version.name, &resource.list_kind),
            // A deletion that only begins returns the object, which upstream's documents do not mention.
            Type::Deleted
                if ["namespaces", "customresourcedefinitions"].contains(&&*resource.plural) =>
            {
                STATUS.to_owned()
            }
            Type::Deleted if resource.rules.deletion.returns_object => one.clone(),
            Type::Deleted => STATUS.to_owned(),
            Type::Named(name) => name.to_owned(),
        };
        let kind = &resource.kind;
        let article = match verb.name {
            "get" | "update" | "patch" => "the specified ",
            "create" | "delete" if kind.ends_with('s') && !kind.ends_with("ss") => "",
            "create" | "delete" if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => "an ",
            "create" | "delete" => "a ",
            _ => "",
        };
        let of_kind = match sub {
            "" => format!("{article}{kind}"),
            sub => format!("{sub} of {article}{kind}"),
        };
        let namespaced = resource.namespaced && scope == "Namespaced";
        let id = [
            verb.prefix,
            &capital(&group_name(&resource.group)),
            &capital(&version.name),
            verb.collection,
            if namespaced { scope } else { "" },
            kind,
            verb.suffix,
            &capital(sub),
            if scope == "Namespaced" { "" } else { scope },
        ];
        let responses = verb
            .answers
            .iter()
            .map(|(code, words)| (*code, *words, Some(name(verb.answer))));
        Some(Operation {
            method: verb.method,
            action: verb.action,
            id: id.concat(),
            description: format!("{} {of_kind}{}", verb.words, verb.hint),
            parameters: verb.parameters.to_vec(),
            body: verb.body.map(name),
            body_optional: verb.method == "delete",
            responses: responses.collect(),
            produces: if custom { CUSTOM_MEDIA } else { verb.produces },
            gvk: (gvk.0.to_string(), gvk.1.to_string(), gvk.2.to_string()),
            custom,
        })
    }
}
