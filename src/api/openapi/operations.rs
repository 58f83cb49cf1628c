//! The operations of each path, derived from the registry: the part that both OpenAPI versions share.

use super::parameters::{PRETTY, Parameter, path};
use super::verbs::{CUSTOM, CUSTOM_MEDIA, STATUS, Type, VERBS, Verb};
use super::{connections, custom};
use crate::resources::{Registry, Resource, Version, gvk_type};
use crate::schema::{Object, Value};
use crate::value;

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
    /// Completes the operation `out` with the part that both versions share: the responses, in the form that `answer`
    /// gives the name of a component (or text), and the kind, with group, version and kind ordered by `gvk`.
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
