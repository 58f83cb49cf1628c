//! What an agent finds at its start or after a zone was lost, and what it waits for.

use super::*;

#[test]
fn a_lost_zone_restarts_what_restarts_and_ends_what_does_not() {
    for (policy, phase) in [
        ("Always", "Running"),
        ("OnFailure", "Running"),
        ("Never", "Failed"),
    ] {
        let mut host = Host::new(one(policy));
        host.settle();
        host.zone = None;
        host.settle();
        assert_eq!(host.phase(), phase, "{policy}");
        let expected: &[&str] = if phase == "Running" { &["a/1"] } else { &[] };
        assert_eq!(host.running(), expected, "{policy}");
        let state = host.container("a").state.clone().unwrap_or_default();
        let reason = state.terminated.and_then(|ended| ended.reason);
        assert_eq!(reason.is_some(), phase == "Failed");
        assert!(reason.is_none_or(|reason| reason == "ContainerStatusUnknown"));
    }
}

#[test]
fn an_agent_that_starts_again_adopts_what_runs() {
    let mut host = Host::new(one("Always"));
    host.settle();
    host.exit("a", 1);
    host.settle();
    let reported = host.memory.last.clone();
    host.memory = Memory {
        last: reported.clone(),
        host_ips: host.memory.host_ips.clone(),
        ..Memory::default()
    };
    host.settle();
    assert_eq!(host.running(), ["a/1"]);
    assert_eq!(
        host.memory.last, reported,
        "nothing changed, so nothing is reported"
    );
}

#[test]
fn what_probes_said_holds_for_the_next_agent() {
    let probe = json!({"tcpSocket": {"port": 1}});
    let container = json!({"name": "a", "image": "i",
        "startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe});
    let mut side = container.clone();
    side["name"] = json!("side");
    side["restartPolicy"] = json!("Always");
    // The results of the startup and readiness probes of `a`.
    for (startup, readiness) in [
        (None, None),
        (Some(true), None),
        (Some(true), Some(false)),
        (Some(true), Some(true)),
    ] {
        let mut host = Host::new(json!({
            "restartPolicy": "Always", "initContainers": [side], "containers": [container]}));
        host.settle();
        host.probed("side", ProbeKind::Startup, true);
        host.probed("side", ProbeKind::Readiness, true);
        host.settle();
        let said = [
            (ProbeKind::Startup, startup),
            (ProbeKind::Readiness, readiness),
        ];
        for (kind, good) in said {
            good.inspect(|good| host.probed("a", kind, *good));
            host.settle();
        }
        let told = host.memory.last.clone();
        host.hand_over();
        host.settle();
        let flags = |host: &Host| ["side", "a"].map(|name| host.container(name).started);
        assert_eq!(flags(&host), [Some(true), startup.or(Some(false))]);
        let ready = readiness == Some(true);
        assert_eq!(host.container("a").ready, ready);
        // If the pod was not ready, probed containers have to become ready again.
        assert_eq!(host.container("side").ready, ready);
        if ready {
            assert_eq!(
                host.memory.last, told,
                "nothing changed, so nothing is reported"
            );
        }
        // Later results count, and a restarted container starts from the beginning.
        host.probed("a", ProbeKind::Readiness, false);
        host.settle();
        assert!(!host.container("a").ready);
        host.exit("a", 1);
        host.settle();
        assert_eq!(host.running(), ["side/0", "a/1"]);
        assert_eq!(host.container("a").started, Some(false));
    }
}

#[test]
fn what_waits_does_not_mind_that_the_clock_is_set() {
    for by in [0, 3600, -3600] {
        let by = SignedDuration::from_secs(by);
        let set = |host: &mut Host| {
            host.now += by;
            host.memory.shift(by);
        };
        // A crash loop.
        let mut host = Host::new(one("Always"));
        host.settle();
        for _ in 0..2 {
            host.exit("a", 1);
            host.settle();
        }
        host.pass(4);
        set(&mut host);
        let wake = host.settle().expect("the end of the wait");
        assert_eq!(wake.duration_since(host.now).as_secs(), 6, "{by}");
        host.pass(6);
        host.settle();
        assert_eq!(host.running(), ["a/2"], "{by}");
        // The next delay continues the crash loop.
        host.exit("a", 1);
        let wake = host.settle().expect("the end of the wait");
        assert_eq!(wake.duration_since(host.now).as_secs(), 20, "{by}");
        host.pass(20);
        host.settle();
        // An image that is not available.
        host.pass(700);
        host.exit("a", 1);
        let again = host.now + SignedDuration::from_secs(20);
        let failed = ImageState::Failed {
            reason: ERR_IMAGE_PULL.into(),
            message: String::new(),
            told: host.now,
            again,
        };
        host.memory.images.insert(("a".into(), "i".into()), failed);
        host.settle();
        host.pass(5);
        set(&mut host);
        let wake = host.settle().expect("the end of the wait");
        assert_eq!(wake.duration_since(host.now).as_secs(), 15, "{by}");
        host.pass(15);
        host.settle();
        assert_eq!(host.running(), ["a/4"], "{by}");
        // Grace.
        host.delete(30);
        host.settle();
        host.pass(10);
        set(&mut host);
        let wake = host.settle().expect("the end of grace");
        assert_eq!(wake.duration_since(host.now).as_secs(), 20, "{by}");
    }
    // The end was recorded by a clock that has been set back since, while no agent was running.
    let mut host = Host::new(one("Always"));
    host.settle();
    host.exit("a", 1);
    host.settle();
    host.pass(3600);
    host.exit("a", 1);
    host.pass(-3600);
    let wake = host.settle().expect("the end of the wait");
    assert_eq!(wake.duration_since(host.now).as_secs(), 10);
}

#[test]
fn termination_messages_share_what_a_pod_has_for_them() {
    for (others, message, kept) in [
        (0, "x".repeat(20_000), 12 << 10),
        (2, "x".repeat(4096), 4096),
        (3, "x".repeat(4096), 3072),
        // No character is split.
        (3, format!("x{}", "ä".repeat(2000)), 3071),
        (11, "x".repeat(4096), 1024),
    ] {
        let ephemeral = json!({"name": "e", "image": "i"});
        let mut regular = vec![json!({"name": "a", "image": "i"})];
        regular.extend((1..others).map(|n| json!({"name": format!("b{n}"), "image": "i"})));
        let mut host = Host::new(json!({
            "restartPolicy": "Always",
            "containers": regular,
            "ephemeralContainers": if others > 0 { vec![ephemeral] } else { Vec::new() },
        }));
        host.settle();
        for generation in 0..2 {
            let name = "a".to_owned();
            let id = ProcessId { name, generation };
            host.memory.messages.insert(id, message.clone());
            host.exit("a", 1);
            host.settle();
        }
        let last = host.container("a").last_state.clone().unwrap_or_default();
        let told = last.terminated.and_then(|ended| ended.message);
        let told = told.expect("a message");
        assert_eq!(told.len(), kept, "{others}");
        assert!(message.starts_with(&told), "{others}");
    }
}

#[test]
fn nothing_is_concluded_from_a_zone_that_was_not_heard_of_yet() {
    for (policy, exit, deleted) in [
        ("Always", None, false),
        ("Always", Some(1), false),
        ("OnFailure", None, false),
        ("Never", None, false),
        ("Never", None, true),
    ] {
        let case = format!("{policy} {exit:?} {deleted}");
        let mut host = Host::new(json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "i", "image": "i"}],
            "containers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}],
            "ephemeralContainers": [{"name": "e", "image": "i"}],
        }));
        host.settle();
        host.exit("i", 0);
        host.settle();
        let id = ProcessId {
            name: "a".into(),
            generation: 0,
        };
        host.memory.probes.insert((id, ProbeKind::Readiness), true);
        host.settle();
        for _ in 0..2 {
            // The second end has a delay.
            exit.inspect(|code| host.exit("a", *code));
            host.settle();
        }
        if deleted {
            host.delete(30);
            host.settle();
        }
        host.take_events();
        let (told, running) = (host.memory.last.clone(), host.running());
        // Another agent finds the zone, whose supervisor has not connected to it yet.
        host.memory = Memory {
            last: told.clone(),
            host_ips: host.memory.host_ips.clone(),
            ..Memory::default()
        };
        let zone = host.zone.as_mut().expect("a zone");
        let processes = std::mem::take(&mut zone.processes);
        zone.state = ZoneState::Unreachable;
        host.settle();
        assert_eq!(host.memory.last, told, "{case}");
        assert_eq!(host.take_events(), Vec::<String>::new(), "{case}");
        let zone = host.zone.as_mut().expect("it is not ended");
        zone.processes = processes;
        zone.state = ZoneState::Running;
        host.settle();
        let still = |id: &String| host.running().contains(id);
        assert!(running.iter().all(still), "{case}");
        // A silent zone is halted with its pod, when the grace period is over.
        let zone = host.zone.as_mut().expect("a zone");
        zone.processes.clear();
        zone.state = ZoneState::Unreachable;
        if !deleted {
            host.delete(30);
        }
        let wake = host.settle().expect("the end of grace");
        assert_eq!(wake.duration_since(host.now).as_secs(), 30, "{case}");
        host.pass(30);
        host.settle();
        assert!(host.removed && host.zone.is_none(), "{case}");
    }
}

#[test]
fn what_cannot_be_started_asks_for_its_image_again() {
    let mut host = Host::new(one("Always"));
    host.settle();
    host.exit("a", 0);
    let again = host.now + SignedDuration::from_secs(10);
    host.memory.blocked.insert(
        "a".into(),
        Blocked {
            reason: "CreateContainerError".into(),
            message: "image \"i\" is gone".into(),
            again,
        },
    );
    assert_eq!(host.settle(), Some(again));
    assert_eq!(host.waiting("a"), "CreateContainerError");
    host.pass(10);
    let decision = decide(&host.pod, host.zone.as_ref(), &mut host.memory, host.now);
    assert_eq!(decision.actions, [Action::Pull("a".into())]);
    host.memory.last = decision.status;
    assert_eq!(host.waiting("a"), "CreateContainerError");
}

#[test]
fn who_a_container_runs_as_is_told_as_long_as_it_is_known() {
    let mut host = Host::new(one("Always"));
    host.settle();
    assert_eq!(
        host.container("a").user,
        None,
        "its supervisor says nothing"
    );
    let process = &mut host.zone.as_mut().expect("a zone").processes[0];
    process.identity = Some(Identity {
        uid: 7,
        gid: 8,
        groups: vec![8, 9],
    });
    host.settle();
    let told = json!({"linux": {"uid": 7, "gid": 8, "supplementalGroups": [8, 9]}});
    let user = |host: &Host| serde_json::to_value(&host.container("a").user).expect("a value");
    assert_eq!(user(&host), told);
    host.exit("a", 1);
    let decision = decide(&host.pod, host.zone.as_ref(), &mut host.memory, host.now);
    let ended = decision.status.container_statuses.as_ref().expect("one");
    let user = serde_json::to_value(&ended[0].user).expect("a value");
    assert_eq!(user, told, "of one that ended");
}

#[test]
fn a_zone_that_died_leaves_nothing_to_the_next_one() {
    let mut host = Host::new(one("Always"));
    host.settle();
    host.take_events();
    // As after a reboot of the host.
    let zone = host.zone.as_mut().expect("a zone");
    (zone.state, zone.processes) = (ZoneState::Installed, Vec::new());
    host.settle();
    assert_eq!(host.releases, 1, "its roots");
    assert_eq!(host.running(), ["a/1"]);
    // A zone that was made, and not booted, is booted as it is.
    let mut host = Host::new(one("Always"));
    host.act(Action::Prepare);
    host.zone.as_mut().expect("a zone").state = ZoneState::Installed;
    host.settle();
    assert_eq!(host.releases, 0);
    assert_eq!(host.running(), ["a/0"]);
}
