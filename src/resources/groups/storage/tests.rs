use crate::resources::groups::trial::Trial;

/// The refusals of the objects of a group's kind, but for those about metadata.
fn refusals(plural: &str, body: &str) -> Vec<String> {
    let told = Trial::of("storage.k8s.io", plural).refusals(body);
    told.into_iter()
        .filter(|told| !told.starts_with("metadata"))
        .collect()
}

#[test]
fn kinds_of_storage_are_judged_in_upstreams_order_and_words() {
    const DRIVER_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let bad_driver = format!(r#"spec.drivers[0].name: Invalid value: "-": {DRIVER_TEXT}"#);
    for (plural, body, refused) in [
        (
            "storageclasses",
            r#"{"metadata":{"name":"a"},"provisioner":"p"}"#,
            vec![],
        ),
        (
            "storageclasses",
            r#"{"metadata":{"name":"a"},"reclaimPolicy":"Recycle","volumeBindingMode":"Later","allowedTopologies":[{"matchLabelExpressions":[{"key":"k","values":[]},{"key":"k","values":["v","v"]}]}]}"#,
            vec![
                r#"reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain""#,
                r#"volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer""#,
                "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
                r#"allowedTopologies[0].matchLabelExpressions[1].values[1]: Duplicate value: "v""#,
                r#"allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "k""#,
                "provisioner: Required value",
            ],
        ),
        (
            "volumeattachments",
            r#"{"metadata":{"name":"a"},"spec":{"nodeName":"n","source":{}}}"#,
            vec![
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                "spec.attacher: Required value",
            ],
        ),
        (
            "csinodes",
            r#"{"metadata":{"name":"a"},"spec":{"drivers":[{"name":"-","nodeID":"i","topologyKeys":["k","k"]}]}}"#,
            vec![&bad_driver, r#"spec.drivers[0]: Duplicate value: "k""#],
        ),
        (
            "csidrivers",
            r#"{"metadata":{"name":"a"},"spec":{"serviceAccountTokenInSecrets":true,"nodeAllocatableUpdatePeriodSeconds":9,"fsGroupPolicy":"Any"}}"#,
            vec![
                r#"spec.fsGroupPolicy: Unsupported value: "Any": supported values: "File", "None", "ReadWriteOnceWithFSType""#,
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
                "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
            ],
        ),
        (
            "volumeattributesclasses",
            r#"{"metadata":{"name":"a"}}"#,
            vec![
                "driverName: Required value",
                "parameters: Required value: must contain at least one key/value pair",
            ],
        ),
    ] {
        assert_eq!(refusals(plural, body), refused, "{plural} {body}");
    }
}

#[test]
fn a_storage_class_keeps_what_makes_it_one() {
    let trial = Trial::of("storage.k8s.io", "storageclasses");
    let (old, _) = trial.create(r#"{"metadata":{"name":"a"},"provisioner":"p"}"#);
    for (field, refused) in [
        ("provisioner", true),
        ("reclaimPolicy", true),
        ("allowVolumeExpansion", false),
    ] {
        let (_, told) = trial.update("", &old, |new| match field {
            "allowVolumeExpansion" => new.set(field, true),
            "reclaimPolicy" => new.set(field, "Retain"),
            _ => new.set(field, "q"),
        });
        let frozen = format!("{field}: Invalid value: null: field is immutable");
        assert_eq!(told, if refused { vec![frozen] } else { vec![] });
    }
}
