use crate::resources::groups::trial::Trial;
use crate::schema::json;

const VOLUME: &str = r#"{"metadata":{"name":"v"},"spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],SOURCE}}"#;
const CLAIM: &str = r#"{"metadata":{"name":"c"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}"#;

fn volume(source: &str) -> String {
    VOLUME.replace("SOURCE", source)
}

#[test]
fn a_volume_is_made_of_one_thing() {
    let trial = Trial::of("", "persistentvolumes");
    for (source, refused) in [
        (r#""hostPath":{"path":"/a"}"#, &[][..]),
        (
            r#""hostPath":{"path":"/a/../b"}"#,
            &[r#"spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'"#],
        ),
        (
            r#""nfs":{"server":"s","path":"a"},"csi":{"driver":"d","volumeHandle":"h"},"hostPath":{"path":""}"#,
            &[
                "spec.hostPath.path: Required value",
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
                "spec.csi: Forbidden: may not specify more than 1 volume type",
            ],
        ),
        (
            r#""gcePersistentDisk":{"pdName":"","partition":256}"#,
            &[
                "spec.persistentDisk.pdName: Required value",
                "spec.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
            ],
        ),
        (
            r#""local":{"path":"/a"}"#,
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (
            r#""iscsi":{"targetPortal":"p","iqn":"iqn.2001-04.com.example:a","lun":1,"initiatorName":"x","chapAuthSession":true}"#,
            &[
                "spec.iscsi.secretRef: Required value",
                r#"spec.iscsi.initiatorname: Invalid value: "x": must be valid format"#,
            ],
        ),
        (
            r#""volumeMode":"Raw""#,
            &[
                "spec: Required value: must specify a volume type",
                r#"spec.volumeMode: Unsupported value: "Raw": supported values: "Block", "Filesystem""#,
            ],
        ),
    ] {
        // Only errors about the spec: errors about metadata differ, because volumes have no namespace.
        let told: Vec<String> = trial.refusals(&volume(source));
        let told: Vec<&String> = told.iter().filter(|t| t.starts_with("spec")).collect();
        assert_eq!(told, refused, "{source}");
    }
}

#[test]
fn what_a_volume_is_made_of_stays() {
    let trial = Trial::of("", "persistentvolumes");
    let (old, _) = trial.create(&volume(r#""csi":{"driver":"d","volumeHandle":"h"}"#));
    let secret = json::parse(br#"{"name":"n","namespace":"m"}"#)
        .unwrap()
        .value;
    let set = |key: &'static str, value: crate::schema::Value| {
        let (_, told) = trial.update("", &old, |new| {
            let spec = new.get_mut("spec").unwrap();
            spec.get_mut("csi").unwrap().set(key, value);
        });
        told.into_iter()
            .filter(|told| told.starts_with("spec"))
            .collect::<Vec<_>>()
    };
    assert!(set("controllerExpandSecretRef", secret).is_empty());
    let told = set("volumeHandle", "i".into());
    assert!(
        told[0].starts_with("spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n@@ -22,7 +22,7 @@\n  \"StorageOS\": null,\n"),
        "{told:?}"
    );
}

#[test]
fn the_sources_of_a_claim_mirror_one_another() {
    let trial = Trial::of("", "persistentvolumeclaims");
    let with = |sources: &str| {
        let body = CLAIM.replace(r#""spec":{"#, &format!(r#""spec":{{{sources},"#));
        let (made, told) = trial.create(&body);
        assert_eq!(told, Vec::<String>::new());
        let text = |key: &str| json::to_string(made.at("spec").at(key));
        (text("dataSource"), text("dataSourceRef"))
    };
    let same = r#"{"apiGroup":null,"kind":"PersistentVolumeClaim","name":"d"}"#;
    let other = r#"{"apiGroup":"x.io","kind":"K","name":"d"}"#;
    let null = "null".to_owned();
    for key in ["dataSource", "dataSourceRef"] {
        let made = with(&format!(r#""{key}":{same}"#));
        assert_eq!(made, (same.to_owned(), same.to_owned()));
    }
    assert_eq!(
        with(&format!(r#""dataSource":{other}"#)),
        (null.clone(), null)
    );
    assert_eq!(
        with(&format!(r#""dataSourceRef":{other}"#)),
        (other.to_owned(), other.to_owned())
    );
}

#[test]
fn a_claim_grows_only_while_bound_and_shrinks_to_what_it_has() {
    let trial = Trial::of("", "persistentvolumeclaims");
    let (mut old, _) = trial.create(CLAIM);
    let resize = |old: &crate::schema::Value, size: &str| {
        let (_, told) = trial.update("", old, |new| {
            let spec = new.get_mut("spec").unwrap();
            let requests = spec.get_mut("resources").unwrap().get_mut("requests");
            requests.unwrap().set("storage", size);
        });
        told
    };
    assert!(resize(&old, "2Gi")[0].starts_with("spec: Forbidden: spec is immutable"));
    old.set(
        "status",
        crate::value!({"phase": "Bound", "capacity": {"storage": "500Mi"}}),
    );
    assert_eq!(resize(&old, "2Gi"), Vec::<String>::new());
    assert_eq!(resize(&old, "600Mi"), Vec::<String>::new());
    assert_eq!(
        resize(&old, "500Mi"),
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
}
