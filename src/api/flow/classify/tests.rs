use http::Method;

use super::*;
use crate::api::query::Query;
use crate::auth::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, bootstrap};
use crate::schema::json;

fn info(method: &Method, path: &str) -> Info {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Info::of(method, path, &Query::parse(query))
}

#[test]
fn requests_belong_to_the_schemas_that_every_cluster_has() {
    let objects = bootstrap::objects().iter().map(|made| &made.object);
    let mut schemas: Vec<Schema> = objects
        .filter(|object| object.str("kind") == "FlowSchema")
        .map(Schema::of)
        .collect();
    schemas.sort_by(Schema::order);
    let account = "system:serviceaccount";
    for (user, groups, method, path, schema, level, flow) in [
        (
            "admin",
            &[MASTERS][..],
            "GET",
            "/healthz",
            "exempt",
            "exempt",
            "",
        ),
        (
            "jane",
            &[AUTHENTICATED],
            "GET",
            "/healthz",
            "probes",
            "exempt",
            "",
        ),
        (
            "jane",
            &[AUTHENTICATED],
            "GET",
            "/livez/etcd",
            "probes",
            "exempt",
            "",
        ),
        (
            "jane",
            &[AUTHENTICATED],
            "GET",
            "/healthzz",
            "global-default",
            "global-default",
            "jane",
        ),
        (
            "jane",
            &[AUTHENTICATED],
            "POST",
            "/healthz",
            "global-default",
            "global-default",
            "jane",
        ),
        (
            "jane",
            &[AUTHENTICATED],
            "GET",
            "/api/v1/pods",
            "global-default",
            "global-default",
            "jane",
        ),
        (
            "nobody",
            &[UNAUTHENTICATED],
            "GET",
            "/version",
            "global-default",
            "global-default",
            "nobody",
        ),
        ("odd", &[], "GET", "/version", "none", "none", "none"),
        (
            "system:node:n",
            &["system:nodes", AUTHENTICATED],
            "GET",
            "/api/v1/nodes/n",
            "system-node-high",
            "node-high",
            "system:node:n",
        ),
        (
            "system:node:n",
            &["system:nodes", AUTHENTICATED],
            "PATCH",
            "/api/v1/nodes/n/status",
            "system-node-high",
            "node-high",
            "system:node:n",
        ),
        (
            "system:node:n",
            &["system:nodes", AUTHENTICATED],
            "GET",
            "/api/v1/nodes/n/proxy",
            "system-nodes",
            "system",
            "system:node:n",
        ),
        (
            "system:node:n",
            &["system:nodes", AUTHENTICATED],
            "GET",
            "/api/v1/pods",
            "system-nodes",
            "system",
            "system:node:n",
        ),
        (
            "system:kube-scheduler",
            &[AUTHENTICATED],
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a",
            "system-leader-election",
            "leader-election",
            "system:kube-scheduler",
        ),
        (
            "system:kube-scheduler",
            &[AUTHENTICATED],
            "PATCH",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a",
            "kube-scheduler",
            "workload-high",
            "kube-system",
        ),
        (
            &format!("{account}:kube-system:a"),
            &["system:serviceaccounts", AUTHENTICATED],
            "GET",
            "/api/v1/namespaces/x/pods",
            "kube-system-service-accounts",
            "workload-high",
            "x",
        ),
        (
            &format!("{account}:x:a"),
            &["system:serviceaccounts", AUTHENTICATED],
            "GET",
            "/api/v1/namespaces/y/pods",
            "service-accounts",
            "workload-low",
            "system:serviceaccount:x:a",
        ),
    ] {
        let user = User::new(user, groups);
        let info = info(&method.parse().unwrap(), path);
        let found = schemas.iter().find(|schema| schema.matches(&user, &info));
        let found = found.map_or(("none", "none", "none"), |found| {
            (&found.name, &found.level, found.distinguisher(&user, &info))
        });
        assert_eq!(found, (schema, level, flow), "{user:?} {path}");
    }
}

#[test]
fn a_rule_is_about_subjects_and_what_they_ask_for() {
    let anyone = r#"[{"kind":"Group","group":{"name":"*"}}]"#;
    let resource = |verbs, groups, resources, scope| {
        format!(r#"[{{"verbs":{verbs},"apiGroups":{groups},"resources":{resources},{scope}}}]"#)
    };
    let all = resource(r#"["*"]"#, r#"["*"]"#, r#"["*"]"#, r#""namespaces":["*"]"#);
    let subject = |kind: &str, of: &str| format!(r#"[{{"kind":"{kind}",{of}}}]"#);
    let pod = "/api/v1/namespaces/x/pods/p";
    for (subjects, resources, paths, asked, expected) in [
        (anyone, &*all, "[]", pod, true),
        // Cluster-scoped requests match only rules with `clusterScope`.
        (anyone, &all, "[]", "/api/v1/nodes/n", false),
        (anyone, &all, "[]", "/api", false),
        (
            anyone,
            &resource(r#"["*"]"#, r#"["*"]"#, r#"["*"]"#, r#""clusterScope":true"#),
            "[]",
            "/api/v1/nodes/n",
            true,
        ),
        (
            anyone,
            &resource(r#"["*"]"#, r#"["*"]"#, r#"["*"]"#, r#""clusterScope":true"#),
            "[]",
            pod,
            false,
        ),
        (
            anyone,
            &resource(
                r#"["list","get"]"#,
                r#"[""]"#,
                r#"["pods"]"#,
                r#""namespaces":["x"]"#,
            ),
            "[]",
            pod,
            true,
        ),
        (
            anyone,
            &resource(
                r#"["list"]"#,
                r#"[""]"#,
                r#"["pods"]"#,
                r#""namespaces":["x"]"#,
            ),
            "[]",
            pod,
            false,
        ),
        (
            anyone,
            &resource(
                r#"["get"]"#,
                r#"["apps"]"#,
                r#"["pods"]"#,
                r#""namespaces":["x"]"#,
            ),
            "[]",
            pod,
            false,
        ),
        (
            anyone,
            &resource(
                r#"["get"]"#,
                r#"[""]"#,
                r#"["pods"]"#,
                r#""namespaces":["y"]"#,
            ),
            "[]",
            pod,
            false,
        ),
        // Subresources must be listed explicitly.
        (
            anyone,
            &resource(
                r#"["get"]"#,
                r#"[""]"#,
                r#"["pods"]"#,
                r#""namespaces":["x"]"#,
            ),
            "[]",
            "/api/v1/namespaces/x/pods/p/status",
            false,
        ),
        (
            anyone,
            &resource(
                r#"["get"]"#,
                r#"[""]"#,
                r#"["pods/status"]"#,
                r#""namespaces":["x"]"#,
            ),
            "[]",
            "/api/v1/namespaces/x/pods/p/status",
            true,
        ),
        (
            anyone,
            &resource(
                r#"["get"]"#,
                r#"[""]"#,
                r#"["pods/status"]"#,
                r#""namespaces":["x"]"#,
            ),
            "[]",
            pod,
            false,
        ),
        // `*` beside other paths is not the wildcard.
        (
            anyone,
            &resource(
                r#"["get","*"]"#,
                r#"["x","*"]"#,
                r#"["*"]"#,
                r#""namespaces":["x"]"#,
            ),
            "[]",
            pod,
            false,
        ),
        (
            anyone,
            "[]",
            r#"[{"verbs":["get"],"nonResourceURLs":["/a/*"]}]"#,
            "/a/b",
            true,
        ),
        (
            anyone,
            "[]",
            r#"[{"verbs":["get"],"nonResourceURLs":["/a/*"]}]"#,
            "/a",
            false,
        ),
        (
            anyone,
            "[]",
            r#"[{"verbs":["get"],"nonResourceURLs":["/a"]}]"#,
            "/a/b",
            true,
        ),
        (
            anyone,
            "[]",
            r#"[{"verbs":["get"],"nonResourceURLs":["/a"]}]"#,
            "/ab",
            false,
        ),
        (
            anyone,
            "[]",
            r#"[{"verbs":["put"],"nonResourceURLs":["*"]}]"#,
            "/a",
            false,
        ),
        (
            &subject("User", r#""user":{"name":"*"}"#),
            &all,
            "[]",
            pod,
            true,
        ),
        (
            &subject("User", r#""user":{"name":"system:serviceaccount:x:a"}"#),
            &all,
            "[]",
            pod,
            true,
        ),
        (
            &subject("User", r#""user":{"name":"jane"}"#),
            &all,
            "[]",
            pod,
            false,
        ),
        (
            &subject("User", r#""group":{"name":"*"}"#),
            &all,
            "[]",
            pod,
            false,
        ),
        (
            &subject("Group", r#""group":{"name":"devs"}"#),
            &all,
            "[]",
            pod,
            true,
        ),
        (
            &subject("Group", r#""group":{"name":"ops"}"#),
            &all,
            "[]",
            pod,
            false,
        ),
        (
            &subject(
                "ServiceAccount",
                r#""serviceAccount":{"namespace":"x","name":"*"}"#,
            ),
            &all,
            "[]",
            pod,
            true,
        ),
        (
            &subject(
                "ServiceAccount",
                r#""serviceAccount":{"namespace":"x","name":"a"}"#,
            ),
            &all,
            "[]",
            pod,
            true,
        ),
        (
            &subject(
                "ServiceAccount",
                r#""serviceAccount":{"namespace":"x","name":"b"}"#,
            ),
            &all,
            "[]",
            pod,
            false,
        ),
        (
            &subject(
                "ServiceAccount",
                r#""serviceAccount":{"namespace":"y","name":"*"}"#,
            ),
            &all,
            "[]",
            pod,
            false,
        ),
    ] {
        let rule = format!(
            r#"{{"spec":{{"rules":[{{"subjects":{subjects},"resourceRules":{resources},"nonResourceRules":{paths}}}]}}}}"#
        );
        let schema = Schema::of(&json::parse(rule.as_bytes()).unwrap().value);
        let user = User::new("system:serviceaccount:x:a", &["devs"]);
        let matched = schema.matches(&user, &info(&Method::GET, asked));
        assert_eq!(matched, expected, "{rule} {asked}");
    }
}
