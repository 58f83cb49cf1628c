use crate::resources::groups::trial::Trial;
use crate::schema::json;

#[test]
fn budgets_ask_for_one_amount_that_makes_sense() {
    let trial = Trial::of("policy", "poddisruptionbudgets");
    for (spec, refused) in [
        (
            r#"{"minAvailable":"150%"}"#,
            r#"spec.minAvailable: Invalid value: "150%": must not be greater than 100%"#,
        ),
        (
            r#"{"maxUnavailable":-1}"#,
            "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            r#"{"unhealthyPodEvictionPolicy":"Z"}"#,
            r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "Z": supported values: "AlwaysAllow", "IfHealthyBudget""#,
        ),
    ] {
        let body = format!(r#"{{"metadata":{{"name":"b"}},"spec":{spec}}}"#);
        assert_eq!(trial.refusals(&body), [refused]);
    }
    let both =
        trial.refusals(r#"{"metadata":{"name":"b"},"spec":{"minAvailable":1,"maxUnavailable":1}}"#);
    assert!(
        both[0].ends_with("minAvailable and maxUnavailable cannot be both set"),
        "{both:?}"
    );
}

#[test]
fn the_label_of_an_older_version_goes_unless_it_selects_nothing() {
    let trial = Trial::of("policy", "poddisruptionbudgets");
    const KEY: &str = r#"{"key":"pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match","operator":"Exists"}"#;
    for (selector, kept) in [
        (format!(r#"{{"matchExpressions":[{KEY}]}}"#), None),
        (
            format!(r#"{{"matchLabels":{{"a":"b"}},"matchExpressions":[{KEY}]}}"#),
            Some(r#"{"matchLabels":{"a":"b"}}"#),
        ),
    ] {
        let body = format!(r#"{{"metadata":{{"name":"b"}},"spec":{{"selector":{selector}}}}}"#);
        let (made, _) = trial.create(&body);
        assert_eq!(
            json::to_string(made.at("spec").at("selector")),
            kept.unwrap_or(&selector)
        );
    }
}
