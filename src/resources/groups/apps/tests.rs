use crate::resources::groups::trial::Trial;
use crate::schema::json;
use crate::value;

/// A pod template with all defaults.
const TEMPLATE: &str = r#""template":{"metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"i:1","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}}"#;

const MINIMAL: &str = r#"{"metadata":{"name":"w"},"spec":{"selector":{"matchLabels":{"app":"x"}},"template":{"metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"i:1"}]}}}}"#;

#[test]
fn minimal_workloads_get_every_default() {
    const SELECTOR: &str = r#""selector":{"matchLabels":{"app":"x"}}"#;
    for (plural, before, after) in [
        (
            "deployments",
            r#""replicas":1,"#,
            r#","strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}},"revisionHistoryLimit":10,"progressDeadlineSeconds":600"#,
        ),
        ("replicasets", r#""replicas":1,"#, ""),
        (
            "daemonsets",
            "",
            r#","updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":0}},"revisionHistoryLimit":10"#,
        ),
        (
            "statefulsets",
            r#""replicas":1,"#,
            r#","serviceName":"","podManagementPolicy":"OrderedReady","updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"partition":0,"maxUnavailable":1}},"revisionHistoryLimit":10,"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Retain","whenScaled":"Retain"}"#,
        ),
    ] {
        let made = Trial::of("apps", plural).defaulted(MINIMAL);
        assert_eq!(
            json::to_string(made.at("spec")),
            format!("{{{before}{SELECTOR},{TEMPLATE}{after}}}"),
            "{plural}"
        );
    }
}

#[test]
fn other_strategies_get_no_settings() {
    let body = MINIMAL.replace(
        r#""spec":{"selector""#,
        r#""spec":{"updateStrategy":{"type":"OnDelete"},"strategy":{"type":"Recreate"},"selector""#,
    );
    for (plural, field) in [
        ("deployments", "strategy"),
        ("daemonsets", "updateStrategy"),
        ("statefulsets", "updateStrategy"),
    ] {
        let made = Trial::of("apps", plural).defaulted(&body);
        let strategy = made.at("spec").at(field);
        assert!(strategy.get("rollingUpdate").is_none(), "{plural}");
    }
}

#[test]
fn a_deployments_rollback_is_a_number_in_an_annotation() {
    const ROLLBACK: &str = "deprecated.deployment.rollback.to";
    let read = |text: &str| -> Result<Option<String>, String> {
        let mut object = value!({
            "metadata": {"annotations": {"deprecated.deployment.rollback.to": text, "a": "b"}}
        });
        (super::deployments::RULES.convert)(&mut object)?;
        let annotations = object.path(&["metadata", "annotations"]);
        Ok(annotations.at(ROLLBACK).as_str().map(str::to_owned))
    };
    for (text, revision) in [
        ("", None),
        ("007", Some("7")),
        ("+3", Some("3")),
        ("-1", Some("-1")),
    ] {
        assert_eq!(read(text), Ok(revision.map(str::to_owned)), "{text}");
    }
    for (text, why) in [
        ("abc", "invalid syntax"),
        ("9223372036854775808", "value out of range"),
    ] {
        let told = format!(
            "failed to parse annotation[{ROLLBACK}]={text} as int64: strconv.ParseInt: parsing \"{text}\": {why}"
        );
        assert_eq!(read(text), Err(told), "{text}");
    }
}

#[test]
fn an_unused_rolling_update_of_a_daemon_set_is_zero() {
    let body = MINIMAL.replace(
        r#""spec":{"selector""#,
        r#""spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":{}},"selector""#,
    );
    let made = Trial::of("apps", "daemonsets").defaulted(&body);
    assert_eq!(
        json::to_string(made.path(&["spec", "updateStrategy", "rollingUpdate"])),
        r#"{"maxUnavailable":0,"maxSurge":0}"#
    );
}

#[test]
fn a_stateful_sets_name_is_a_label() {
    let named = |name: &str| {
        let body = MINIMAL.replace(r#""name":"w""#, &format!(r#""name":"{name}""#));
        Trial::of("apps", "statefulsets").refusals(&body)
    };
    assert_eq!(named("w"), Vec::<String>::new());
    assert_eq!(
        named("a.b"),
        [r#"metadata.name: Invalid value: "a.b": must not contain dots"#]
    );
}

#[test]
fn labels_and_annotations_of_a_stateful_sets_template_are_told_twice() {
    let body = MINIMAL.replace(
        r#""app":"x"}},"spec""#,
        r#""app":"x"},"annotations":{"a b":""}},"spec""#,
    );
    for (plural, times) in [("deployments", 1), ("statefulsets", 2)] {
        let told = Trial::of("apps", plural).refusals(&body);
        let of_notes = told
            .iter()
            .filter(|text| text.starts_with("spec.template.annotations: "));
        assert_eq!(of_notes.count(), times, "{plural}: {told:?}");
    }
}
