use super::Charge;
use super::usage::Evaluator;
use crate::schema::{Value, json};

fn parsed(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap().value
}

/// The usage of a quota after a write, or why the write is rejected; "" if nothing changes.
fn charged(plural: &str, quota: &str, old: Option<&str>, new: &str) -> String {
    let (group, plural) = plural.split_once('/').unwrap_or(("", plural));
    let old = old.map(parsed);
    let charge = Charge {
        evaluator: &Evaluator::of(group, plural).unwrap(),
        object: &parsed(new),
        old: old.as_ref(),
        refuses: true,
        now: 1_000_000,
    };
    match charge.on_all([&parsed(quota)]) {
        Ok(used) => used
            .iter()
            .flatten()
            .flat_map(|used| &used.0)
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect::<Vec<_>>()
            .join(","),
        Err(why) => why,
    }
}

#[test]
fn what_no_quota_can_charge_is_refused_first() {
    let quotas = [
        quota(r#""pods":"1""#, r#""pods":"1""#, ""),
        quota(r#""pods":"1""#, "", ""),
    ]
    .map(|text| parsed(&text));
    let charge = Charge {
        evaluator: &Evaluator::of("", "pods").unwrap(),
        object: &parsed(r#"{"spec":{}}"#),
        old: None,
        refuses: true,
        now: 1_000_000,
    };
    let unknown = "status unknown for quota: q, resources: pods";
    assert_eq!(charge.on_all(&quotas), Err(unknown.to_owned()));
}

fn quota(hard: &str, used: &str, spec: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"q"}},"spec":{{{spec}}},"status":{{"hard":{{{hard}}},"used":{{{used}}}}}}}"#
    )
}

#[test]
fn what_a_write_asks_for_is_charged_or_refused_in_upstreams_words() {
    let pod = |resources: &str, rest: &str| {
        format!(r#"{{"spec":{{{rest}"containers":[{{"name":"c","resources":{{{resources}}}}}]}}}}"#)
    };
    for (plural, hard, used, spec, new, wanted) in [
        (
            "pods",
            r#""pods":"1""#,
            r#""pods":"0""#,
            "",
            pod("", ""),
            "pods=1",
        ),
        (
            "pods",
            r#""pods":"1""#,
            r#""pods":"1""#,
            "",
            pod("", ""),
            "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
        ),
        (
            "pods",
            r#""pods":"1""#,
            "",
            "",
            pod("", ""),
            "status unknown for quota: q, resources: pods",
        ),
        ("pods", "", "", "", pod("", ""), ""),
        (
            "pods",
            r#""requests.cpu":"1","limits.memory":"1Gi""#,
            r#""requests.cpu":"0","limits.memory":"0""#,
            "",
            pod("", ""),
            "failed quota: q: must specify limits.memory for: c; requests.cpu for: c",
        ),
        (
            "pods",
            r#""requests.cpu":"1","limits.memory":"1Gi""#,
            r#""requests.cpu":"600m","limits.memory":"1Mi""#,
            "",
            pod(r#""requests":{"cpu":"600m"},"limits":{"memory":"1Mi"}"#, ""),
            "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1",
        ),
        (
            "pods",
            r#""cpu":"1","requests.cpu":"1","requests.example.com/gpu":"2""#,
            r#""cpu":"0","requests.cpu":"0","requests.example.com/gpu":"0""#,
            "",
            pod(r#""requests":{"cpu":"600m","example.com/gpu":"2"}"#, ""),
            "cpu=600m,requests.cpu=600m,requests.example.com/gpu=2",
        ),
        (
            "pods",
            r#""pods":"0""#,
            r#""pods":"0""#,
            r#""scopes":["BestEffort"]"#,
            pod(r#""requests":{"cpu":"1"}"#, ""),
            "",
        ),
        (
            "pods",
            r#""pods":"0""#,
            r#""pods":"0""#,
            r#""scopes":["BestEffort"]"#,
            pod("", ""),
            "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0",
        ),
        (
            "pods",
            r#""pods":"1""#,
            r#""pods":"0""#,
            r#""scopes":["Terminating"]"#,
            pod("", r#""activeDeadlineSeconds":5,"#),
            "pods=1",
        ),
        (
            "pods",
            r#""pods":"1""#,
            r#""pods":"0""#,
            r#""scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["high"]}]}"#,
            pod("", r#""priorityClassName":"high","#),
            "pods=1",
        ),
        (
            "pods",
            r#""pods":"1""#,
            r#""pods":"0""#,
            r#""scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["high"]}]}"#,
            pod("", ""),
            "",
        ),
        (
            "services",
            r#""services":"2","services.nodeports":"1""#,
            r#""services":"0","services.nodeports":"0""#,
            "",
            r#"{"spec":{"type":"NodePort","ports":[{},{}]}}"#.to_owned(),
            "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1",
        ),
        (
            "persistentvolumeclaims",
            r#""requests.storage":"5Gi","gold.storageclass.storage.k8s.io/requests.storage":"1Gi""#,
            r#""requests.storage":"1Gi","gold.storageclass.storage.k8s.io/requests.storage":"0""#,
            "",
            r#"{"spec":{"storageClassName":"gold","resources":{"requests":{"storage":"2Gi"}}}}"#
                .to_owned(),
            "exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests.storage=2Gi, used: gold.storageclass.storage.k8s.io/requests.storage=0, limited: gold.storageclass.storage.k8s.io/requests.storage=1Gi",
        ),
        (
            "configmaps",
            r#""configmaps":"1","count/configmaps":"5""#,
            r#""configmaps":"0","count/configmaps":"0""#,
            "",
            "{}".to_owned(),
            "configmaps=1,count/configmaps=1",
        ),
        (
            "apps/deployments",
            r#""count/deployments.apps":"5","pods":"0""#,
            r#""count/deployments.apps":"4""#,
            "",
            "{}".to_owned(),
            "count/deployments.apps=5",
        ),
        (
            "apps/deployments",
            r#""count/deployments.apps":"5""#,
            r#""count/deployments.apps":"0""#,
            r#""scopes":["BestEffort"]"#,
            "{}".to_owned(),
            "",
        ),
    ] {
        assert_eq!(
            charged(plural, &quota(hard, used, spec), None, &new),
            wanted,
            "{hard} {new}"
        );
    }
}

#[test]
fn an_update_is_charged_for_what_it_adds() {
    let claim =
        |size: &str| format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
    let quota = quota(
        r#""requests.storage":"5Gi","persistentvolumeclaims":"1""#,
        r#""requests.storage":"1Gi","persistentvolumeclaims":"1""#,
        "",
    );
    let update = |to: &str| {
        charged(
            "persistentvolumeclaims",
            &quota,
            Some(&claim("1Gi")),
            &claim(to),
        )
    };
    assert_eq!(
        update("3Gi"),
        "persistentvolumeclaims=1,requests.storage=3Gi"
    );
    assert_eq!(update("1Gi"), "");
    assert_eq!(update("500Mi"), "");
    assert_eq!(
        update("6Gi"),
        "exceeded quota: q, requested: requests.storage=5Gi, used: requests.storage=1Gi, limited: requests.storage=5Gi"
    );
}

#[test]
fn names_in_a_quota_tell_what_is_counted() {
    let counted = |names: &[&str]| -> Vec<String> {
        Evaluator::for_names(names.iter().copied())
            .iter()
            .map(|evaluator| format!("{}/{}", evaluator.group, evaluator.plural))
            .collect()
    };
    assert_eq!(
        counted(&[
            "cpu",
            "pods",
            "count/pods",
            "services",
            "secrets",
            "count/widgets.example.com",
            "count/events"
        ]),
        ["/pods", "/services", "/secrets", "example.com/widgets"]
    );
    assert_eq!(
        counted(&[
            "gold.storageclass.storage.k8s.io/requests.storage",
            "a.deviceclass.resource.k8s.io/devices"
        ]),
        ["/persistentvolumeclaims", "resource.k8s.io/resourceclaims"]
    );
}
