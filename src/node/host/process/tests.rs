use super::memory::oom_score;
use super::*;

#[test]
fn who_may_not_be_root_is_told_why() {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"securityContext": {"runAsNonRoot": true}, "containers": []},
    }))
    .expect("a pod");
    let container = |uid: Option<i64>| -> Container {
        let context = serde_json::json!({"runAsUser": uid});
        let container = serde_json::json!({"name": "c", "securityContext": context});
        serde_json::from_value(container).expect("a container")
    };
    let of = r#" (pod: "p_n(u)", container: c)"#;
    for (uid, image, expected) in [
        (Some(7), "", None),
        (None, "7:7", None),
        (
            Some(0),
            "7",
            Some("container's runAsUser breaks non-root policy"),
        ),
        (
            None,
            "",
            Some("container has runAsNonRoot and image will run as root"),
        ),
        (
            None,
            "0",
            Some("container has runAsNonRoot and image will run as root"),
        ),
        (
            None,
            "me",
            Some(
                "container has runAsNonRoot and image has non-numeric user (me), cannot verify user is non-root",
            ),
        ),
    ] {
        let refused = rights(&pod, &container(uid), image).err();
        let expected = expected.map(|text| format!("{text}{of}"));
        assert_eq!(
            refused.map(|lack| lack.message),
            expected,
            "{uid:?} {image}"
        );
    }
}

#[test]
fn the_kernel_ends_first_who_asks_for_least() {
    let container = |name: &str, memory: &str, policy: Option<&str>| {
        let resources = match memory {
            "" => serde_json::json!({}),
            memory => serde_json::json!({"requests": {"memory": memory}}),
        };
        serde_json::json!({"name": name, "resources": resources, "restartPolicy": policy})
    };
    let plain = [container("c", "100", None), container("d", "", None)];
    let none: [serde_json::Value; 0] = [];
    let sidecar = [container("s", "", Some("Always")), container("i", "", None)];
    let node =
        serde_json::json!({"priority": 2_000_001_000, "priorityClassName": "system-node-critical"});
    let cluster = serde_json::json!({"priority": 2_000_000_000, "priorityClassName": "system-cluster-critical"});
    let whole = serde_json::json!({"resources": {"requests": {"memory": "400"}}});
    let other = serde_json::json!({});
    let big = [container("c", "999", None), container("d", "300", None)];
    for (class, more, inits, containers, name, expected) in [
        ("Guaranteed", &other, &none[..], &plain, "c", -997),
        ("BestEffort", &other, &none[..], &plain, "c", 1000),
        ("BestEffort", &node, &none[..], &plain, "c", -997),
        ("Burstable", &cluster, &none[..], &plain, "c", 900),
        ("Burstable", &other, &none[..], &plain, "c", 900),
        ("Burstable", &other, &none[..], &plain, "d", 999),
        ("Burstable", &other, &none[..], &big, "c", 3),
        ("Burstable", &other, &sidecar[..], &big, "s", 700),
        ("Burstable", &other, &sidecar[..], &big, "i", 999),
        ("Burstable", &whole, &none[..], &plain, "c", 750),
        ("Burstable", &whole, &none[..], &plain, "d", 850),
        ("Burstable", &whole, &sidecar[..], &plain, "s", 925),
    ] {
        let mut spec = more.clone();
        spec["initContainers"] = inits.to_vec().into();
        spec["containers"] = containers.to_vec().into();
        let pod = serde_json::json!({"spec": spec, "status": {"qosClass": class}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let spec = pod.spec.as_ref().expect("one");
        let mut all = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        let one = all.find(|one| one.name == name).expect("one");
        assert_eq!(
            oom_score(&pod, one, 1000),
            expected,
            "{class} {more} {name}"
        );
    }
}

#[test]
fn a_part_of_a_volume_is_named_and_stays_inside() {
    let known = |name: &str| match name {
        "POD" => Some("web".to_owned()),
        "UP" => Some("..".to_owned()),
        "ROOT" => Some("/etc".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    for (path, expression, expected) in [
        ("", "", Ok(None)),
        ("a/b", "", Ok(Some("a/b"))),
        ("", "$(POD)/$$(POD)", Ok(Some("web/$(POD)"))),
        ("a..b", "", Ok(Some("a..b"))),
        ("", "$(NO)/$(EMPTY)", Err("missing value for EMPTY, NO")),
        (
            "",
            "$(UP)",
            Err("unable to provision SubPath `..`: must not contain '..'"),
        ),
        (
            "a/../b",
            "",
            Err("unable to provision SubPath `a/../b`: must not contain '..'"),
        ),
        (
            "",
            "$(ROOT)",
            Err("error SubPath `/etc` must not be an absolute path"),
        ),
    ] {
        let mount = VolumeMount {
            sub_path: Some(path.to_owned()),
            sub_path_expr: Some(expression.to_owned()),
            ..VolumeMount::default()
        };
        let expected = expected.map(|path| path.map(str::to_owned));
        let expected = expected.map_err(str::to_owned);
        assert_eq!(sub_path(&mount, &known), expected, "{path} {expression}");
    }
}
