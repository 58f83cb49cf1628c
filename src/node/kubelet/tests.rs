use super::*;

#[test]
fn what_changes_nothing_is_only_read() {
    for (path, reads, posts, deletes) in [
        (&["pods"][..], true, false, false),
        (&["runningpods"], true, false, false),
        (&["stats", "summary"], true, false, false),
        (&["containerLogs", "n", "p", "c"], true, false, false),
        (&["exec", "n", "p", "c"], true, true, false),
        (&["attach", "n", "p", "u", "c"], true, true, false),
        (&["portForward", "n", "p"], true, true, false),
        (&["metrics"], true, true, true),
        (&["healthz"], true, true, true),
        (&["configz"], true, true, true),
    ] {
        let is_allowed =
            |method: &Method| methods(path).is_none_or(|(allowed, _)| allowed.contains(&method));
        let found = [Method::GET, Method::POST, Method::DELETE]
            .each_ref()
            .map(is_allowed);
        assert_eq!(found, [reads, posts, deletes], "{path:?}");
    }
}

#[test]
fn what_runs_is_told_as_a_pod() {
    let labels = [(POD_NAME, "p"), (POD_NAMESPACE, "n"), (POD_UID, "u")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let name = crate::zone::ZoneName::new("rd-u").expect("legal");
    let at = jiff::Timestamp::UNIX_EPOCH;
    let process = |name: &str, ended| Process {
        id: ProcessId {
            name: name.into(),
            generation: 0,
        },
        labels: [(IMAGE.to_owned(), format!("{name}:1"))].into(),
        started: at,
        ended,
        identity: None,
    };
    let mut zone = Zone {
        spec: crate::zone::ZoneSpec {
            labels: labels.into(),
            ..crate::zone::ZoneSpec::new(name, crate::zone::ZoneNetwork::Host)
        },
        state: ZoneState::Running,
        boot: None,
        created: at,
        processes: vec![
            process("a", None),
            process("b", Some(crate::zone::Ending::exited(0, at))),
        ],
    };
    let told = serde_json::to_value(running_pod(&zone)).expect("a value");
    let expected = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"containers": [{"name": "a", "image": "a:1"}]},
    });
    assert_eq!(told, expected);
    zone.state = ZoneState::Installed;
    assert_eq!(running_pod(&zone), None);
}
