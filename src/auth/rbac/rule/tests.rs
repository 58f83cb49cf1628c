use super::*;

fn rule(text: &str) -> Rule {
    Rule::of(&crate::schema::json::parse(text.as_bytes()).unwrap().value)
}

fn resource<'a>(verb: &'a str, group: &'a str, resource: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb,
        group,
        resource,
        subresource,
        ..Attributes::default()
    }
}

#[test]
fn a_resource_is_allowed_by_name_by_star_and_by_any_resource_of_a_subresource() {
    for (resources, wanted, allowed) in [
        (r#"["pods"]"#, "pods", true),
        (r#"["pods"]"#, "pods/log", false),
        (r#"["pods/log"]"#, "pods/log", true),
        (r#"["pods/log"]"#, "pods", false),
        (r#"["pods/*"]"#, "pods/log", false),
        (r#"["userextras/a.b/c"]"#, "userextras/a.b/c", true),
        (r#"["*/a.b/c"]"#, "userextras/a.b/c", true),
        (r#"["*/c"]"#, "userextras/a.b/c", false),
        (r#"["*/scale"]"#, "deployments/scale", true),
        (r#"["*/scale"]"#, "deployments", false),
        (r#"["*"]"#, "pods/log", true),
        (r#"["secrets", "pods"]"#, "pods", true),
        (r#"[]"#, "pods", false),
    ] {
        let rule = rule(&format!(
            r#"{{"verbs":["get"],"apiGroups":[""],"resources":{resources}}}"#
        ));
        assert_eq!(
            rule.allows(&resource("get", "", wanted)),
            allowed,
            "{resources} {wanted}"
        );
        assert!(!rule.allows(&resource("list", "", wanted)));
        assert!(!rule.allows(&resource("get", "apps", wanted)));
    }
}

#[test]
fn a_resource_with_a_slash_is_told_from_its_subresource_by_nobody() {
    let rule = rule(r#"{"verbs":["get"],"apiGroups":[""],"resources":["a/b/c"]}"#);
    for (resource, subresource) in [("a", "b/c"), ("a/b", "c"), ("a/b/c", "")] {
        assert!(rule.allows(&Attributes {
            verb: "get",
            resource,
            subresource,
            ..Attributes::default()
        }));
    }
}

#[test]
fn names_limit_a_rule_to_requests_that_have_one() {
    let rule =
        rule(r#"{"verbs":["*"],"apiGroups":["*"],"resources":["pods"],"resourceNames":["a","b"]}"#);
    let of = |name| Attributes {
        name,
        ..resource("get", "", "pods")
    };
    assert!(rule.allows(&of("b")));
    assert!(!rule.allows(&of("c")));
    assert!(!rule.allows(&of("")));
}

#[test]
fn urls_are_allowed_whole_or_by_prefix() {
    for (url, path, allowed) in [
        ("/logs", "/logs", true),
        ("/logs", "/logs/a", false),
        ("/logs/*", "/logs/a/b", true),
        ("/logs/*", "/logs", false),
        ("/lo*", "/logs", true),
        ("*", "/anything", true),
        ("*", "", true),
        ("/", "", false),
    ] {
        let rule = rule(&format!(
            r#"{{"verbs":["get"],"nonResourceURLs":["{url}"]}}"#
        ));
        let wants = Attributes {
            verb: "get",
            path: Some(path),
            ..Attributes::default()
        };
        assert_eq!(rule.allows(&wants), allowed, "{url} {path}");
    }
}

#[test]
fn missing_rights_are_listed_by_resource_with_their_verbs_joined() {
    let held = [rule(
        r#"{"verbs":["get"],"apiGroups":["","apps"],"resources":["pods","*/scale"]}"#,
    )];
    let wanted = [
        rule(
            r#"{"verbs":["get","list"],"apiGroups":[""],"resources":["secrets","pods","pods/scale","pods/log"]}"#,
        ),
        rule(
            r#"{"verbs":["get"],"apiGroups":["apps"],"resources":["deployments"],"resourceNames":["a","b"]}"#,
        ),
        rule(r#"{"verbs":["get","post"],"nonResourceURLs":["/metrics"]}"#),
    ];
    assert_eq!(
        describe(missing(&held, &wanted)),
        [
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#,
            r#"{APIGroups:[""], Resources:["pods/log"], Verbs:["get" "list"]}"#,
            r#"{APIGroups:[""], Resources:["pods/scale"], Verbs:["list"]}"#,
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}"#,
            r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["a"], Verbs:["get"]}"#,
            r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["b"], Verbs:["get"]}"#,
            r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#,
            r#"{NonResourceURLs:["/metrics"], Verbs:["post"]}"#,
        ]
    );
}

#[test]
fn a_url_is_covered_by_itself_or_a_beginning_of_it() {
    let held = [rule(
        r#"{"verbs":["get"],"nonResourceURLs":["/a*","/a/b*","/b/c","/c/*","/c*"]}"#,
    )];
    for (url, covered) in [
        ("/a", true),
        ("/a/b/x", true),
        ("/az", true),
        ("/b/c", true),
        ("/b/c/d", false),
        ("/b", false),
        ("/c/", true),
        ("/d", false),
    ] {
        let wanted = rule(&format!(
            r#"{{"verbs":["get"],"nonResourceURLs":["{url}"]}}"#
        ));
        assert_eq!(missing(&held, &[wanted]).is_empty(), covered, "{url}");
    }
}

#[test]
fn very_many_names_are_looked_up() {
    let names = |names: &mut dyn Iterator<Item = usize>| Rule {
        names: names.map(|n| format!("n{n}").into()).collect(),
        ..Rule::new(&["get"], &[""], &["pods"])
    };
    let held = [names(&mut (0..90_000)), names(&mut (0..80_000))];
    let wanted = [names(&mut (0..90_001).rev())];
    assert_eq!(missing(&held, &wanted), [names(&mut (90_000..90_001))]);
}

#[test]
fn what_is_held_for_some_names_does_not_cover_all_names() {
    let named = [rule(
        r#"{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}"#,
    )];
    let all = [rule(
        r#"{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}"#,
    )];
    assert_eq!(missing(&named, &all).len(), 1);
    let url = rule(r#"{"verbs":["get"],"nonResourceURLs":["/x"]}"#);
    let alone = describe(vec![url.clone()]);
    assert_eq!(describe(vec![url.clone(), url]), alone, "told once");
    // The lengths of lists multiply: with very many parts the rule is returned as it is.
    let names = |what: &str| {
        (0..1000)
            .map(|n| format!("{what}{n}").into())
            .collect::<Vec<_>>()
    };
    let huge = [Rule {
        verbs: names("v"),
        groups: names("g"),
        resources: names("r"),
        ..Rule::default()
    }];
    assert_eq!(missing(&all, &huge), huge);
    assert_eq!(missing(&huge, &huge), []);
    assert_eq!(missing(&all, &named), []);
    assert_eq!(missing(&named, &named), []);
}
