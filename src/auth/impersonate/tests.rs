use http::HeaderMap;

use super::*;

/// Allows only the listed `verb resource/subresource name` (or `verb resource *`).
struct Only(&'static [&'static str]);

impl Authorizer for Only {
    fn authorize(&self, _: &User, wants: &Attributes<'_>) -> Decision {
        let resource = match wants.subresource {
            "" => wants.resource.to_owned(),
            sub => format!("{}/{sub}", wants.resource),
        };
        let resource = match wants.group {
            "" => resource,
            group => format!("{resource}.{group}"),
        };
        for name in [wants.name, "*"] {
            let asked = format!("{} {resource} {name}", wants.verb);
            if self.0.contains(&asked.as_str()) {
                return Decision::Allow(String::new());
            }
        }
        Decision::NoOpinion(String::new())
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, http::HeaderValue::from_static(value));
    }
    headers
}

fn list_pods() -> Attributes<'static> {
    Attributes {
        verb: "list",
        resource: "pods",
        namespace: "ns",
        ..Attributes::default()
    }
}

fn run(allowed: &'static [&'static str], asked: &[(&'static str, &'static str)]) -> String {
    let wanted = wanted(&mut headers(asked)).unwrap().unwrap();
    let asking = User::new("imp", &["g"]);
    match Impersonation::default().become_user(&Only(allowed), &asking, &list_pods(), &wanted) {
        Ok(user) => format!(
            "{} {:?} {} {:?}",
            user.name, user.groups, user.uid, user.extra
        ),
        Err(status) => status.message,
    }
}

#[test]
fn headers_say_who_and_are_taken_away() {
    let mut asked = headers(&[
        ("impersonate-user", "jane"),
        ("impersonate-group", "devs"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "u"),
        ("impersonate-extra-scopes", "a"),
        ("impersonate-extra-scopes", "b"),
        ("impersonate-extra-example.com%2fproject", "p"),
        ("impersonate-extra-bad%zz", "q"),
        ("accept", "x"),
    ]);
    let user = wanted(&mut asked).unwrap().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!((&*user.name, &*user.uid), ("jane", "u"));
    assert_eq!(user.groups, ["devs", "ops"]);
    assert_eq!(user.extra("scopes"), ["a", "b"]);
    assert_eq!(user.extra("example.com/project"), ["p"]);
    assert_eq!(user.extra("bad%zz"), ["q"]);
    assert_eq!(wanted(&mut asked), Ok(None));
    assert_eq!(wanted(&mut headers(&[("impersonate-user", "")])), Ok(None));
}

#[test]
fn groups_of_nobody_are_refused_as_go_prints_them() {
    for (asked, shown) in [
        (
            ("impersonate-group", "devs"),
            r#"&user.DefaultInfo{Name:"", UID:"", Groups:[]string{"devs"}, Extra:map[string][]string(nil)}"#,
        ),
        (
            ("impersonate-extra-scopes", "x"),
            r#"&user.DefaultInfo{Name:"", UID:"", Groups:[]string(nil), Extra:map[string][]string{"scopes":[]string{"x"}}}"#,
        ),
    ] {
        let status = wanted(&mut headers(&[asked])).unwrap_err();
        assert_eq!(status.code, 400);
        assert_eq!(
            status.message,
            format!("requested {shown} without impersonating a user name")
        );
    }
}

#[test]
fn each_part_needs_its_right() {
    const NODE: &str = "system:node:n1";
    const SA: &str = "system:serviceaccount:ns:app";
    for (allowed, asked, answer) in [
        (
            &[][..],
            &[("impersonate-user", "jane")][..],
            r#"pods is forbidden: User "imp" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "ns""#,
        ),
        (
            &["impersonate-on:user-info:list pods *"],
            &[("impersonate-user", "jane")],
            r#"users.authentication.k8s.io "jane" is forbidden: User "imp" cannot impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope"#,
        ),
        (
            &[
                "impersonate-on:user-info:list pods *",
                "impersonate:user-info users.authentication.k8s.io jane",
            ],
            &[("impersonate-user", "jane")],
            r#"jane ["system:authenticated"]  []"#,
        ),
        (
            &[
                "impersonate-on:user-info:list pods *",
                "impersonate:user-info users.authentication.k8s.io jane",
                "impersonate:user-info groups.authentication.k8s.io *",
            ],
            &[
                ("impersonate-user", "jane"),
                ("impersonate-group", "system:masters"),
            ],
            r#"groups.authentication.k8s.io "system:masters" is forbidden: User "imp" cannot impersonate:user-info resource "groups" in API group "authentication.k8s.io" at the cluster scope: impersonating the system:masters group is not allowed"#,
        ),
        (
            &["impersonate users *", "impersonate groups *"],
            &[
                ("impersonate-user", "jane"),
                ("impersonate-group", "system:masters"),
            ],
            r#"jane ["system:masters", "system:authenticated"]  []"#,
        ),
        (
            &["impersonate users *"],
            &[("impersonate-user", NODE)],
            r#"system:node:n1 ["system:authenticated"]  []"#,
        ),
        (
            &[
                "impersonate-on:arbitrary-node:list pods *",
                "impersonate:arbitrary-node nodes.authentication.k8s.io n1",
            ],
            &[("impersonate-user", NODE)],
            r#"system:node:n1 ["system:nodes", "system:authenticated"]  []"#,
        ),
        (
            &[
                "impersonate-on:serviceaccount:list pods *",
                "impersonate:serviceaccount serviceaccounts.authentication.k8s.io app",
            ],
            &[("impersonate-user", SA)],
            r#"system:serviceaccount:ns:app ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]  []"#,
        ),
        (
            &["impersonate users *"],
            &[("impersonate-user", "system:anonymous")],
            r#"system:anonymous ["system:unauthenticated"]  []"#,
        ),
        (
            &["impersonate users *", "impersonate groups *"],
            &[
                ("impersonate-user", "u"),
                ("impersonate-group", "system:unauthenticated"),
            ],
            r#"u ["system:unauthenticated"]  []"#,
        ),
    ] {
        assert_eq!(run(allowed, asked), answer, "{allowed:?} {asked:?}");
    }
}

#[test]
fn a_service_account_may_be_the_node_it_runs_on_and_no_other() {
    let allowed = Only(&[
        "impersonate-on:associated-node:list pods *",
        "impersonate:associated-node nodes.authentication.k8s.io *",
    ]);
    let mut asking = User::new("system:serviceaccount:ns:agent", &[]);
    asking.set_extra(accounts::NODE_NAME, vec!["n1".into()]);
    let become_node = |name: &str| {
        let wanted = User::new(name, &[]);
        Impersonation::default().become_user(&allowed, &asking, &list_pods(), &wanted)
    };
    assert_eq!(
        become_node("system:node:n1").unwrap().groups,
        [node::NODES, AUTHENTICATED]
    );
    assert!(become_node("system:node:n2").is_err());
}

#[test]
fn the_way_that_worked_is_tried_first_from_then_on() {
    let allowed = Only(&["impersonate users jane"]);
    let impersonation = Impersonation::default();
    let asking = User::new("imp", &[]);
    let refused = |name: &str| {
        impersonation
            .become_user(&allowed, &asking, &list_pods(), &User::new(name, &[]))
            .unwrap_err()
            .message
    };
    assert!(refused("kim").contains("impersonate-on:user-info:list"));
    let jane = User::new("jane", &[]);
    impersonation
        .become_user(&allowed, &asking, &list_pods(), &jane)
        .unwrap();
    assert_eq!(
        refused("kim"),
        r#"users "kim" is forbidden: User "imp" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
}
