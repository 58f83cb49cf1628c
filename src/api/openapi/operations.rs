//! What can be done on which path, read off the registry: the part that both OpenAPI versions share.

use crate::resources::{Registry, Resource, Version, gvk_type};

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
        let gvk = match version.subresource(sub) {
            Some(sub) => (
                sub.group.to_string(),
                sub.version.to_string(),
                sub.kind.to_string(),
            ),
            None => (
                resource.group.to_string(),
                version.name.to_string(),
                resource.kind.to_string(),
            ),
        };
        let of = gvk_type(&gvk.0, &gvk.1, &gvk.2)
            .unwrap_or_default()
            .to_owned();
        let list = gvk_type(&resource.group, &version.name, &resource.list_kind)
            .unwrap_or_default()
            .to_owned();
        let kind = &resource.kind;
        let what = if sub.is_empty() {
            kind.to_string()
        } else {
            format!("{sub} of the specified {kind}")
        };
        let ok = |name: &str| vec![(200, "OK", name.to_owned())];
        let written = |name: &str| {
            vec![
                (200, "OK", name.to_owned()),
                (201, "Created", name.to_owned()),
            ]
        };
        let (method, action, prefix, parameters, body, responses, description) = match verb {
            "list" => (
                "get",
                "list",
                "list",
                LIST,
                None,
                ok(&list),
                format!("list or watch objects of kind {kind}"),
            ),
            "create" => {
                let mut codes = written(&of);
                codes.push((202, "Accepted", of.clone()));
                (
                    "post",
                    "post",
                    "create",
                    WRITE,
                    Some(of.clone()),
                    codes,
                    if sub.is_empty() {
                        format!("create a {kind}")
                    } else {
                        format!("create {what}")
                    },
                )
            }
            "deletecollection" => (
                "delete",
                "deletecollection",
                "delete",
                DELETE,
                Some(DELETE_OPTIONS.to_owned()),
                ok(STATUS),
                format!("delete collection of {kind}"),
            ),
            "get" => (
                "get",
                "get",
                "read",
                &[][..],
                None,
                ok(&of),
                if sub.is_empty() {
                    format!("read the specified {kind}")
                } else {
                    format!("read {what}")
                },
            ),
            "update" => (
                "put",
                "put",
                "replace",
                WRITE,
                Some(of.clone()),
                written(&of),
                if sub.is_empty() {
                    format!("replace the specified {kind}")
                } else {
                    format!("replace {what}")
                },
            ),
            "patch" => (
                "patch",
                "patch",
                "patch",
                PATCH,
                Some(PATCH_TYPE.to_owned()),
                written(&of),
                if sub.is_empty() {
                    format!("partially update the specified {kind}")
                } else {
                    format!("partially update {what}")
                },
            ),
            "delete" => (
                "delete",
                "delete",
                "delete",
                DELETE,
                Some(DELETE_OPTIONS.to_owned()),
                vec![
                    (200, "OK", STATUS.to_owned()),
                    (202, "Accepted", STATUS.to_owned()),
                ],
                format!("delete a {kind}"),
            ),
            _ => return None,
        };
        let group = capital(&group_name(&resource.group));
        let collection = if verb == "deletecollection" {
            "Collection"
        } else {
            ""
        };
        let before = if resource.namespaced && scope == "Namespaced" {
            "Namespaced"
        } else {
            ""
        };
        let behind = if scope == "ForAllNamespaces" {
            scope
        } else {
            ""
        };
        let id = format!(
            "{prefix}{group}{}{collection}{before}{kind}{}{behind}",
            capital(&version.name),
            capital(sub)
        );
        Some(Operation {
            method,
            action,
            id,
            description,
            parameters: parameters.to_vec(),
            body_optional: action.starts_with("delete"),
            body,
            responses,
            gvk,
        })
    }
}
