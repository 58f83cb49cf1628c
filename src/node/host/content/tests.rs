use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

#[test]
fn certificates_are_in_the_files_that_are_named() {
    let pair = Pair {
        key: "k\n".into(),
        chain: "c\n".into(),
    };
    let named = |bundle: &str, key: &str, chain: &str| PodCertificateProjection {
        credential_bundle_path: Some(bundle.into()),
        key_path: Some(key.into()),
        certificate_chain_path: Some(chain.into()),
        ..PodCertificateProjection::default()
    };
    let access = Access {
        mode: 0o600,
        owner: Some(7),
    };
    for (of, wanted) in [
        (named("b", "", ""), vec![("b", "k\nc\n")]),
        (named("", "d/k", "c"), vec![("c", "c\n"), ("d/k", "k\n")]),
        (PodCertificateProjection::default(), vec![]),
    ] {
        let wanted = wanted.into_iter();
        let wanted = wanted.map(|(path, text)| {
            let content = text.into();
            (path.into(), Shown { content, access })
        });
        assert_eq!(certified(&pair, &of, access), Ok(wanted.collect()));
    }
    assert!(certified(&pair, &named("../b", "", ""), access).is_err());
}

#[test]
fn what_is_only_for_the_pod_belongs_to_its_user() {
    use serde_json::{Value, json};
    let none = Value::Null;
    for (common, group, own, expected) in [
        (&none, &none, &none, (0o644, None)),
        (&json!(7), &none, &none, (0o600, Some(7))),
        (&json!(7), &none, &json!(8), (0o644, None)),
        (&none, &none, &json!(8), (0o644, None)),
        (&json!(0), &none, &none, (0o600, Some(0))),
        (&none, &json!(9), &none, (0o600, None)),
        (&json!(7), &json!(9), &json!(7), (0o600, Some(7))),
    ] {
        let pod = json!({"spec": {
            "securityContext": {"runAsUser": common, "fsGroup": group},
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "c", "securityContext": {"runAsUser": own}}]}});
        let pod = serde_json::from_value(pod).expect("a pod");
        let Access { mode, owner } = Access::of_pod(&pod, 0o644);
        assert_eq!((mode, owner), expected, "{common} {group} {own}");
    }
}

#[test]
fn volumes_change_all_at_once_and_keep_nothing_old() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let files = |list: &[(&str, &str)]| -> Files {
        list.iter()
            .map(|(name, content)| {
                let (content, access) = (content.as_bytes().to_vec(), Access::of_root(0o640));
                ((*name).to_owned(), Shown { content, access })
            })
            .collect()
    };
    let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
    let none = BTreeSet::new();
    write(path, &files(&[("a", "1"), ("d/b", "2")]), &none, None).expect("written");
    assert_eq!(
        (read("a"), read("d/b")),
        (Some("1".into()), Some("2".into()))
    );
    let mode = std::fs::metadata(path.join("a"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let version = std::fs::read_link(path.join("..data")).expect("a link");
    write(path, &files(&[("a", "1"), ("d/b", "2")]), &none, None).expect("written");
    assert_eq!(
        std::fs::read_link(path.join("..data")).expect("a link"),
        version,
        "nothing to do"
    );
    write(path, &files(&[("a", "3"), ("c", "4")]), &none, None).expect("written");
    assert_eq!(
        (read("a"), read("d/b"), read("c")),
        (Some("3".into()), None, Some("4".into()))
    );
    let names: Vec<_> = std::fs::read_dir(path).expect("read").flatten().collect();
    assert_eq!(names.len(), 4, "a, c, ..data and its version: {names:?}");
    // As left by an agent that was killed after it switched the version, and by one that was killed earlier.
    std::fs::remove_file(path.join("c")).expect("removed");
    std::fs::create_dir(path.join("..old")).expect("made");
    std::fs::write(path.join("..old/secret"), "").expect("written");
    symlink("..old", path.join("..data_tmp")).expect("made");
    symlink("..data/gone", path.join("gone")).expect("made");
    write(path, &files(&[("a", "3"), ("c", "4")]), &none, None).expect("written");
    assert_eq!(read("c"), Some("4".into()));
    let names: Vec<_> = std::fs::read_dir(path).expect("read").flatten().collect();
    assert_eq!(names.len(), 4, "a, c, ..data and its version: {names:?}");
    // Other volumes are mounted below: what was made for that stays, and a file stays a file.
    let mounts = ["tls", "deep/er", "a"].map(str::to_owned).into();
    for content in ["3", "4"] {
        write(path, &files(&[("a", content), ("c", "4")]), &mounts, None).expect("written");
        assert!(path.join("tls").is_dir() && path.join("deep/er").is_dir());
        assert_eq!(read("a"), Some(content.into()));
        std::fs::write(path.join("tls/kept"), "").expect("written");
    }
    assert!(path.join("tls/kept").exists());
    write(path, &files(&[("a", "3"), ("c", "4")]), &none, None).expect("written");
    assert!(!path.join("tls").exists());
    // As on a full disk: one file cannot be created, after others were.
    let torn = files(&[("a", "5"), ("a/b", "6")]);
    assert!(write(path, &torn, &none, None).is_err());
    assert_eq!((read("a"), read("c")), (Some("3".into()), Some("4".into())));
    let left: Vec<_> = std::fs::read_dir(path).expect("read").flatten().collect();
    assert_eq!(left.len(), 4, "nothing of it is left: {left:?}");
}

#[test]
fn tokens_are_renewed_by_what_they_say_of_themselves() {
    let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    for (claims, life, expected) in [
        (r#"{"iat":1000,"exp":4600}"#, 3600, Some(1000 + 2880)),
        // Issued for less than requested, and for longer than it should be relied on.
        (r#"{"iat":1000,"exp":1600}"#, 3600, Some(1000 + 480)),
        (r#"{"iat":1000,"exp":31537000}"#, 3607, Some(1000 + 2880)),
        (r#"{"iat":0,"exp":31536000}"#, 31_536_000, Some(24 * 3600)),
        (r#"{"iat":9,"exp":-9}"#, 3600, Some(9)),
        (r#"{"exp":4600}"#, 3600, None),
    ] {
        let at = renewed(&token(claims), life).map(Timestamp::as_second);
        assert_eq!(at, expected, "{claims} {life}");
    }
    assert_eq!(renewed("no token", 3600), None);
}

#[test]
fn paths_stay_inside() {
    for (path, fine) in [
        ("a", true),
        ("a/b", true),
        ("../a", false),
        ("/a", false),
        ("a/../b", false),
        ("..a", false),
        ("", false),
    ] {
        assert_eq!(checked(path).is_ok(), fine, "{path:?}");
    }
}

#[test]
fn what_a_volume_shows_of_an_object_is_chosen() {
    let values = || BTreeMap::from([("a".to_owned(), b"1".to_vec())]);
    let item = |key: &str, mode| {
        vec![KeyToPath {
            key: key.into(),
            mode,
            path: format!("d/{key}"),
            user: None,
        }]
    };
    let file = |path: &str, mode| {
        let (content, access) = (b"1".to_vec(), Access::of_root(mode));
        Files::from([(path.to_owned(), Shown { content, access })])
    };
    for (items, optional, expected) in [
        (None, false, Ok(file("a", 0o644))),
        (Some(vec![]), false, Ok(file("a", 0o644))),
        (Some(item("a", None)), false, Ok(file("d/a", 0o644))),
        (Some(item("a", Some(0o400))), false, Ok(file("d/a", 0o400))),
        (Some(item("b", None)), true, Ok(Files::new())),
        (Some(item("b", None)), false, Err("no key: b".to_owned())),
    ] {
        let found = chosen(values(), items.as_ref(), 0o644, optional, "no key");
        assert_eq!(found, expected, "{items:?} {optional}");
    }
    let secret: Volume = serde_json::from_value(serde_json::json!({
        "name": "v", "secret": {"secretName": "s", "defaultMode": 256, "optional": true}}))
    .expect("a volume");
    let (mode, all) = sources(&secret).expect("it comes from the API");
    let of = all[0].secret.as_ref().expect("a secret");
    assert_eq!(
        (mode, all.len(), &*of.name, of.optional),
        (256, 1, "s", Some(true))
    );
    assert!(sources(&Volume::default()).is_none());
}
