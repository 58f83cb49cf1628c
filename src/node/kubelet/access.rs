//! Authorization for the node's own API. Follows pkg/kubelet/server/auth.go.

use http::Method;

use crate::auth::{ANONYMOUS, Attributes, User};
use crate::node::Allow;

/// The subresources of nodes that cover a path: access to any of them is enough.
fn parts(path: &str) -> Vec<&'static str> {
    let below = |top: &str| {
        path.strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for (top, part, alone) in [
        ("/allocatedPods", "pods", false),
        ("/pods", "pods", false),
        ("/runningpods", "pods", false),
        ("/healthz", "healthz", false),
        ("/configz", "configz", false),
        ("/stats", "stats", true),
        ("/metrics", "metrics", true),
        ("/logs", "log", true),
        ("/checkpoint", "checkpoint", true),
        ("/statusz", "statusz", true),
        ("/flagz", "configz", true),
    ] {
        if below(top) {
            return if alone {
                vec![part]
            } else {
                vec![part, "proxy"]
            };
        }
    }
    vec!["proxy"]
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// Authorizes a request of `user` (None: invalid credentials).
///
/// # Errors
/// 401 without a user, 403 if it is not allowed.
pub async fn check(
    allow: &Allow,
    node: &str,
    user: Option<&User>,
    method: &Method,
    path: &str,
) -> Result<(), super::Refusal> {
    let Some(user) = user.filter(|user| user.name != ANONYMOUS) else {
        return Err((401, "Unauthorized".into()));
    };
    let (parts, verb) = (parts(path), verb(method));
    for part in &parts {
        let wants = Attributes {
            verb,
            version: "v1",
            resource: "nodes",
            subresource: part,
            name: node,
            ..Attributes::default()
        };
        if allow(user, &wants).await {
            return Ok(());
        }
    }
    Err((
        403,
        format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            parts.join(" ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allows users that have `VERB PART` as a group.
    fn groups() -> Allow {
        std::sync::Arc::new(|user, wants| {
            assert_eq!((wants.resource, wants.name), ("nodes", "n1"));
            let allowed = user.in_group(&format!("{} {}", wants.verb, wants.subresource));
            Box::pin(std::future::ready(allowed))
        })
    }

    #[tokio::test]
    async fn a_path_asks_for_a_part_of_the_node() {
        let exec = "/exec/default/web/c";
        for (method, path, enough) in [
            (Method::GET, "/pods", &["get pods", "get proxy"][..]),
            (Method::GET, "/pods/x", &["get pods", "get proxy"]),
            (Method::GET, "/podsx", &["get proxy"]),
            (Method::GET, "/healthz", &["get healthz", "get proxy"]),
            (Method::GET, "/runningpods/", &["get pods", "get proxy"]),
            (Method::GET, "/flagz", &["get configz"]),
            (Method::GET, "/statusz", &["get statusz"]),
            (Method::GET, "/stats/summary", &["get stats"]),
            (Method::GET, "/metrics/resource", &["get metrics"]),
            (Method::GET, "/containerLogs/default/web/c", &["get proxy"]),
            (Method::GET, exec, &["get proxy"]),
            (Method::POST, exec, &["create proxy"]),
        ] {
            for group in [
                "get pods",
                "get healthz",
                "get configz",
                "get statusz",
                "get stats",
                "get metrics",
                "get log",
                "get proxy",
                "create proxy",
            ] {
                let user = User::new("u", &[group]);
                let told = check(&groups(), "n1", Some(&user), &method, path).await;
                assert_eq!(
                    told.is_ok(),
                    enough.contains(&group),
                    "{method} {path} {group}"
                );
            }
        }
        let allow = groups();
        let code = async |user: Option<&User>| check(&allow, "n1", user, &Method::GET, exec).await;
        let anonymous = User::new(ANONYMOUS, &["get proxy"]);
        assert_eq!(code(None).await, Err((401, "Unauthorized".into())));
        assert_eq!(
            code(Some(&anonymous)).await,
            Err((401, "Unauthorized".into()))
        );
        assert_eq!(
            code(Some(&User::new("u", &[]))).await,
            Err((
                403,
                "Forbidden (user=u, verb=get, resource=nodes, subresource(s)=[proxy])\n".into()
            ))
        );
    }
}
