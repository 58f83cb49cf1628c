use super::*;

#[test]
fn only_claims_are_delegated() {
    let delegated = |names: &str| {
        let pod = serde_json::json!({
            "metadata": {"annotations": {DELEGATED: names, ZONE_BRAND: " reddwarf "}},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "b", "ephemeral": {}},
                {"name": "e", "emptyDir": {}}]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let zone = zone_spec(&pod, ZoneNetwork::Host, Path::new("/v"), Vec::new());
        assert_eq!(zone.brand.as_deref(), Some("reddwarf"));
        let names = super::delegated(&pod)?;
        Ok::<_, String>(names.join(" "))
    };
    assert_eq!(delegated("a, b").as_deref(), Ok("a b"));
    assert_eq!(delegated("").as_deref(), Ok(""));
    for wrong in ["e", "nosuch", "a,"] {
        assert!(delegated(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_pod_is_bounded_where_all_of_it_is() {
    let limits = |spec: serde_json::Value| {
        let pod = serde_json::json!({"spec": spec});
        let limits = limits(&serde_json::from_value(pod).expect("a pod"));
        (limits.cpu_shares, limits.cpu_millis, limits.memory)
    };
    let own = |cpu: &str, limits: serde_json::Value| serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": limits}});
    let (both, cpu) = (
        own("250m", serde_json::json!({"cpu": "1", "memory": "10Mi"})),
        own("500m", serde_json::json!({"cpu": "2"})),
    );
    for (spec, expected) in [
        (
            serde_json::json!({"containers": [{"name": "c"}]}),
            (Some(2), None, None),
        ),
        (
            serde_json::json!({"containers": [both, both]}),
            (Some(512), Some(2000), Some(20 << 20)),
        ),
        (
            serde_json::json!({"containers": [both, cpu]}),
            (Some(768), Some(3000), None),
        ),
        (
            serde_json::json!({"containers": [both], "initContainers": [{"name": "i"}]}),
            (Some(256), None, None),
        ),
        (
            serde_json::json!({"containers": [both], "initContainers": [cpu], "overhead": {"cpu": "1"}}),
            (Some(1536), Some(3000), None),
        ),
        (
            serde_json::json!({"containers": [cpu], "resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "8", "memory": "1Gi"}}}),
            (Some(4096), Some(8000), Some(1 << 30)),
        ),
    ] {
        assert_eq!(limits(spec.clone()), expected, "{spec}");
    }
}
