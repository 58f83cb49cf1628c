use crate::resources::groups::trial::Trial;
use crate::schema::{Value, json};

fn pods() -> Trial {
    Trial::of("", "pods")
}

/// The spec of a pod with only upstream's defaults, recorded from v1.37.2.
const DEFAULTED: &str = r#"{"containers":[{"name":"c","image":"busybox","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"Always"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler","enableServiceLinks":true}"#;

fn spec(trial: &Trial, spec: &str) -> Value {
    trial
        .defaulted(&format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#))
        .at("spec")
        .clone()
}

fn container(fields: &str) -> String {
    format!(r#"{{"containers":[{{"name":"c","image":"i:1",{fields}}}]}}"#)
}

#[test]
fn a_minimal_pod_gets_every_default() {
    let spec = spec(
        &pods(),
        r#"{"containers":[{"name":"c","image":"busybox"}]}"#,
    );
    assert_eq!(json::to_string(&spec), DEFAULTED);
}

#[test]
fn a_template_gets_those_of_a_pod_spec_only() {
    let template = Trial::of("", "podtemplates").defaulted(
        r#"{"metadata":{"name":"t"},"template":{"spec":{"terminationGracePeriodSeconds":-1,"containers":[{"name":"c","image":"busybox","resources":{"limits":{"cpu":"1"}}}]}}}"#,
    );
    let spec = template.path(&["template", "spec"]);
    assert!(spec.get("enableServiceLinks").is_none());
    assert_eq!(spec.int("terminationGracePeriodSeconds"), -1);
    let container = &spec.list("containers")[0];
    assert!(container.at("resources").get("requests").is_none());
    assert_eq!(container.str("imagePullPolicy"), "Always");
}

#[test]
fn requests_come_from_limits_and_nothing_is_finer_than_a_thousandth() {
    let spec = spec(
        &pods(),
        &container(
            r#""resources":{"limits":{"cpu":"1.0001","memory":"1Gi"},"requests":{"memory":"512Mi"}}"#,
        ),
    );
    assert_eq!(
        json::to_string(spec.list("containers")[0].at("resources")),
        r#"{"limits":{"cpu":"1001m","memory":"1Gi"},"requests":{"cpu":"1001m","memory":"512Mi"}}"#
    );
}

#[test]
fn probes_hooks_ports_and_references_get_theirs() {
    let spec = spec(
        &pods(),
        r#"{"hostNetwork":true,"serviceAccount":"a","terminationGracePeriodSeconds":-5,"containers":[{"name":"c","image":"i:1","ports":[{"containerPort":80}],
            "livenessProbe":{"httpGet":{"port":80}},"readinessProbe":{"grpc":{"port":1}},
            "lifecycle":{"postStart":{"httpGet":{"port":80}}},
            "env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},{"name":"B","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"p","key":"k"}}}]}]}"#,
    );
    assert_eq!(spec.str("serviceAccountName"), "a");
    assert_eq!(spec.int("terminationGracePeriodSeconds"), 1);
    let container = &spec.list("containers")[0];
    for (field, shown) in [
        (
            "ports",
            r#"[{"hostPort":80,"containerPort":80,"protocol":"TCP"}]"#,
        ),
        (
            "livenessProbe",
            r#"{"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}"#,
        ),
        (
            "readinessProbe",
            r#"{"grpc":{"port":1,"service":""},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}"#,
        ),
        (
            "lifecycle",
            r#"{"postStart":{"httpGet":{"path":"/","port":80,"scheme":"HTTP"}}}"#,
        ),
        (
            "env",
            r#"[{"name":"A","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"B","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"p","key":"k","optional":false}}}]"#,
        ),
    ] {
        assert_eq!(json::to_string(container.at(field)), shown);
    }
}

#[test]
fn volumes_get_theirs_and_one_without_a_source_is_an_empty_dir() {
    let spec = spec(
        &pods(),
        r#"{"containers":[],"volumes":[{"name":"a"},{"name":"b","secret":{"secretName":"s"}},{"name":"c","hostPath":{"path":"/"}},
            {"name":"d","image":{"reference":"x"}},{"name":"e","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}},
            {"name":"f","iscsi":{"targetPortal":"p","iqn":"q","lun":0}}]}"#,
    );
    assert_eq!(
        json::to_string(spec.at("volumes")),
        concat!(
            r#"[{"name":"a","emptyDir":{}},{"name":"b","secret":{"secretName":"s","defaultMode":420}},{"name":"c","hostPath":{"path":"/","type":""}},"#,
            r#"{"name":"d","image":{"reference":"x","pullPolicy":"Always"}},{"name":"e","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3600,"path":"t"}}],"defaultMode":420}},"#,
            r#"{"name":"f","iscsi":{"targetPortal":"p","iqn":"q","lun":0,"iscsiInterface":"default"}}]"#
        )
    );
}

#[test]
fn an_empty_hook_goes_with_its_stop_signal_only() {
    let spec = spec(
        &pods(),
        r#"{"containers":[{"name":"a","image":"i","lifecycle":{"stopSignal":"SIGUSR1"}},{"name":"b","image":"i","lifecycle":{}}]}"#,
    );
    let mut pod: Value = crate::value!({ "spec": spec });
    super::disabled::drop_disabled(&mut pod, &Value::Null);
    let containers = pod.at("spec").list("containers");
    let hooks: Vec<Option<&Value>> = containers.iter().map(|c| c.get("lifecycle")).collect();
    assert_eq!(hooks, [None, Some(&crate::value!({}))]);
}
