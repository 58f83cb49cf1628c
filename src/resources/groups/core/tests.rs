use crate::resources::groups::trial::Trial;
use crate::schema::json;

fn refusals(plural: &str, body: &str) -> Vec<String> {
    Trial::of("", plural).refusals(body)
}

#[test]
fn values_of_config_maps_and_secrets_have_keys_and_types() {
    for (plural, body, refused) in [
        (
            "configmaps",
            r#"{"metadata":{"name":"a"},"data":{"k":"v"},"binaryData":{"k":"dg=="}}"#,
            &[r#"data[k]: Invalid value: "k": duplicate of key present in binaryData"#][..],
        ),
        (
            "secrets",
            r#"{"metadata":{"name":"a"},"type":"kubernetes.io/basic-auth"}"#,
            &[
                "data[username]: Required value",
                "data[password]: Required value",
            ],
        ),
        (
            "secrets",
            r#"{"metadata":{"name":"a"},"type":"kubernetes.io/dockercfg","stringData":{".dockercfg":"[]"}}"#,
            &[
                r#"data[.dockercfg]: Invalid value: "<secret contents redacted>": json: cannot unmarshal array into Go value of type map[string]interface {}"#,
            ],
        ),
        (
            "secrets",
            r#"{"metadata":{"name":"a"},"type":"kubernetes.io/service-account-token"}"#,
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
    ] {
        assert_eq!(refusals(plural, body), refused, "{body}");
    }
}

#[test]
fn what_a_secret_says_in_the_clear_wins_and_is_not_kept() {
    let (made, _) = Trial::of("", "secrets").create(
        r#"{"metadata":{"name":"a"},"data":{"k":"eA==","l":"eQ=="},"stringData":{"k":"z"}}"#,
    );
    assert_eq!(
        json::to_string(made.at("data")),
        r#"{"k":"eg==","l":"eQ=="}"#
    );
    assert_eq!(made.str("type"), "Opaque");
    assert!(made.get("stringData").is_none());
}

#[test]
fn the_limits_of_a_container_fill_its_defaults() {
    let trial = Trial::of("", "limitranges");
    let limits = |item: &str| {
        let body = format!(r#"{{"metadata":{{"name":"a"}},"spec":{{"limits":[{item}]}}}}"#);
        let (made, told) = trial.create(&body);
        (json::to_string(&made.at("spec").list("limits")[0]), told)
    };
    assert_eq!(
        limits(r#"{"type":"Container","max":{"cpu":"2"},"min":{"cpu":"1","memory":"1Gi"}}"#).0,
        r#"{"type":"Container","max":{"cpu":"2"},"min":{"cpu":"1","memory":"1Gi"},"default":{"cpu":"2"},"defaultRequest":{"cpu":"2","memory":"1Gi"}}"#
    );
    assert_eq!(
        limits(r#"{"type":"Pod","max":{"cpu":"1"},"min":{"cpu":"2"},"default":{"cpu":"1"},"maxLimitRequestRatio":{"cpu":"3"}}"#).1,
        [
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#,
            r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 0.500000"#,
        ]
    );
}

#[test]
fn a_quota_counts_what_there_is_in_scopes_that_fit() {
    let of = |spec: &str| {
        refusals(
            "resourcequotas",
            &format!(r#"{{"metadata":{{"name":"a"}},"spec":{spec}}}"#),
        )
    };
    assert_eq!(
        of(r#"{"hard":{"pods":"1","count/x.y":"2"},"scopes":["NotBestEffort"]}"#),
        Vec::<String>::new()
    );
    assert_eq!(
        of(r#"{"hard":{"pods":"1500m"}}"#),
        [r#"spec.hard[pods]: Invalid value: "1500m": must be an integer"#]
    );
    assert_eq!(
        of(r#"{"hard":{"cpu":"1"},"scopes":["BestEffort","NotBestEffort"]}"#),
        [
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: unsupported scope applied to resource"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes"#,
        ]
    );
}

#[test]
fn a_node_keeps_what_its_name_in_the_cloud_is() {
    let trial = Trial::of("", "nodes");
    let (old, _) = trial.create(r#"{"metadata":{"name":"n"},"spec":{"podCIDR":"10.0.0.0/24","podCIDRs":["10.1.0.0/24"],"providerID":"p"}}"#);
    let spec = old.at("spec");
    assert_eq!(json::to_string(spec.at("podCIDRs")), r#"["10.0.0.0/24"]"#);
    let (_, told) = trial.update("", &old, |new| {
        new.set("spec", crate::value!({"providerID": "q"}))
    });
    assert_eq!(
        told.iter()
            .filter(|told| told.starts_with("spec"))
            .collect::<Vec<_>>(),
        [
            r#"spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid"#,
            "spec.providerID: Invalid value: null: field cannot be modified once set",
        ]
    );
}

#[test]
fn an_event_is_the_same_object_in_both_groups() {
    let event = r#"{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{"name":"e"},"eventTime":"2020-01-01T00:00:00.000000Z","reportingController":"x.y/c","reportingInstance":"i","action":"A","reason":"R","regarding":{"kind":"Pod","name":"p"},"note":"n","type":"Normal"}"#;
    let conversion = super::events::conversion();
    let parsed = json::parse(event.as_bytes()).unwrap().value;
    let core = (conversion.to_storage)(parsed);
    assert_eq!(core.str("reportingComponent"), "x.y/c");
    assert_eq!(core.at("involvedObject").str("name"), "p");
    assert_eq!(core.str("message"), "n");
    let back = (conversion.from_storage)(core);
    assert_eq!(back.at("regarding").str("name"), "p");
    assert_eq!(
        (back.str("note"), back.str("reportingController")),
        ("n", "x.y/c")
    );
    let names: Vec<&str> = back
        .as_object()
        .unwrap()
        .keys()
        .map(|k| k.as_str())
        .collect();
    assert_eq!(names[3], "eventTime", "in the order of its own schema");
}
