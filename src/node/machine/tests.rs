//! Pods driven through their lives by hand: the machine decides, the test plays the host and the clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;

use super::*;
use crate::node::describe;
use crate::zone::{
    Change, Ending, Identity, Of, Process, System, Usage, Zone, ZoneName, ZoneNetwork, ZoneSpec,
    ZoneState, ZoneUsage,
};

mod begins;
mod changed;
mod ends;
mod found;

/// The host of one pod, whose images are present unless set otherwise.
struct Host {
    pod: Pod,
    zone: Option<Zone>,
    memory: Memory,
    now: Timestamp,
    events: Vec<String>,
    removed: bool,
    /// How often the resources of a zone were released.
    releases: u32,
    /// The allocated resources, if they may differ from the spec.
    given: Option<Given>,
    /// The memory usage of each container, and of the zone.
    used: u64,
}

/// A change in short form.
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
                host_ips: ["192.0.2.1".into()].into(),
                ..Memory::default()
            },
            now: Timestamp::from_second(1_000_000).expect("a time"),
            events: Vec::new(),
            removed: false,
            releases: 0,
            given: None,
            used: 1 << 20,
        }
    }

    /// Requests other resources, which are allocated.
    fn resize(&mut self, spec: serde_json::Value) {
        let generation = self.pod.metadata.generation.map(|last| last + 1);
        self.pod.metadata.generation = generation;
        self.pod.spec = serde_json::from_value(spec).expect("a spec");
        self.memory.resize.accepted = generation;
    }

    /// Decides and carries out until there is nothing more to do.
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
        self.carry_out(action.clone());
        self.memory.did(&action, self.now);
    }

    fn carry_out(&mut self, action: Action) {
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
                let image = image_of(&self.spec(&name).1);
                self.memory.images.insert(image, ImageState::Ready);
            }
            Action::Start(id) => {
                let (_, container) = self.spec(&id.name);
                let zone = self.zone.as_mut().expect("a zone");
                assert!(
                    zone.processes.iter().all(|process| process.id != id),
                    "{id} twice"
                );
                let spec = self.pod.spec.as_ref().expect("a spec");
                let size = Size::of(spec, &container);
                zone.processes.push(Process {
                    id,
                    labels: BTreeMap::from([
                        (SIZE.into(), size.label()),
                        (ASKED_IMAGE.into(), image_of(&container).1),
                    ]),
                    started: now,
                    ended: None,
                    identity: None,
                });
            }
            Action::Signal(id, signal) => {
                self.events
                    .push(format!("signal {} {}", id, signal.on(System::Linux).0));
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
            Action::Release { .. } => self.releases += 1,
            Action::Remove => self.removed = true,
            Action::Event {
                reason, message, ..
            } => self.events.push(format!("{reason}: {message}")),
        }
    }

    /// The definition of a container.
    fn spec(&self, name: &str) -> (Kind, Container) {
        let spec = self.pod.spec.as_ref().expect("a spec");
        let mut all = containers(spec).into_iter();
        let (kind, container) = all.find(|(_, one)| one.name == name).expect("it");
        (kind, container.into_owned())
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
    /// A new agent takes over, with the reported status and the running zone.
    fn hand_over(&mut self) {
        self.memory = Memory {
            last: self.memory.last.clone(),
            host_ips: self.memory.host_ips.clone(),
            ..Memory::default()
        };
    }
    /// Its probe reached a threshold.
    fn probed(&mut self, name: &str, kind: ProbeKind, good: bool) {
        let zone = self.zone.as_ref().expect("a zone");
        let mut all = zone.processes.iter().rev();
        let id = all
            .find(|process| process.id.name == name)
            .expect("it")
            .id
            .clone();
        self.memory.probes.insert((id, kind), good);
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
    assert_eq!(host.waiting("a"), "PodInitializing");
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
