//! How containers and pods end.

use super::*;

#[test]
fn everything_is_asked_before_it_is_killed() {
    // The pod's grace period, a shorter one of its deletion if any, and when KILL is sent.
    for (spec, shorter, killed) in [
        (0, None, 2),
        (1, None, 2),
        (2, None, 2),
        (30, None, 30),
        (60, Some(0), 2),
        (60, Some(5), 5),
    ] {
        let mut host = Host::new(one("Always"));
        host.settle();
        host.delete(spec);
        host.settle();
        if let Some(grace) = shorter {
            host.delete(grace);
        }
        let wake = host.settle().expect("the end of grace");
        let case = format!("{spec} {shorter:?}");
        assert_eq!(wake.duration_since(host.now).as_secs(), killed, "{case}");
        assert_eq!(
            host.take_events(),
            ["Killing: Stopping container a", "signal a/0 15"],
            "{case}"
        );
        host.pass(killed);
        host.settle();
        assert_eq!(host.take_events(), ["signal a/0 9"], "{case}");
    }
}

#[test]
fn what_could_not_be_done_is_decided_again() {
    let spec = json!({"restartPolicy": "Always", "containers": [
        {"name": "a", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]});
    let again = |host: &mut Host| {
        let zone = host.zone.clone();
        let mut step = || {
            let decision = decide(&host.pod, zone.as_ref(), &mut host.memory, host.now);
            host.memory.last = decision.status;
            let mut actions = decision.actions;
            actions.retain(|action| !matches!(action, Action::Event { .. }));
            actions
        };
        let first = step();
        assert_eq!(first, step());
        for action in first.clone() {
            host.act(action);
        }
        first
    };
    let id = |generation| ProcessId {
        name: "a".into(),
        generation,
    };
    let mut host = Host::new(spec);
    assert_eq!(again(&mut host), [Action::Prepare]);
    assert_eq!(again(&mut host), [Action::Pull("a".into())]);
    assert_eq!(again(&mut host), [Action::Start(id(0))]);
    host.exit("a", 1);
    assert_eq!(again(&mut host), [Action::Pull("a".into())]);
    assert_eq!(again(&mut host), [Action::Start(id(1))]);
    host.exit("a", 1);
    // One start was carried out, so one delay applies.
    let wake = host.settle().expect("a wait");
    assert_eq!(wake.duration_since(host.now).as_secs(), 10);
    host.pass(10);
    host.settle();
    host.delete(5);
    assert_eq!(again(&mut host), [Action::PreStop(id(2), 5)]);
    host.pass(5);
    assert_eq!(again(&mut host), [Action::Signal(id(2), Signal::TERM)]);
    host.pass(2);
    assert_eq!(again(&mut host), [Action::Signal(id(2), Signal::KILL)]);
    host.exit("a", 137);
    assert_eq!(again(&mut host), [Action::Halt]);
    assert_eq!(again(&mut host), [Action::Remove]);
}

#[test]
fn an_image_says_by_what_signal_it_ends() {
    for (signal, number) in [("SIGQUIT", 3), ("SIGRTMIN+3", 15)] {
        let mut host = Host::new(one("Always"));
        host.settle();
        let zone = host.zone.as_mut().expect("a zone");
        let labels = &mut zone.processes[0].labels;
        labels.insert(STOP_SIGNAL.into(), signal.into());
        host.delete(60);
        host.settle();
        let expected = format!("signal a/0 {number}");
        assert_eq!(host.take_events()[1], expected, "{signal}");
    }
}

#[test]
fn a_grace_longer_than_time_is_no_trouble() {
    let mut spec = one("Always");
    spec["terminationGracePeriodSeconds"] = json!(i64::MAX);
    spec["activeDeadlineSeconds"] = json!(i64::MAX);
    let mut host = Host::new(spec);
    host.settle();
    host.delete(i64::MAX);
    assert!(host.settle().is_some_and(|at| at > host.now));
    assert_eq!(host.take_events()[1], "signal a/0 15");
}

#[test]
fn a_pre_stop_hook_uses_up_grace_but_not_the_last_two_seconds() {
    let mut host = Host::new(json!({
        "restartPolicy": "Always",
        "containers": [{"name": "a", "image": "i", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}],
    }));
    host.settle();
    host.delete(5);
    host.settle();
    assert_eq!(
        host.take_events(),
        ["Killing: Stopping container a", "preStop a/0 5"]
    );
    host.pass(5);
    let wake = host.settle().expect("two seconds");
    assert_eq!(wake.duration_since(host.now).as_secs(), 2);
    assert_eq!(host.take_events(), ["signal a/0 15"]);
}

#[test]
fn hooks_of_all_run_at_once_and_sidecars_wait_their_turn() {
    let hook = json!({"preStop": {"sleep": {"seconds": 1}}});
    let side = |name: &str| json!({"name": name, "image": "i", "restartPolicy": "Always", "lifecycle": hook});
    let mut host = Host::new(json!({
        "restartPolicy": "Always",
        "initContainers": [side("s1"), side("s2")],
        "containers": [{"name": "a", "image": "i", "lifecycle": hook}],
        "ephemeralContainers": [{"name": "e", "image": "i"}],
    }));
    host.settle();
    host.take_events();
    host.delete(10);
    host.settle();
    let mut events = host.take_events();
    events.sort();
    assert_eq!(
        events,
        [
            "Killing: Stopping container a",
            "Killing: Stopping container e",
            "Killing: Stopping container s1",
            "Killing: Stopping container s2",
            "preStop a/0 10",
            "preStop s1/0 10",
            "preStop s2/0 10",
            "signal e/0 15"
        ]
    );
    for stop in host.memory.stops.values_mut() {
        stop.hook = stop.hook.take().map(|_| Hook::Done);
    }
    host.settle();
    assert_eq!(host.take_events(), ["signal a/0 15"]);
    // An ephemeral container is not waited for.
    host.exit("a", 0);
    host.settle();
    assert_eq!(host.take_events(), ["signal s2/0 15"]);
    // A container whose turn does not come has the pod's grace period, and two seconds to end.
    host.pass(10);
    host.settle();
    let events = host.take_events();
    assert!(events.contains(&"signal s1/0 15".to_owned()), "{events:?}");
    assert!(events.contains(&"signal s2/0 9".to_owned()), "{events:?}");
    host.pass(2);
    host.settle();
    assert_eq!(host.take_events(), ["signal s1/0 9"]);
}

#[test]
fn a_pod_is_not_told_to_be_over_while_something_of_it_runs() {
    let deadline = |host: &mut Host| host.pass(10);
    let evicted = |host: &mut Host| {
        host.memory.grace = Some(1);
        host.memory.disrupted = Some("no room".into());
        host.memory.fail = Some(("Evicted".into(), "no room".into()));
    };
    for (happens, reason, disrupted) in [
        (&deadline as &dyn Fn(&mut Host), "DeadlineExceeded", false),
        (&evicted, "Evicted", true),
    ] {
        let mut host = Host::new(json!({
            "restartPolicy": "Always", "activeDeadlineSeconds": 10,
            "containers": [{"name": "a", "image": "i"}],
        }));
        let wake = host.settle().expect("the deadline");
        assert_eq!(wake.duration_since(host.now).as_secs(), 10);
        happens(&mut host);
        host.settle();
        let target = |host: &Host| {
            let mut all = host.memory.last.conditions.iter().flatten();
            all.any(|one| one.type_ == "DisruptionTarget")
        };
        let told = |host: &Host| (host.phase().to_owned(), host.memory.last.reason.clone());
        assert_eq!(told(&host), ("Running".into(), None), "{reason}");
        assert!(!target(&host), "{reason}");
        assert_eq!(host.condition("Ready"), "False PodFailed", "{reason}");
        // A new agent that has not reached the zone yet does not do that either.
        host.zone.as_mut().expect("a zone").state = ZoneState::Unreachable;
        host.settle();
        assert_eq!(told(&host), ("Running".into(), None), "{reason}");
        host.zone.as_mut().expect("a zone").state = ZoneState::Running;
        host.exit("a", 0);
        host.settle();
        assert_eq!(told(&host), ("Failed".into(), Some(reason.into())));
        assert_eq!(target(&host), disrupted, "{reason}");
        assert!(host.zone.is_none());
        assert_eq!((host.releases, host.settle()), (1, None), "{reason}");
    }
}

#[test]
fn a_pod_that_cannot_begin_ends_with_its_sidecars() {
    let mut host = Host::new(json!({
        "restartPolicy": "Never",
        "initContainers": [
            {"name": "side", "image": "i", "restartPolicy": "Always"},
            {"name": "i1", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}],
    }));
    host.settle();
    host.exit("i1", 2);
    host.settle();
    assert_eq!(host.phase(), "Pending", "the sidecar runs");
    assert_eq!(
        host.take_events(),
        ["Killing: Stopping container side", "signal side/0 15"]
    );
    host.exit("side", 143);
    host.settle();
    assert_eq!(host.phase(), "Failed");
    assert!(host.zone.is_none());
}

#[test]
fn it_is_said_why_a_container_is_ended() {
    let probe = json!({"tcpSocket": {"port": 1}});
    for (policy, kind, probed, expected) in [
        (
            "Always",
            "containers",
            ProbeKind::Liveness,
            "Container c failed liveness probe, will be restarted",
        ),
        (
            "OnFailure",
            "containers",
            ProbeKind::Startup,
            "Container c failed startup probe, will be restarted",
        ),
        (
            "Never",
            "containers",
            ProbeKind::Liveness,
            "Container c failed liveness probe",
        ),
        (
            "Always",
            "initContainers",
            ProbeKind::Liveness,
            "Init container c failed liveness probe",
        ),
        (
            "Never",
            "initContainers",
            ProbeKind::Startup,
            "Init container c failed startup probe",
        ),
    ] {
        let mut container =
            json!({"name": "c", "image": "i", "startupProbe": probe, "livenessProbe": probe});
        let other = json!({"name": "o", "image": "i"});
        let spec = match kind {
            "containers" => json!({"restartPolicy": policy, "containers": [container]}),
            _ => {
                container["restartPolicy"] = json!("Always");
                json!({"restartPolicy": policy, "initContainers": [container], "containers": [other]})
            }
        };
        let mut host = Host::new(spec);
        host.settle();
        host.probed("c", ProbeKind::Startup, true);
        host.probed("c", probed, false);
        host.settle();
        assert_eq!(host.take_events()[0], format!("Killing: {expected}"));
    }
}

#[test]
fn a_container_that_fails_a_probe_is_restarted_however_it_ends() {
    let probe = json!({"tcpSocket": {"port": 1}});
    for (policy, own, code, expected) in [
        ("OnFailure", None, 0, "Running"),
        ("OnFailure", None, 143, "Running"),
        ("Never", Some("OnFailure"), 0, "Running"),
        ("Always", None, 0, "Running"),
        ("Never", None, 0, "Succeeded"),
        ("Never", None, 143, "Failed"),
    ] {
        let case = format!("{policy} {own:?} {code}");
        let mut host = Host::new(json!({"restartPolicy": policy, "containers": [
            {"name": "c", "image": "i", "restartPolicy": own, "livenessProbe": probe}]}));
        host.settle();
        host.probed("c", ProbeKind::Liveness, false);
        host.settle();
        host.exit("c", code);
        host.settle();
        assert_eq!(host.phase(), expected, "{case}");
        let processes = |host: &Host| {
            let zone = host.zone.iter();
            zone.map(|zone| zone.processes.len()).sum::<usize>()
        };
        if expected == "Running" {
            assert_eq!(processes(&host), 2, "{case}");
            // The second time it has a back-off, unlike a container whose definition changed.
            host.probed("c", ProbeKind::Liveness, false);
            host.settle();
            host.exit("c", code);
            let wake = host.settle().expect("a back-off");
            assert_eq!(wake.duration_since(host.now).as_secs(), 10, "{case}");
            assert_eq!(host.phase(), "Running", "{case}");
        }
    }
}
