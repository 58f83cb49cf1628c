use super::classes::STORAGE;
use crate::resources::groups::trial::Trial;
use crate::resources::metadata::DEFAULT_STORAGE_CLASS;
use crate::value;

/// The errors about objects of a kind, except those about metadata.
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

#[test]
fn the_newest_of_the_marked_classes_is_the_default_one_and_of_equally_old_ones_the_first_by_name() {
    let class = |name: &str, made: u8, mark: &str, marked: &str| {
        let mut class = value!({"metadata": {
            "name": name,
            "creationTimestamp": (format!("2026-01-01T00:00:0{made}Z")),
        }});
        let meta = class.object_mut().object_mut("metadata");
        meta.object_mut("annotations").insert(mark, marked);
        class
    };
    let (mark, beta) = (DEFAULT_STORAGE_CLASS[0], DEFAULT_STORAGE_CLASS[1]);
    for (classes, default) in [
        (vec![], None),
        (vec![class("a", 1, mark, "True")], None),
        (
            vec![class("a", 1, mark, "true"), class("b", 2, beta, "true")],
            Some(1),
        ),
        (
            vec![class("b", 1, mark, "true"), class("a", 1, mark, "true")],
            Some(1),
        ),
        (
            vec![class("a", 1, mark, "true"), class("b", 2, mark, "false")],
            Some(0),
        ),
    ] {
        assert_eq!(
            (STORAGE.printing.default_row)(&classes),
            default,
            "{classes:?}"
        );
    }
}
