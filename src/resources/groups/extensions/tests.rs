use crate::resources::groups::trial::Trial;

#[test]
fn a_local_api_service_is_available_at_once_and_named_by_version_and_group() {
    let trial = Trial::of("apiregistration.k8s.io", "apiservices");
    let spec = r#""spec":{"group":"example.com","version":"v1","groupPriorityMinimum":1,"versionPriority":1}"#;
    let (made, refused) = trial.create(&format!(
        r#"{{"metadata":{{"name":"v1.example.com"}},{spec}}}"#
    ));
    let available = &made.at("status").list("conditions")[0];
    assert_eq!(
        (available.str("status"), available.str("reason")),
        ("True", "Local")
    );
    // The group is cluster-scoped, but a trial sets a namespace.
    assert_eq!(refused, Vec::<String>::new());
    let refused = trial.refusals(&format!(r#"{{"metadata":{{"name":"other"}},{spec}}}"#));
    assert_eq!(
        refused,
        [
            r#"metadata.name: Invalid value: "other": must be `spec.version+"."+spec.group`: "v1.example.com""#
        ]
    );
}

#[test]
fn a_remote_api_service_needs_a_service() {
    let refused = Trial::of("apiregistration.k8s.io", "apiservices").refusals(
        r#"{"metadata":{"name":"v2."},"spec":{"version":"v2","groupPriorityMinimum":20001,"service":{"port":70000},"insecureSkipTLSVerify":true,"caBundle":"QUI="}}"#,
    );
    assert_eq!(
        refused,
        [
            "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
            "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            "spec.service.namespace: Required value",
            "spec.service.name: Required value",
            "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
            "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
        ]
    );
}

#[test]
fn leases_drop_what_belongs_to_a_gate_that_is_off() {
    let trial = Trial::of("coordination.k8s.io", "leases");
    let (made, refused) = trial.create(
        r#"{"metadata":{"name":"l"},"spec":{"strategy":"OldestEmulationVersion","preferredHolder":"x","leaseDurationSeconds":0,"leaseTransitions":-1}}"#,
    );
    assert!(made.at("spec").get("strategy").is_none());
    assert_eq!(
        refused,
        [
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        ]
    );
}

#[test]
fn a_migration_ends_once() {
    let trial = Trial::of("storagemigration.k8s.io", "storageversionmigrations");
    let (made, _) = trial.create(
        r#"{"metadata":{"name":"m"},"spec":{"resource":{"group":"apps","resource":"deployments"}}}"#,
    );
    let condition = |kind: &str, status: &str| crate::value!({"type": kind, "status": status, "reason": "A", "lastTransitionTime": "2024-01-01T00:00:00Z", "message": ""});
    let ended = |version: &str, conditions: Vec<crate::schema::Value>| crate::value!({"resourceVersion": version, "conditions": conditions});
    let (done, refused) = trial.update("status", &made, |m| {
        m.set("status", ended("5", vec![condition("Succeeded", "True")]));
    });
    assert_eq!(refused, Vec::<String>::new());
    let (_, refused) = trial.update("status", &done, |m| {
        m.set("status", ended("06", vec![condition("Failed", "True")]));
    });
    assert_eq!(
        refused[..2],
        [
            r#"status.resourceVersion: Invalid value: "06": resource version is not well formed: 06"#,
            r#"status.resourceVersion: Invalid value: "06": field is immutable"#,
        ]
    );
    assert!(refused[2].ends_with("Success condition cannot be set to false once it is true"));
}
