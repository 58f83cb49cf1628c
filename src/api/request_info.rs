//! Parses what a request is about from its method and path. Follows
//! k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.

use http::Method;

use super::query::Query;
use crate::auth::Attributes;
use crate::meta::url;

/// The subject of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// `get`, `list`, `watch`, ... for resources, otherwise the lower-case method.
    pub verb: String,
    /// Whether the path names a resource.
    pub is_resource: bool,
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// Empty if there is none.
    pub namespace: String,
    /// The path leads through a namespace, although that may be empty: `/api/v1/namespaces//pods`.
    pub within: bool,
    /// `pods`
    pub resource: String,
    /// `status`
    pub subresource: String,
    /// The path after the subresource (`proxy/a/b`).
    pub rest: String,
    /// The object's name. For lists and watches, except those of the old paths, the name in a field selector.
    pub name: String,
    /// The name in the path, regardless of selectors.
    pub path_name: String,
    /// The decoded path.
    pub path: String,
    /// The path has the old form `/api/v1/watch/...`.
    pub old_watch: bool,
    /// A path of an old form ends too early: upstream then has no RequestInfo.
    pub undetermined: bool,
}

impl Info {
    /// Whether it has no time limit: a watch, a stream from or to a pod, a profile.
    pub fn is_long_running(&self) -> bool {
        let streams = ["attach", "exec", "log", "portforward", "proxy"];
        matches!(&*self.verb, "watch" | "proxy")
            || match self.is_resource {
                true => streams.contains(&&*self.subresource),
                false => self.path.starts_with("/debug/pprof/"),
            }
    }

    /// Whether it changes nothing.
    pub fn reads(&self) -> bool {
        matches!(&*self.verb, "get" | "list" | "watch")
    }

    /// Parses a request line. A path that only looks encoded has been rejected before: see [`listen`](super::listen).
    pub fn of(method: &Method, path: &str, query: &Query) -> Info {
        let verb = method.as_str().to_ascii_lowercase();
        let mut info = Info {
            verb,
            path: url::path_unescape(path).unwrap_or_else(|_| path.to_owned()),
            ..Info::default()
        };
        // The path is decoded first: an encoded slash separates segments.
        let path = info.path.clone();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let mut parts: &[&str] = &parts;
        let skip = match parts.first() {
            Some(&"api") if parts.len() >= 3 => 1,
            Some(&"apis") if parts.len() >= 4 => {
                info.group = parts[1].to_owned();
                2
            }
            _ => return info,
        };
        parts = &parts[skip..];
        info.is_resource = true;
        info.version = parts[0].to_owned();
        parts = &parts[1..];
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        if parts[0] == "watch" || parts[0] == "proxy" {
            if parts.len() == 1 {
                info.undetermined = true;
                return info;
            }
            info.old_watch = parts[0] == "watch";
            info.verb = parts[0].to_owned();
            parts = &parts[1..];
        }
        if parts.first() == Some(&"namespaces")
            && let Some(namespace) = parts.get(1)
        {
            info.namespace = (*namespace).to_owned();
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                info.within = true;
                parts = &parts[2..];
            }
        }
        let part = |i: usize| parts.get(i).copied().unwrap_or_default().to_owned();
        info.resource = part(0);
        info.name = part(1);
        info.path_name = part(1);
        if info.verb != "proxy" {
            info.subresource = part(2);
        }
        info.rest = parts.get(3..).unwrap_or_default().join("/");
        // For the old paths and deletions only the name in the path counts.
        if info.name.is_empty() && info.verb == "get" {
            info.verb = if query.wants_watch() { "watch" } else { "list" }.to_owned();
            info.name = query.listed_name().unwrap_or_default();
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_owned();
        }
        info
    }

    /// The attributes for authorizers.
    pub fn attributes<'a>(&'a self, query: &'a Query) -> Attributes<'a> {
        if !self.is_resource {
            return Attributes {
                verb: &self.verb,
                path: Some(&self.path),
                ..Attributes::default()
            };
        }
        // Not all of the old paths have selectors.
        let selects =
            !self.old_watch && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection");
        Attributes {
            verb: &self.verb,
            namespace: &self.namespace,
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            name: &self.name,
            path: None,
            field_selector: if selects {
                query.get("fieldSelector").unwrap_or_default()
            } else {
                ""
            },
            label_selector: if selects {
                query.get("labelSelector").unwrap_or_default()
            } else {
                ""
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        for (method, path, query, verb, namespace, resource, name, subresource) in [
            ("GET", "/api/v1/pods", "", "list", "", "pods", "", ""),
            (
                "GET",
                "/api/v1/namespaces/a/pods",
                "watch",
                "watch",
                "a",
                "pods",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods",
                "watch=false",
                "list",
                "a",
                "pods",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/namespaces/a",
                "",
                "get",
                "a",
                "namespaces",
                "a",
                "",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "",
                "update",
                "a",
                "namespaces",
                "a",
                "finalize",
            ),
            (
                "POST",
                "/api/v1/namespaces",
                "",
                "create",
                "",
                "namespaces",
                "",
                "",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "",
                "patch",
                "a",
                "deployments",
                "d",
                "scale",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                "deletecollection",
                "a",
                "deployments",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a/secrets/s",
                "",
                "watch",
                "a",
                "secrets",
                "s",
                "",
            ),
            (
                "GET",
                "/api/v1/secrets",
                "fieldSelector=metadata.name%3Ds",
                "list",
                "",
                "secrets",
                "s",
                "",
            ),
            (
                "GET",
                "/api/v1/secrets",
                "watch=1&fieldSelector=type%3Dt,metadata.name%3Db,metadata.name%3Da",
                "watch",
                "",
                "secrets",
                "a",
                "",
            ),
            (
                "GET",
                "/api/v1/secrets",
                "fieldSelector=metadata.name%3Da%5C%3Db",
                "list",
                "",
                "secrets",
                "a=b",
                "",
            ),
            // Invalid selectors are ignored, and deletions and the old paths have no selected name.
            (
                "GET",
                "/api/v1/secrets",
                "fieldSelector=metadata.name%3Da&limit=x",
                "list",
                "",
                "secrets",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/secrets",
                "fieldSelector=metadata.name%21%3D%5C,metadata.name%3Da",
                "list",
                "",
                "secrets",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/secrets",
                "fieldSelector=metadata.name%3D..",
                "list",
                "",
                "secrets",
                "",
                "",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/secrets",
                "fieldSelector=metadata.name%3Ds",
                "deletecollection",
                "a",
                "secrets",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/watch/secrets",
                "fieldSelector=metadata.name%3Ds",
                "watch",
                "",
                "secrets",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/namespaces/a%2Fsecrets/s%2Fb",
                "",
                "get",
                "a",
                "secrets",
                "s",
                "b",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/status/b",
                "",
                "get",
                "a",
                "namespaces",
                "a",
                "status",
            ),
            (
                "GET",
                "/api/v1/proxy/namespaces/a/pods/p/b",
                "",
                "proxy",
                "a",
                "pods",
                "p",
                "",
            ),
            ("GET", "/api/v1//secrets", "", "get", "", "", "secrets", ""),
        ] {
            let info = Info::of(&method.parse().unwrap(), path, &Query::parse(query));
            assert_eq!(
                (
                    &*info.verb,
                    &*info.namespace,
                    &*info.resource,
                    &*info.name,
                    &*info.subresource
                ),
                (verb, namespace, resource, name, subresource),
                "{method} {path}?{query}"
            );
        }
        assert!(!Info::of(&Method::GET, "/apis/apps/v1", &Query::parse("")).is_resource);
    }

    #[test]
    fn a_path_may_lead_through_a_namespace_without_a_name() {
        for (path, namespace, within) in [
            ("/api/v1/namespaces//pods/p", "", true),
            ("/api/v1/namespaces/a/pods", "a", true),
            ("/api/v1/watch/namespaces//pods", "", true),
            ("/api/v1/namespaces/a", "a", false),
            ("/api/v1/namespaces/a/status", "a", false),
            ("/api/v1/namespaces//status", "", false),
            ("/api/v1/pods", "", false),
        ] {
            let info = Info::of(&Method::GET, path, &Query::parse(""));
            assert_eq!(
                (&*info.namespace, info.within),
                (namespace, within),
                "{path}"
            );
        }
    }

    #[test]
    fn authorizers_see_selectors_but_those_of_old_paths() {
        let query = Query::parse("fieldSelector=spec.nodeName%3Dn&labelSelector=a");
        for (path, fields, labels) in [
            ("/api/v1/pods", "spec.nodeName=n", "a"),
            ("/api/v1/watch/pods", "", ""),
            ("/api/v1/namespaces/a/pods/p", "", ""),
        ] {
            let info = Info::of(&Method::GET, path, &query);
            let wants = info.attributes(&query);
            let selectors = (wants.field_selector, wants.label_selector);
            assert_eq!(selectors, (fields, labels), "{path}");
            assert!(wants.is_resource());
        }
        let info = Info::of(&Method::GET, "/healthz", &query);
        assert_eq!(info.attributes(&query).path, Some("/healthz"));
    }
}
