//! What a request is about, read off its method and path. Follows
//! k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.

use http::Method;

use super::query::Query;
use crate::auth::Attributes;

/// A request's subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// `get`, `list`, `watch`, ... for resources, else the lower-case method.
    pub verb: String,
    /// Whether the path names a resource.
    pub is_resource: bool,
    /// Empty for core.
    pub group: String,
    /// `v1`
    pub version: String,
    /// Empty for none.
    pub namespace: String,
    /// `pods`
    pub resource: String,
    /// `status`
    pub subresource: String,
    /// What stands behind the subresource (`proxy/a/b`).
    pub rest: String,
    /// The object's name; of lists and watches the one that a field selector names.
    pub name: String,
    /// The name as the path has it, without what selectors say.
    pub path_name: String,
    /// The decoded path.
    pub path: String,
    /// The path was of the old form `/api/v1/watch/...`.
    pub old_watch: bool,
    /// The path ends where the old forms name what they are about: upstream then knows no request.
    pub undetermined: bool,
}

impl Info {
    /// Whether it may go on for as long as it likes: a watch, or a stream from or to a pod.
    pub fn is_long_running(&self) -> bool {
        let streams = ["attach", "exec", "log", "portforward", "proxy"];
        self.verb == "watch" || (self.is_resource && streams.contains(&&*self.subresource))
    }

    /// Reads a request line.
    pub fn of(method: &Method, path: &str, query: &Query) -> Info {
        let verb = method.as_str().to_ascii_lowercase();
        let mut info = Info {
            verb,
            path: decode(path),
            ..Info::default()
        };
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let mut parts: &[String] = &parts;
        let skip = match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => 1,
            Some("apis") if parts.len() >= 4 => {
                info.group.clone_from(&parts[1]);
                2
            }
            _ => return info,
        };
        parts = &parts[skip..];
        info.is_resource = true;
        info.version.clone_from(&parts[0]);
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
            info.verb.clone_from(&parts[0]);
            parts = &parts[1..];
        }
        if parts.first().is_some_and(|part| part == "namespaces")
            && let Some(namespace) = parts.get(1)
        {
            info.namespace.clone_from(namespace);
            if parts.len() > 2
                && !(parts.len() == 3 && matches!(parts[2].as_str(), "status" | "finalize"))
            {
                parts = &parts[2..];
            }
        }
        let part = |i: usize| parts.get(i).cloned().unwrap_or_default();
        info.resource = part(0);
        info.name = part(1);
        info.path_name = part(1);
        info.subresource = part(2);
        info.rest = parts.get(3..).unwrap_or_default().join("/");
        if info.name.is_empty() && info.verb == "get" {
            info.verb = if query.wants_watch() { "watch" } else { "list" }.to_owned();
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_owned();
        }
        if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection")
            && info.name.is_empty()
            && let Some(name) = query.get("fieldSelector").and_then(named_by)
        {
            info.name = name;
        }
        info
    }

    /// What authorizers see.
    pub fn attributes<'a>(&'a self, query: &'a Query) -> Attributes<'a> {
        if !self.is_resource {
            return Attributes {
                verb: &self.verb,
                path: &self.path,
                ..Attributes::default()
            };
        }
        let selects = matches!(self.verb.as_str(), "list" | "watch" | "deletecollection");
        Attributes {
            verb: &self.verb,
            namespace: &self.namespace,
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            name: &self.name,
            path: &self.path,
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

/// The one name that a field selector asks for with `metadata.name=NAME`.
fn named_by(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let name = term.strip_prefix("metadata.name=")?;
        let name = name.strip_prefix('=').unwrap_or(name);
        (!name.is_empty() && !name.contains(['\\', '/', '%'])).then(|| name.to_owned())
    })
}

/// Whether every percent sign begins an encoded byte.
pub fn is_encoded(text: &str) -> bool {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    (0..bytes.len())
        .filter(|&i| bytes[i] == b'%')
        .all(|i| hex(bytes.get(i + 1)) && hex(bytes.get(i + 2)))
}

/// Undoes percent encoding; what is no encoding stays.
pub fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
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
}
