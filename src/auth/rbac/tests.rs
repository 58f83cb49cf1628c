use super::*;
use crate::auth::authorize::{Authorizers, Mode, check};
use crate::auth::{Authorizer, bootstrap};
use crate::meta::Status;
use crate::resources::{Registry, record};
use crate::schema::Object;
use crate::store::{Change, Expect, Store, memory};
use crate::value;

fn role(namespace: &str, name: &str, rules: Value) -> Value {
    let kind = if namespace.is_empty() {
        "ClusterRole"
    } else {
        "Role"
    };
    value!({"kind": kind, "metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

fn binding(namespace: &str, name: &str, role: &str, subjects: Value) -> Value {
    let kind = if namespace.is_empty() {
        "ClusterRoleBinding"
    } else {
        "RoleBinding"
    };
    let (role_kind, role) = role.split_once('/').unwrap();
    value!({
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "subjects": subjects,
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    })
}

fn who(kind: &str, name: &str) -> Value {
    value!({"kind": kind, "apiGroup": GROUP, "name": name})
}

fn read_pods() -> Value {
    value!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}])
}

fn list<'a>(namespace: &'a str, resource: &'a str) -> Attributes<'a> {
    Attributes {
        verb: "list",
        namespace,
        version: "v1",
        resource,
        ..Attributes::default()
    }
}

#[test]
fn reasons_name_the_binding_the_role_and_the_subject_that_allowed() {
    let account = value!([{"kind": "ServiceAccount", "name": "app"}]);
    let policy = Policy::from_objects(&[
        role("ns", "r", read_pods()),
        role("", "c", read_pods()),
        binding("ns", "r", "Role/r", value!([(who("User", "jane"))])),
        binding("ns", "s", "Role/r", account),
        binding(
            "",
            "b",
            "ClusterRole/c",
            value!([(who("User", "x")), (who("Group", "devs"))]),
        ),
        binding(
            "",
            "a",
            "ClusterRole/c",
            value!([{"kind": "ServiceAccount", "name": "app", "namespace": "other"}]),
        ),
    ]);
    for (user, namespace, reason) in [
        (
            User::new("jane", &[]),
            "ns",
            r#"RBAC: allowed by RoleBinding "r/ns" of Role "r" to User "jane""#,
        ),
        (
            User::new("jane", &["devs"]),
            "ns",
            r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "c" to Group "devs""#,
        ),
        (
            User::new("system:serviceaccount:ns:app", &[]),
            "ns",
            r#"RBAC: allowed by RoleBinding "s/ns" of Role "r" to ServiceAccount "app/ns""#,
        ),
        (
            User::new("system:serviceaccount:other:app", &[]),
            "",
            r#"RBAC: allowed by ClusterRoleBinding "a" of ClusterRole "c" to ServiceAccount "app/other""#,
        ),
    ] {
        assert_eq!(
            policy.decide(&user, &list(namespace, "pods")),
            Decision::Allow(reason.into())
        );
    }
    for (user, namespace) in [("jane", ""), ("jane", "other"), ("joe", "ns")] {
        assert_eq!(
            policy.decide(&User::new(user, &[]), &list(namespace, "pods")),
            Decision::NoOpinion(String::new()),
            "{user} {namespace}"
        );
    }
}

#[test]
fn missing_roles_are_told_where_nothing_allows() {
    let jane = value!([(who("User", "jane"))]);
    let mut objects = vec![
        binding("ns", "a", "Role/missing", jane.clone()),
        binding("ns", "b", "ClusterRole/gone", jane.clone()),
        binding("ns", "c", "Role/missing", jane.clone()),
    ];
    let policy = Policy::from_objects(&objects);
    let user = User::new("jane", &[]);
    assert_eq!(
        policy.decide(&user, &list("ns", "pods")),
        Decision::NoOpinion(
            "RBAC: [role.rbac.authorization.k8s.io \"missing\" not found, clusterrole.rbac.authorization.k8s.io \"gone\" not found]".into()
        )
    );
    objects.push(role("", "c", read_pods()));
    objects.push(binding("ns", "d", "ClusterRole/c", jane));
    let policy = Policy::from_objects(&objects);
    assert!(matches!(
        policy.decide(&user, &list("ns", "pods")),
        Decision::Allow(_)
    ));
}

async fn put(store: &Arc<dyn Store>, object: &Value, there: bool) {
    let plural = format!("{}s", object.str("kind").to_lowercase());
    let resource = Registry::builtin().get(GROUP, &plural).unwrap();
    let meta = object.at("metadata");
    let key = resource.key(meta.str("namespace"), meta.str("name"));
    let expect = store
        .head(&key)
        .map_or(Expect::Absent, |entry| Expect::Revision(entry.rev));
    store
        .commit(vec![Change {
            resource: resource.prefix.clone(),
            key,
            expect,
            put: there.then(|| record::encode(resource, object)),
            ttl: None,
        }])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_of_roles_or_bindings_decides_the_next_request() {
    let store = memory();
    let authorizers = Authorizers::new(store.clone(), vec![Mode::Node, Mode::Rbac]);
    let jane = User::new("jane", &["devs"]);
    let may = |resource: &str| check(&authorizers, &jane, &list("ns", resource)).is_ok();
    let by = |rule: &str| value!([{"verbs": ["*"], "apiGroups": [""], "resources": [rule]}]);
    assert!(!may("pods"));
    put(
        &store,
        &binding("ns", "b", "Role/r", value!([(who("User", "jane"))])),
        true,
    )
    .await;
    assert_eq!(
        check(&authorizers, &jane, &list("ns", "pods"))
            .unwrap_err()
            .message,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"ns\": rbac: RBAC: role.rbac.authorization.k8s.io \"r\" not found"
    );
    put(&store, &role("ns", "r", by("pods")), true).await;
    assert!(may("pods") && !may("secrets"));
    put(&store, &role("ns", "r", by("secrets")), true).await;
    assert!(!may("pods") && may("secrets"));
    put(
        &store,
        &binding("ns", "b", "Role/r", value!([(who("Group", "ops"))])),
        true,
    )
    .await;
    assert!(!may("secrets"));
    put(
        &store,
        &binding("ns", "b", "Role/r", value!([(who("Group", "devs"))])),
        true,
    )
    .await;
    assert!(may("secrets"));
    put(&store, &binding("ns", "b", "Role/r", Value::Null), false).await;
    assert!(!may("secrets"));
    let master = User::new("root", &[crate::auth::MASTERS]);
    assert_eq!(
        authorizers.authorize(&master, &list("ns", "secrets")),
        Decision::Allow(String::new())
    );
}

/// The permissions of every user in a new cluster, as shown by `kubectl auth can-i --list`.
#[test]
fn the_roles_of_a_new_cluster_let_everybody_look_around() {
    let policy = Policy::from_objects(bootstrap::objects().iter().map(|b| &b.object));
    let path = |path| Attributes {
        verb: "get",
        path: Some(path),
        ..Attributes::default()
    };
    let nobody = User::new("system:anonymous", &["system:unauthenticated"]);
    let somebody = User::new("jane", &["system:authenticated"]);
    let allowed = |user: &User, wants: &Attributes<'_>| {
        matches!(policy.decide(user, wants), Decision::Allow(_))
    };
    for (url, anonymous) in [
        ("/healthz", true),
        ("/version", true),
        ("/api", false),
        ("/openapi/v3", false),
    ] {
        assert_eq!(allowed(&nobody, &path(url)), anonymous, "{url}");
        assert!(allowed(&somebody, &path(url)), "{url}");
    }
    assert!(!allowed(&somebody, &path("/metrics")));
    let scheduler = User::new("system:kube-scheduler", &["system:authenticated"]);
    let bind = Attributes {
        verb: "create",
        namespace: "ns",
        resource: "pods",
        subresource: "binding",
        name: "p",
        ..Attributes::default()
    };
    assert!(allowed(&scheduler, &bind) && !allowed(&somebody, &bind));
}

struct Nobody;

impl Authorizer for Nobody {
    fn authorize(&self, _: &User, _: &Attributes<'_>) -> Decision {
        Decision::NoOpinion(String::new())
    }
}

/// Allows one verb on one name.
struct May(&'static str, &'static str, &'static str);

impl Authorizer for May {
    fn authorize(&self, _: &User, wants: &Attributes<'_>) -> Decision {
        if (wants.verb, wants.resource, wants.name) == (self.0, self.1, self.2) {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

#[test]
fn nobody_gives_away_what_they_do_not_have() {
    let user = User::new("jane", &["devs", "system:authenticated"]);
    let policy = Policy::from_objects(&[
        role("", "reader", read_pods()),
        role(
            "ns",
            "writer",
            value!([{"verbs": ["get", "create", "delete"], "apiGroups": [""], "resources": ["pods", "secrets"]}]),
        ),
        binding(
            "ns",
            "b",
            "ClusterRole/reader",
            value!([(who("User", "jane"))]),
        ),
        binding("ns", "c", "Role/absent", value!([(who("User", "jane"))])),
    ]);
    let grant = |resource, authorizer| Grant {
        user: &user,
        authorizer,
        policy: &policy,
        resource,
        namespace: "ns",
        name: "",
    };
    let nobody: &dyn Authorizer = &Nobody;

    let held = role("ns", "new", read_pods());
    assert_eq!(check_role(&grant("roles", nobody), &held, None), Ok(()));
    let more = role(
        "ns",
        "new",
        value!([{"verbs": ["get", "watch"], "apiGroups": [""], "resources": ["secrets"]}]),
    );
    let refused = check_role(&grant("roles", nobody), &more, None).unwrap_err();
    assert_eq!(
        refused.message,
        "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"watch\"]}; resolution errors: [roles.rbac.authorization.k8s.io \"absent\" not found]"
    );
    assert_eq!(refused.code, 403);
    let may = May("escalate", "roles", "");
    assert_eq!(check_role(&grant("roles", &may), &more, None), Ok(()));

    let mut collected = more.clone();
    collected
        .object_mut()
        .object_mut("metadata")
        .insert("ownerReferences", value!([{"uid": "u"}]));
    assert_eq!(
        check_role(&grant("roles", nobody), &collected, Some(&more)),
        Ok(()),
        "garbage collection changes owners"
    );
    collected
        .object_mut()
        .object_mut("metadata")
        .insert("labels", value!({"a": "b"}));
    assert!(check_role(&grant("roles", nobody), &collected, Some(&more)).is_err());

    let bound = |role| binding("ns", "new", role, value!([(who("User", "joe"))]));
    let bindings = grant("rolebindings", nobody);
    assert_eq!(
        check_binding(&bindings, &bound("ClusterRole/reader"), None),
        Ok(())
    );
    let refused = check_binding(&bindings, &bound("Role/writer"), None).unwrap_err();
    assert!(
        refused.message.starts_with(
            "rolebindings.rbac.authorization.k8s.io \"new\" is forbidden: user \"jane\""
        )
    );
    assert!(refused.message.contains("{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"create\" \"delete\"]}\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"create\" \"delete\"]}"));
    let may = May("bind", "roles", "writer");
    assert_eq!(
        check_binding(&grant("rolebindings", &may), &bound("Role/writer"), None),
        Ok(())
    );
    let absent = check_binding(&bindings, &bound("Role/nope"), None).unwrap_err();
    assert_eq!(
        (absent.code, absent.message.as_str()),
        (
            404,
            "rolebindings.rbac.authorization.k8s.io \"nope\" not found"
        )
    );
    let everywhere = Grant {
        namespace: "",
        ..grant("clusterrolebindings", nobody)
    };
    for (grant, role, why) in [
        (&bindings, "Role/", "Name parameter required."),
        (
            &bindings,
            "ClusterRole/a%b",
            "Name parameter invalid: \"a%b\": may not contain '%'",
        ),
        (&everywhere, "Role/writer", "Namespace parameter required."),
    ] {
        let refused = check_binding(grant, &bound(role), None);
        assert_eq!(refused, Err(Status::bad_request(why)), "{role}");
    }
    let master = User::new("root", &[crate::auth::MASTERS]);
    let root = Grant {
        user: &master,
        ..grant("rolebindings", nobody)
    };
    assert_eq!(check_binding(&root, &bound("Role/nope"), None), Ok(()));
}

#[test]
fn only_who_may_do_everything_gathers_the_rules_of_others() {
    let gathering = value!({
        "kind": "ClusterRole",
        "metadata": {"name": "all"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
        "rules": null,
    });
    let admin = binding(
        "",
        "a",
        "ClusterRole/cluster-admin",
        value!([(who("User", "root"))]),
    );
    let policy = Policy::from_objects(
        bootstrap::objects()
            .iter()
            .map(|b| &b.object)
            .chain([&admin]),
    );
    for (name, allowed) in [("root", true), ("jane", false)] {
        let user = User::new(name, &[]);
        let grant = Grant {
            user: &user,
            authorizer: &Nobody,
            policy: &policy,
            resource: "clusterroles",
            namespace: "",
            name: "",
        };
        let judged = check_role(&grant, &gathering, None);
        if allowed {
            assert_eq!(judged, Ok(()));
        } else {
            assert_eq!(
                judged.unwrap_err().message,
                "clusterroles.rbac.authorization.k8s.io \"all\" is forbidden: must have cluster-admin privileges to use the aggregationRule"
            );
        }
    }
}

#[test]
fn a_role_gathers_rules_by_selector_and_name_each_once() {
    let labelled = |name: &str, label: &str, verbs: Value| {
        let mut role = role(
            "",
            name,
            value!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]),
        );
        role.object_mut()
            .object_mut("metadata")
            .insert("labels", Object::from_iter([(label, "y")]));
        role
    };
    let gathering = value!({
        "kind": "ClusterRole",
        "metadata": {"name": "all", "labels": {"x": "y"}},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"z": "y"}}, {"matchLabels": {"x": "y"}}]},
        "rules": [{"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}],
    });
    let roles = [
        labelled("d", "x", value!(["list"])),
        labelled("b", "x", value!(["get"])),
        labelled("c", "z", value!(["list"])),
        labelled("a", "other", value!(["watch"])),
        gathering.clone(),
    ];
    let verbs: Vec<_> = aggregated(&gathering, &roles)
        .unwrap()
        .unwrap()
        .into_iter()
        .map(|rule| rule.verbs[0].to_string())
        .collect();
    assert_eq!(verbs, ["list", "get"]);
    assert_eq!(aggregated(&roles[0], &roles), Ok(None));
}

#[test]
fn very_many_groups_and_subjects_are_looked_up() {
    let subjects: Vec<Value> = (0..20_000)
        .map(|n| who("Group", &format!("a{n}")))
        .collect();
    let mut objects = vec![role("ns", "r", read_pods())];
    objects.extend((0..5).map(|n| {
        let name = format!("b{n}");
        binding("ns", &name, "Role/r", Value::Array(subjects.clone()))
    }));
    let policy = Policy::from_objects(&objects);
    let mut groups = vec!["a19999"; 100_000];
    let others: Vec<String> = (0..50_000).map(|n| format!("other{n}")).collect();
    groups.extend(others.iter().map(String::as_str));
    let decided = policy.decide(&User::new("jane", &groups), &list("ns", "secrets"));
    assert_eq!(decided, Decision::NoOpinion(String::new()));
    let decided = policy.decide(&User::new("jane", &groups), &list("ns", "pods"));
    assert!(matches!(decided, Decision::Allow(_)));
}
