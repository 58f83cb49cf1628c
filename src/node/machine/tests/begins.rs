//! How containers start, and what prevents it.

use super::*;

#[test]
fn containers_are_told_by_name_and_init_containers_in_order() {
    let mut host = Host::new(json!({
        "restartPolicy": "Always",
        "initContainers": [{"name": "z", "image": "i"}, {"name": "y", "image": "i"}],
        "containers": [{"name": "c", "image": "i"}, {"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
        "ephemeralContainers": [{"name": "f", "image": "i"}, {"name": "e", "image": "i"}],
    }));
    host.settle();
    let last = &host.memory.last;
    let names = |list: &Option<Vec<ContainerStatus>>| -> String {
        list.iter().flatten().map(|one| one.name.as_str()).collect()
    };
    assert_eq!(names(&last.init_container_statuses), "zy");
    assert_eq!(names(&last.container_statuses), "abc");
    assert_eq!(names(&last.ephemeral_container_statuses), "ef");
    assert_eq!(
        host.condition("Ready"),
        "False ContainersNotReady containers with unready status: [c a b]"
    );
}

#[test]
fn those_for_debugging_wait_for_nobody() {
    let mut host = Host::new(json!({
        "restartPolicy": "Always",
        "initContainers": [{"name": "i1", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}],
        "ephemeralContainers": [{"name": "e", "image": "i"}],
    }));
    host.settle();
    assert_eq!(host.running(), ["e/0", "i1/0"]);
    host.exit("e", 1);
    host.settle();
    assert_eq!(host.running(), ["i1/0"], "and are not started again");
}

#[test]
fn a_sidecar_that_crashed_later_holds_no_init_container_up() {
    let mut host = Host::new(json!({
        "restartPolicy": "Always",
        "initContainers": [
            {"name": "side", "image": "i", "restartPolicy": "Always"},
            {"name": "i1", "image": "i"},
            {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}],
    }));
    host.settle();
    assert_eq!(host.running(), ["side/0", "i1/0"]);
    for _ in 0..2 {
        host.exit("side", 1);
        host.settle();
    }
    assert_eq!(host.waiting("side"), "CrashLoopBackOff");
    host.exit("i1", 0);
    host.settle();
    assert_eq!(host.running(), ["i2/0"]);
    host.exit("i2", 0);
    host.settle();
    assert_eq!(host.running(), ["a/0"]);
    host.pass(10);
    host.settle();
    assert_eq!(host.running(), ["a/0", "side/2"]);
}

#[test]
fn a_container_whose_hook_fails_is_ended_for_that() {
    let hook = json!({"postStart": {"exec": {"command": ["false"]}}});
    let mut host = Host::new(json!({
        "restartPolicy": "Always",
        "containers": [{"name": "a", "image": "i", "lifecycle": hook}, {"name": "b", "image": "i"}],
    }));
    host.settle();
    host.take_events();
    let id = ProcessId {
        name: "a".into(),
        generation: 0,
    };
    host.memory.hooks.insert(id, Hook::Failed("why".into()));
    host.settle();
    let expected = ["Killing: FailedPostStartHook", "signal a/0 15"];
    assert_eq!(host.take_events(), expected);
    host.exit("a", 143);
    for wanted in [
        Action::Pull("a".into()),
        Action::Start(ProcessId {
            name: "a".into(),
            generation: 1,
        }),
    ] {
        let decision = decide(&host.pod, host.zone.as_ref(), &mut host.memory, host.now);
        host.memory.last = decision.status;
        assert_eq!(decision.actions, std::slice::from_ref(&wanted));
        host.act(wanted);
    }
    assert_eq!(host.waiting("a"), "PostStartHookError");
    let state = host.container("a").state.clone().unwrap_or_default();
    assert_eq!(
        state.waiting.and_then(|waiting| waiting.message),
        Some("why".into())
    );
}

#[test]
fn a_pull_that_fails_is_told_then_waited_after() {
    let mut host = Host::new(one("Always"));
    host.act(Action::Prepare);
    let failed = |host: &mut Host, reason: &str, wait: i64| {
        let after = |seconds| host.now + SignedDuration::from_secs(seconds);
        let failed = ImageState::Failed {
            reason: reason.into(),
            message: "why".into(),
            told: after(10),
            again: after(wait),
        };
        host.memory.images.insert(("a".into(), "i".into()), failed);
        host.settle()
            .map(|at| at.duration_since(host.now).as_secs())
    };
    let told = |host: &Host| {
        let state = host.container("a").state.clone().unwrap_or_default();
        let waiting = state.waiting.unwrap_or_default();
        (
            waiting.reason.unwrap_or_default(),
            waiting.message.unwrap_or_default(),
        )
    };
    assert_eq!(failed(&mut host, ERR_IMAGE_PULL, 20), Some(10));
    assert_eq!(told(&host), ("ErrImagePull".into(), "why".into()));
    assert_eq!(host.take_events(), Vec::<String>::new());
    host.pass(10);
    let wake = host.settle().expect("the end of the wait");
    assert_eq!(wake.duration_since(host.now).as_secs(), 10);
    let message = "Back-off pulling image \"i\": ErrImagePull: why";
    assert_eq!(told(&host), ("ImagePullBackOff".into(), message.into()));
    let events = [
        "BackOff: Back-off pulling image \"i\"",
        "Failed: Error: ImagePullBackOff",
    ];
    assert_eq!(host.take_events(), events);
    // It is still reported during the next pull.
    host.memory
        .images
        .insert(("a".into(), "i".into()), ImageState::Pulling);
    host.settle();
    assert_eq!(told(&host).0, "ImagePullBackOff");
    // Errors other than pull errors have no growing back-off.
    assert_eq!(failed(&mut host, "ErrImageNeverPull", 10), Some(10));
    assert_eq!(told(&host), ("ErrImageNeverPull".into(), "why".into()));
    // Another image has not failed.
    host.pod.spec.as_mut().expect("a spec").containers[0].image = Some("j".into());
    host.settle();
    assert_eq!(host.running(), ["a/0"]);
}

#[test]
fn it_is_said_why_nothing_can_be_started() {
    let mut host = Host::new(one("Never"));
    let zone = host.zone.clone();
    let decision = decide(&host.pod, zone.as_ref(), &mut host.memory, host.now);
    host.memory.last = decision.status;
    let ready = |host: &Host| host.condition("PodReadyToStartContainers");
    assert_eq!(
        ready(&host),
        "False PodSandboxNotReady no pod sandbox exists"
    );
    host.settle();
    assert_eq!(ready(&host), "True");
    host.exit("a", 0);
    for _ in 0..2 {
        host.settle();
        assert_eq!(
            ready(&host),
            "False PodSandboxNotReady pod sandbox is not ready"
        );
        host.hand_over();
    }
}
