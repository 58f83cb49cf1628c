//! Pods driven through their lives by hand: the machine decides, the test plays the host and the clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;

use super::*;
use crate::node::describe;
use crate::zone::{
    Change, Ending, Of, Process, Usage, Zone, ZoneName, ZoneNetwork, ZoneSpec, ZoneState, ZoneUsage,
};

/// A host of one pod whose images are always there.
struct Host {
    pod: Pod,
    zone: Option<Zone>,
    memory: Memory,
    now: Timestamp,
    events: Vec<String>,
    removed: bool,
    /// What the pod was given, where it may ask for something else.
    given: Option<Given>,
    /// Memory in use, by each container and by all of them.
    used: u64,
}

/// A change in few words.
fn said(change: &Change) -> String {
    let of = match &change.of {
        Of::Zone => "zone".to_owned(),
        Of::Process(id, _) => id.to_string(),
    };
    let limits = &change.limits;
    let named = [
        ("shares", limits.cpu_shares),
        ("cpu", limits.cpu_millis),
        ("memory", limits.memory.map(|bytes| bytes >> 20)),
    ];
    named
        .into_iter()
        .fold(of, |text, (name, value)| match value {
            Some(value) => format!("{text} {name}={value}"),
            None => text,
        })
}

impl Host {
    fn new(spec: serde_json::Value) -> Self {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "u1", "generation": 1},
            "spec": spec,
        }))
        .expect("a pod");
        Host {
            pod,
            zone: None,
            memory: Memory {
                host_ips: vec!["192.0.2.1".into()],
                ..Memory::default()
            },
            now: Timestamp::from_second(1_000_000).expect("a time"),
            events: Vec::new(),
            removed: false,
            given: None,
            used: 1 << 20,
        }
    }

    /// Asks for other resources, and is given them.
    fn resize(&mut self, spec: serde_json::Value) {
        let generation = self.pod.metadata.generation.map(|last| last + 1);
        self.pod.metadata.generation = generation;
        self.pod.spec = serde_json::from_value(spec).expect("a spec");
        self.memory.resize.accepted = generation;
    }

    /// Decides and carries out until nothing more is to be done now.
    fn settle(&mut self) -> Option<Timestamp> {
        for _ in 0..50 {
            let pod = match &self.given {
                Some(given) => given
                    .put(&self.pod)
                    .unwrap_or_else(|| self.pod.clone().into()),
                None => self.pod.clone().into(),
            };
            let decision = decide(&pod, self.zone.as_ref(), &mut self.memory, self.now);
            self.memory.last = decision.status.clone();
            let idle = decision
                .actions
                .iter()
                .all(|action| matches!(action, Action::Event { .. }));
            for action in decision.actions {
                self.act(action);
            }
            if idle && decision.wake.is_none_or(|at| at > self.now) {
                return decision.wake;
            }
            if self.removed {
                return None;
            }
        }
        panic!("the machine does not come to rest");
    }

    fn act(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Prepare => {
                self.zone = Some(Zone {
                    spec: ZoneSpec {
                        hostname: "p".into(),
                        limits: describe::limits(&self.pod),
                        ..ZoneSpec::new(
                            ZoneName::new("rd-u1").expect("legal"),
                            ZoneNetwork::Own {
                                address: [10, 0, 0, 5].into(),
                                prefix: 24,
                                gateway: [10, 0, 0, 1].into(),
                                mac: String::new(),
                                link: String::new(),
                                ports: Vec::new(),
                                bandwidth: None,
                            },
                        )
                    },
                    state: ZoneState::Running,
                    boot: Some("b1".into()),
                    created: now,
                    processes: Vec::new(),
                });
            }
            Action::Pull(name) => {
                self.memory.images.insert(name, ImageState::Ready);
            }
            Action::Start(id) => {
                let zone = self.zone.as_mut().expect("a zone");
                assert!(
                    zone.processes.iter().all(|process| process.id != id),
                    "{id} twice"
                );
                let spec = self.pod.spec.as_ref().expect("a spec");
                let all = containers(spec);
                let container = all.iter().find(|(_, one)| one.name == id.name);
                let size = Size::of(spec, &container.expect("the container").1);
                zone.processes.push(Process {
                    id,
                    labels: BTreeMap::from([(SIZE.into(), size.label())]),
                    started: now,
                    ended: None,
                });
            }
            Action::Signal(id, signal) => {
                self.events.push(format!("signal {} {}", id, signal.0));
            }
            Action::PreStop(id, grace) => self.events.push(format!("preStop {id} {grace}")),
            Action::Forget(id) => {
                let zone = self.zone.as_mut().expect("a zone");
                zone.processes.retain(|process| process.id != id);
            }
            Action::Measure => {
                let used = self.used;
                let usage = |memory| Usage {
                    memory,
                    ..Usage::default()
                };
                let running = self.zone.iter().flat_map(|zone| &zone.processes);
                let running = running.filter(|process| process.ended.is_none());
                self.memory.resize.measured = Some(Ok(ZoneUsage {
                    at: now,
                    total: usage(used),
                    processes: running
                        .map(|process| (process.id.clone(), usage(used)))
                        .collect(),
                    network: (0, 0),
                }));
            }
            Action::Resize(change) => {
                let zone = self.zone.as_mut().expect("a zone");
                self.events.push(said(&change));
                match change.of {
                    Of::Zone => zone.spec.limits = change.limits.or(&zone.spec.limits),
                    Of::Process(id, labels) => {
                        let mut all = zone.processes.iter_mut();
                        let process = all.find(|process| process.id == id).expect("it is there");
                        process.labels.extend(labels);
                    }
                }
            }
            Action::Halt => self.zone = None,
            Action::Remove => self.removed = true,
            Action::Event {
                reason, message, ..
            } => self.events.push(format!("{reason}: {message}")),
        }
    }

    fn exit(&mut self, name: &str, code: i32) {
        let now = self.now;
        let process = self
            .zone
            .iter_mut()
            .flat_map(|zone| &mut zone.processes)
            .rfind(|process| process.id.name == name && process.ended.is_none())
            .expect("it runs");
        process.ended = Some(Ending::exited(code, now));
    }
    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
    fn running(&self) -> Vec<String> {
        self.zone
            .iter()
            .flat_map(|zone| &zone.processes)
            .filter(|process| process.ended.is_none())
            .map(|process| process.id.to_string())
            .collect()
    }
    fn phase(&self) -> &str {
        self.memory.last.phase.as_deref().unwrap_or_default()
    }
    fn condition(&self, type_: &str) -> String {
        let condition = self
            .memory
            .last
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == type_)
            .expect("the condition");
        let mut text = condition.status.clone();
        for more in [&condition.reason, &condition.message]
            .into_iter()
            .flatten()
        {
            text = format!("{text} {more}");
        }
        text
    }
    fn container(&self, name: &str) -> &ContainerStatus {
        let last = &self.memory.last;
        last.container_statuses
            .iter()
            .chain(&last.init_container_statuses)
            .flatten()
            .find(|status| status.name == name)
            .expect("the container")
    }
    fn waiting(&self, name: &str) -> String {
        let state = self.container(name).state.clone().unwrap_or_default();
        state
            .waiting
            .and_then(|waiting| waiting.reason)
            .unwrap_or_default()
    }
    fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_timestamp = Some(status::time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }
    fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

fn one(policy: &str) -> serde_json::Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn a_pod_comes_up_runs_and_is_removed_with_grace() {
    let mut host = Host::new(one("Always"));
    assert_eq!(host.settle(), None);
    assert_eq!(host.phase(), "Running");
    assert_eq!(host.memory.last.pod_ip.as_deref(), Some("10.0.0.5"));
    for condition in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(host.condition(condition), "True", "{condition}");
    }
    host.delete(30);
    let wake = host.settle().expect("the end of grace");
    assert_eq!(
        host.take_events(),
        ["Killing: Stopping container a", "signal a/0 15"]
    );
    assert_eq!(wake.duration_since(host.now).as_secs(), 30);
    host.pass(30);
    host.settle();
    assert_eq!(host.take_events(), ["signal a/0 9"]);
    host.exit("a", 137);
    host.settle();
    assert!(host.removed && host.zone.is_none());
    assert_eq!(
        host.phase(),
        "Failed",
        "what ended with an error is never started again"
    );
    assert_eq!(host.condition("Ready"), "False PodFailed");
}

#[test]
fn grace_of_zero_kills_and_a_shorter_grace_counts() {
    let mut host = Host::new(one("Always"));
    host.settle();
    host.delete(60);
    host.settle();
    host.delete(0);
    host.settle();
    assert_eq!(
        host.take_events(),
        [
            "Killing: Stopping container a",
            "signal a/0 15",
            "signal a/0 9"
        ]
    );
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
fn phases_follow_the_restart_policy() {
    for (policy, code, phase, again) in [
        ("Always", 0, "Running", true),
        ("Always", 1, "Running", true),
        ("OnFailure", 0, "Succeeded", false),
        ("OnFailure", 1, "Running", true),
        ("Never", 0, "Succeeded", false),
        ("Never", 1, "Failed", false),
    ] {
        let mut host = Host::new(one(policy));
        host.settle();
        host.exit("a", code);
        host.settle();
        assert_eq!(host.phase(), phase, "{policy} {code}");
        assert_eq!(
            host.running(),
            if again { vec!["a/1"] } else { vec![] },
            "{policy} {code}"
        );
        assert_eq!(
            host.zone.is_some(),
            again,
            "a zone only where something runs"
        );
        let ready = match phase {
            "Succeeded" => "False PodCompleted",
            "Failed" => "False PodFailed",
            _ => "True",
        };
        assert_eq!(host.condition("Ready"), ready, "{policy} {code}");
    }
}

#[test]
fn crash_loops_wait_longer_each_time_and_say_so() {
    let mut host = Host::new(one("Always"));
    host.settle();
    for (generation, wait) in [(1, 0), (2, 10), (3, 20), (4, 40)] {
        host.exit("a", 1);
        let wake = host.settle();
        if wait > 0 {
            assert_eq!(
                wake.map(|at| at.duration_since(host.now).as_secs()),
                Some(wait)
            );
            assert_eq!(host.waiting("a"), "CrashLoopBackOff");
            assert_eq!(host.phase(), "Running");
            assert_eq!(
                host.condition("Ready"),
                "False ContainersNotReady containers with unready status: [a]"
            );
            let last = host.container("a").last_state.clone().unwrap_or_default();
            assert_eq!(last.terminated.map(|ended| ended.exit_code), Some(1));
            assert_eq!(
                host.take_events(),
                ["BackOff: Back-off restarting failed container a in pod p_default(u1)"]
            );
            host.pass(wait);
            host.settle();
        }
        assert_eq!(host.running(), [format!("a/{generation}")]);
        assert_eq!(host.container("a").restart_count, generation);
    }
    let known = host.zone.as_ref().map_or(0, |zone| zone.processes.len());
    assert_eq!(known, 2, "only the last end is kept");
}

#[test]
fn init_containers_run_one_by_one_and_sidecars_go_on() {
    let mut host = Host::new(json!({
        "restartPolicy": "OnFailure",
        "initContainers": [
            {"name": "i1", "image": "i"},
            {"name": "side", "image": "i", "restartPolicy": "Always",
             "startupProbe": {"tcpSocket": {"port": 1}}},
            {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
    }));
    host.settle();
    assert_eq!(host.running(), ["i1/0"]);
    assert_eq!(host.phase(), "Pending");
    assert_eq!(host.waiting("a"), "PodInitializing");
    assert_eq!(
        host.condition("Initialized"),
        "False ContainersNotInitialized containers with incomplete status: [i1 side i2]"
    );
    host.exit("i1", 1);
    host.settle();
    assert_eq!(
        host.running(),
        ["i1/1"],
        "failed init containers are repeated"
    );
    host.exit("i1", 0);
    host.settle();
    assert_eq!(
        host.running(),
        ["side/0"],
        "until it has started, nothing follows"
    );
    let side = ProcessId {
        name: "side".into(),
        generation: 0,
    };
    host.memory
        .probes
        .insert((side.clone(), ProbeKind::Startup), true);
    host.settle();
    assert_eq!(host.running(), ["side/0", "i2/0"]);
    host.exit("i2", 0);
    host.settle();
    assert_eq!(host.running(), ["side/0", "a/0", "b/0"]);
    assert_eq!(
        (host.phase(), host.condition("Initialized").as_str()),
        ("Running", "True")
    );
    host.exit("side", 1);
    host.settle();
    assert_eq!(host.running(), ["a/0", "b/0", "side/1"]);
    host.take_events();
    host.exit("a", 0);
    host.settle();
    host.exit("b", 0);
    host.settle();
    assert_eq!(host.phase(), "Running", "a sidecar still runs");
    assert_eq!(
        host.take_events(),
        ["Killing: Stopping container side", "signal side/1 15"]
    );
    host.exit("side", 1);
    host.settle();
    assert_eq!(host.phase(), "Succeeded", "whatever the sidecar's status");
    assert!(host.zone.is_none());
    assert_eq!(host.condition("Initialized"), "True PodCompleted");
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let mut host = Host::new(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i1", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}],
    }));
    host.settle();
    host.exit("i1", 2);
    host.settle();
    assert_eq!(host.phase(), "Failed");
    assert!(host.zone.is_none());
}

#[test]
fn probes_decide_about_readiness_and_restarts() {
    let mut host = Host::new(json!({
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 7,
        "containers": [{"name": "a", "image": "i",
            "startupProbe": {"tcpSocket": {"port": 1}},
            "livenessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 3},
            "readinessProbe": {"tcpSocket": {"port": 1}}}],
    }));
    host.settle();
    let id = ProcessId {
        name: "a".into(),
        generation: 0,
    };
    let flags = |host: &Host| (host.container("a").started, host.container("a").ready);
    assert_eq!(flags(&host), (Some(false), false));
    host.memory
        .probes
        .insert((id.clone(), ProbeKind::Startup), true);
    host.settle();
    assert_eq!(flags(&host), (Some(true), false));
    host.memory
        .probes
        .insert((id.clone(), ProbeKind::Readiness), true);
    host.settle();
    assert_eq!(
        (flags(&host), host.condition("Ready").as_str()),
        ((Some(true), true), "True")
    );
    host.memory
        .probes
        .insert((id.clone(), ProbeKind::Liveness), false);
    let wake = host.settle().expect("the end of grace");
    assert_eq!(
        wake.duration_since(host.now).as_secs(),
        3,
        "the probe's own grace"
    );
    assert_eq!(
        host.take_events(),
        [
            "Killing: Container a failed liveness probe, will be restarted",
            "signal a/0 15"
        ]
    );
    host.exit("a", 143);
    host.settle();
    assert_eq!(host.running(), ["a/1"]);
    assert_eq!(flags(&host), (Some(false), false));
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
fn a_deadline_fails_the_pod() {
    let mut host = Host::new(json!({
        "restartPolicy": "Always", "activeDeadlineSeconds": 10,
        "containers": [{"name": "a", "image": "i"}],
    }));
    let wake = host.settle().expect("the deadline");
    assert_eq!(wake.duration_since(host.now).as_secs(), 10);
    host.pass(10);
    host.settle();
    assert_eq!(
        (host.phase(), host.memory.last.reason.as_deref()),
        ("Failed", Some("DeadlineExceeded"))
    );
    host.exit("a", 0);
    host.settle();
    assert_eq!(host.phase(), "Failed");
    assert!(host.zone.is_none());
}

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
        // The next wait is the next one of the loop.
        host.exit("a", 1);
        let wake = host.settle().expect("the end of the wait");
        assert_eq!(wake.duration_since(host.now).as_secs(), 20, "{by}");
        host.pass(20);
        host.settle();
        // An image that is not to be had.
        host.pass(700);
        host.exit("a", 1);
        let again = host.now + SignedDuration::from_secs(20);
        let failed = ImageState::Failed {
            reason: "ImagePullBackOff".into(),
            message: String::new(),
            again,
        };
        host.memory.images.insert("a".into(), failed);
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
    // An end that was noted by a clock that was set back since, while no agent ran.
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
        // No letter is cut in two.
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
            // The second end is waited after.
            exit.inspect(|code| host.exit("a", *code));
            host.settle();
        }
        if deleted {
            host.delete(30);
            host.settle();
        }
        host.take_events();
        let (told, running) = (host.memory.last.clone(), host.running());
        // Another agent finds the zone, whose supervisor did not say hello to it yet.
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
        // One that stays silent is ended with its pod, when its time is up.
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
fn images_that_cannot_be_had_are_waited_for() {
    let mut host = Host::new(one("Always"));
    host.zone = None;
    host.settle();
    host.exit("a", 0);
    let again = host.now + SignedDuration::from_secs(20);
    host.memory.images.insert(
        "a".into(),
        ImageState::Failed {
            reason: "ImagePullBackOff".into(),
            message: "Back-off pulling image \"i\"".into(),
            again,
        },
    );
    assert_eq!(host.settle(), Some(again));
    assert_eq!(host.waiting("a"), "ImagePullBackOff");
    host.pass(20);
    host.settle();
    assert_eq!(host.running(), ["a/1"]);
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

/// Containers of these cpu and memory limits, which are their requests.
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
        // Memory of all together becomes less at the end.
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
    // Another agent finds it as it is told.
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
    // An end that its policy would leave it at.
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
