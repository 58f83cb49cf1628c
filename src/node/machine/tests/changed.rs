//! Pods that change while they run: resizes and requested restarts.

use super::*;

/// Containers with these CPU and memory limits, which are also their requests.
fn sized(all: &[(&str, &str, &str)], policy: serde_json::Value) -> serde_json::Value {
    let containers = all.iter().map(|(name, cpu, memory)| {
        let amounts = json!({"cpu": cpu, "memory": memory});
        json!({"name": name, "image": "i", "resources": {"requests": amounts, "limits": amounts}, "resizePolicy": policy})
    });
    json!({"restartPolicy": "OnFailure", "containers": containers.collect::<Vec<_>>()})
}

#[test]
fn a_pod_is_resized_around_its_containers_less_before_more() {
    let start = [("a", "200m", "64Mi"), ("b", "300m", "128Mi")];
    for (to, changes) in [
        ([("a", "200m", "64Mi"), ("b", "0.3", "0.125Gi")], vec![]),
        (
            [("a", "400m", "64Mi"), ("b", "300m", "128Mi")],
            vec!["zone cpu=700", "zone shares=716", "a/0 shares=409 cpu=400"],
        ),
        (
            [("a", "100m", "64Mi"), ("b", "300m", "128Mi")],
            vec!["a/0 shares=102 cpu=100", "zone shares=409", "zone cpu=400"],
        ),
        (
            [("a", "300m", "96Mi"), ("b", "200m", "96Mi")],
            vec![
                "b/0 memory=96",
                "a/0 memory=96",
                "b/0 shares=204 cpu=200",
                "a/0 shares=307 cpu=300",
            ],
        ),
    ] {
        let mut host = Host::new(sized(&start, json!([])));
        host.settle();
        host.take_events();
        host.resize(sized(&to, json!([])));
        host.settle();
        let mut events = host.take_events();
        let (first, last) = (events.remove(0), events.pop().expect("an end"));
        assert!(
            first.starts_with("ResizeStarted: Pod resize started: {\"containers\":["),
            "{first}"
        );
        assert!(
            last.starts_with("ResizeCompleted: Pod resize completed: {"),
            "{last}"
        );
        // The zone's memory is lowered last.
        events.retain(|event| !event.starts_with("zone memory"));
        assert_eq!(events, changes, "{to:?}");
        assert_eq!(host.running(), ["a/0", "b/0"]);
        let told = host.container("a").resources.clone();
        let wanted = host.pod.spec.as_ref().expect("one").containers[0]
            .resources
            .clone();
        assert_eq!(told, wanted, "what it has is what it was given");
        assert_eq!(host.settle(), None);
        assert_eq!(host.take_events(), Vec::<String>::new());
    }
}

#[test]
fn memory_in_use_is_not_taken_away() {
    let mut host = Host::new(sized(&[("a", "1", "64Mi")], json!([])));
    host.settle();
    host.used = 40 << 20;
    host.resize(sized(&[("a", "1", "32Mi")], json!([])));
    host.take_events();
    let again = host.now + SignedDuration::from_secs(10);
    assert_eq!(host.settle(), Some(again));
    let why = "cannot decrease memory limits: [attempting to set pod memory limit (33554432) below current usage (41943040), attempting to set container \"a\" memory limit (33554432) below current usage (41943040)]";
    assert_eq!(
        host.condition("PodResizeInProgress"),
        format!("True Error {why}")
    );
    let has = |host: &Host| {
        let status = host.container("a").clone();
        let limits = status.resources.and_then(|own| own.limits).expect("some");
        let given = status.allocated_resources.expect("some");
        (limits["memory"].0.clone(), given["memory"].0.clone())
    };
    assert_eq!(has(&host), ("64Mi".into(), "32Mi".into()));
    let events = host.take_events();
    assert!(
        events[1].starts_with("ResizeError: Pod resize error: {"),
        "{events:?}"
    );
    // A new agent finds it as reported.
    let last = host.memory.last.clone();
    host.memory = Memory {
        last,
        ..Memory::default()
    };
    host.pass(10);
    host.settle();
    assert_eq!(
        host.condition("PodResizeInProgress"),
        format!("True Error {why}")
    );
    assert_eq!(host.take_events(), Vec::<String>::new(), "it is said once");
    host.used = 8 << 20;
    host.pass(10);
    host.settle();
    assert_eq!(has(&host), ("32Mi".into(), "32Mi".into()));
    assert_eq!(host.take_events()[..2], ["a/0 memory=32", "zone memory=32"]);
    let conditions = host.memory.last.conditions.iter().flatten();
    assert!(
        conditions
            .clone()
            .all(|one| one.type_ != "PodResizeInProgress")
    );
}

#[test]
fn a_policy_starts_a_container_anew_and_no_other() {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let mut host = Host::new(sized(
        &[("a", "1", "64Mi"), ("b", "1", "64Mi")],
        policy.clone(),
    ));
    host.settle();
    host.take_events();
    host.resize(sized(&[("a", "1", "96Mi"), ("b", "500m", "64Mi")], policy));
    host.settle();
    let events = host.take_events();
    assert_eq!(events[1], "Killing: Container a resize requires restart");
    assert_eq!(events[2], "signal a/0 15");
    assert_eq!(host.running(), ["a/0", "b/0"]);
    // A successful exit, after which its policy does not restart it.
    host.exit("a", 0);
    assert_eq!(host.settle(), None);
    assert_eq!(host.phase(), "Running");
    assert_eq!(host.running(), ["b/0", "a/1"]);
    let events = host.take_events();
    let changes = [
        "zone memory=160",
        "b/0 shares=512 cpu=500",
        "zone shares=1536",
        "zone cpu=1500",
    ];
    assert_eq!(events[..4], changes);
    assert!(events[4].starts_with("ResizeCompleted"), "{events:?}");
    assert_eq!(host.container("a").restart_count, 1);
}

#[test]
fn what_is_not_given_is_said_once_and_changes_nothing() {
    let mut host = Host::new(sized(&[("a", "100m", "64Mi")], json!([])));
    host.settle();
    host.take_events();
    host.given = host.pod.spec.as_ref().map(Given::of);
    host.resize(sized(&[("a", "9", "64Mi")], json!([])));
    host.memory.resize.accepted = None;
    let pending = Pending {
        reason: "Deferred".into(),
        message: "no room".into(),
        generation: Some(2),
        since: host.now,
    };
    host.memory.resize.pending = Some((pending, "Pod resize Deferred: {}".into()));
    for events in [vec!["ResizeDeferred: Pod resize Deferred: {}"], vec![]] {
        host.settle();
        assert_eq!(host.take_events(), events);
        assert_eq!(host.condition("PodResizePending"), "True Deferred no room");
        assert_eq!(host.running(), ["a/0"]);
    }
    host.memory.resize.pending = None;
    host.settle();
    let conditions = host.memory.last.conditions.iter().flatten();
    assert!(
        conditions
            .clone()
            .all(|one| one.type_ != "PodResizePending")
    );
}

#[test]
fn a_container_of_another_image_is_started_anew() {
    for (policy, kind, what) in [
        (
            "Always",
            "containers",
            "Container c definition changed, will be restarted",
        ),
        (
            "Never",
            "containers",
            "Container c definition changed, will be restarted",
        ),
        (
            "Always",
            "initContainers",
            "Init container c definition changed",
        ),
    ] {
        let mut spec =
            json!({"restartPolicy": policy, "containers": [{"name": "o", "image": "i"}]});
        let mut container = json!({"name": "c", "image": "i"});
        if kind == "initContainers" {
            container["restartPolicy"] = json!("Always");
            spec[kind] = json!([container]);
        } else {
            spec[kind].as_array_mut().expect("a list").push(container);
        }
        let mut host = Host::new(spec);
        host.settle();
        host.take_events();
        let spec = host.pod.spec.as_mut().expect("a spec");
        let all = spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten());
        for container in all.filter(|one| one.name == "c") {
            container.image = Some("j".into());
        }
        host.settle();
        let expected = [format!("Killing: {what}"), "signal c/0 15".into()];
        assert_eq!(host.take_events(), expected, "{policy}");
        // Regardless of its exit code, and at once.
        host.exit("c", 0);
        assert_eq!(host.settle(), None);
        assert!(host.running().contains(&"c/1".into()), "{policy}");
        assert_eq!(host.take_events(), Vec::<String>::new());
    }
}

#[test]
fn another_image_does_not_wait_for_what_the_last_one_did() {
    let mut host = Host::new(one("Always"));
    host.settle();
    for _ in 0..2 {
        host.exit("a", 1);
        host.settle();
    }
    assert_eq!(host.waiting("a"), "CrashLoopBackOff");
    host.pod.spec.as_mut().expect("a spec").containers[0].image = Some("j".into());
    host.settle();
    assert_eq!(host.running(), ["a/2"]);
    host.exit("a", 1);
    let wake = host.settle().expect("a wait");
    assert_eq!(wake.duration_since(host.now).as_secs(), 10, "the first one");
}

#[test]
fn an_init_container_is_resized_while_it_runs() {
    let spec = |memory: &str| {
        let mut spec = sized(&[("a", "1", "64Mi")], json!([]));
        let amounts = json!({"cpu": "1", "memory": memory});
        spec["initContainers"] = json!([{"name": "i", "image": "i", "resources": {"requests": amounts, "limits": amounts}}]);
        spec
    };
    let mut host = Host::new(spec("64Mi"));
    host.settle();
    assert_eq!(host.running(), ["i/0"]);
    host.take_events();
    host.resize(spec("256Mi"));
    host.settle();
    let events = host.take_events();
    assert!(events.contains(&"i/0 memory=256".to_owned()), "{events:?}");
    assert_eq!(host.running(), ["i/0"], "it is not restarted");
    let told = host.container("i").resources.clone();
    assert_eq!(
        told.and_then(|told| told.limits).expect("limits")["memory"].0,
        "256Mi"
    );
}
