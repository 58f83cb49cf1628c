//! Replicas by usage and target.

use serde_json::json;

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

/// Its phase, status and time of the condition `Ready`, and its start.
type State = (&'static str, &'static str, &'static str, &'static str);

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A pod that requests one core.
fn pod(name: &str, state: State) -> Arc<Pod> {
    let (phase, ready, since, start) = state;
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
        "status": {
            "phase": phase,
            "startTime": start,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]
        }
    });
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

const OLD: State = (
    "Running",
    "True",
    "2026-01-01T00:00:10Z",
    "2026-01-01T00:00:00Z",
);
const PENDING: State = (
    "Pending",
    "False",
    "2026-01-01T00:59:00Z",
    "2026-01-01T00:59:00Z",
);
const NEVER_READY: State = (
    "Running",
    "False",
    "2026-01-01T00:00:20Z",
    "2026-01-01T00:00:00Z",
);
const JUST_READY: State = (
    "Running",
    "True",
    "2026-01-01T00:59:50Z",
    "2026-01-01T00:59:00Z",
);
const FAILED: State = (
    "Failed",
    "False",
    "2026-01-01T00:30:00Z",
    "2026-01-01T00:00:00Z",
);

/// The number of replicas for pods in these states with this usage in thousandths of a core (None: unknown).
fn asked(goal: i32, pods: &[(State, Option<i64>)]) -> Result<i32, String> {
    let names: Vec<String> = (0..pods.len()).map(|at| format!("p{at}")).collect();
    let samples = names.iter().zip(pods).filter_map(|(name, (_, used))| {
        let sample = Sample {
            value: (*used)?,
            at: time(NOW),
            window: Duration::from_secs(30),
        };
        Some((name.clone(), sample))
    });
    let samples = samples.collect();
    let pods: Vec<_> = names
        .iter()
        .zip(pods)
        .map(|(name, (state, _))| pod(name, *state))
        .collect();
    let goal = Goal::Utilization(goal, requests(&pods, None, "cpu")?);
    let current = i32::try_from(pods.len()).expect("few");
    let (wanted, _) = replicas(
        current,
        &goal,
        samples,
        &pods,
        true,
        Tolerances::default(),
        time(NOW),
    )?;
    Ok(wanted)
}

#[test]
fn what_is_not_known_makes_changes_smaller_and_never_turns_them() {
    let rows: [(i32, &[_], i32); 12] = [
        // Within the tolerance, above, below.
        (50, &[(OLD, Some(540)), (OLD, Some(550))], 2),
        (50, &[(OLD, Some(900)), (OLD, Some(900))], 4),
        (
            50,
            &[(OLD, Some(100)), (OLD, Some(100)), (OLD, Some(100))],
            1,
        ),
        // Unready pods are assumed to use nothing when scaling up,
        (50, &[(OLD, Some(900)), (PENDING, None)], 2),
        (30, &[(OLD, Some(900)), (PENDING, None)], 3),
        (30, &[(OLD, Some(900)), (NEVER_READY, Some(900))], 3),
        (30, &[(OLD, Some(900)), (JUST_READY, Some(900))], 3),
        // and are ignored when scaling down.
        (50, &[(OLD, Some(200)), (PENDING, None)], 1),
        // Pods without a sample are assumed to use all of their request, or nothing.
        (50, &[(OLD, Some(200)), (OLD, None)], 2),
        (
            50,
            &[
                (OLD, Some(10)),
                (OLD, Some(10)),
                (OLD, Some(10)),
                (OLD, None),
            ],
            2,
        ),
        (30, &[(OLD, Some(900)), (OLD, None)], 3),
        // Failed pods do not count.
        (50, &[(OLD, Some(900)), (FAILED, Some(900))], 2),
    ];
    for (goal, pods, wanted) in rows {
        assert_eq!(asked(goal, pods), Ok(wanted), "{goal} {pods:?}");
    }
    let refused = asked(50, &[(PENDING, Some(1))]).expect_err("no sample that counts");
    assert!(refused.starts_with("did not receive metrics"), "{refused}");
}

#[test]
fn averages_are_of_those_that_are_seen() {
    let pods = [pod("a", OLD), pod("b", OLD)];
    let sample = |value| Sample {
        value,
        at: time(NOW),
        window: Duration::ZERO,
    };
    let samples: Samples = [
        ("a".to_owned(), sample(3000)),
        ("b".to_owned(), sample(5000)),
    ]
    .into();
    let judge = |goal| {
        let goal = Goal::Average(goal);
        let tolerances = Tolerances::default();
        replicas(
            2,
            &goal,
            samples.clone(),
            &pods,
            false,
            tolerances,
            time(NOW),
        )
    };
    let (wanted, used) = judge(2000).expect("told");
    assert_eq!((wanted, used.average, used.utilization), (4, 4000, None));
    assert_eq!(judge(4000).expect("told").0, 2);
    assert_eq!(judge(16000).expect("told").0, 1);
}

#[test]
fn requests_are_those_of_the_pod_or_of_its_containers() {
    let read = |spec: serde_json::Value| -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    };
    let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
    let two = read(json!({
        "initContainers": [
            {"name": "once", "resources": cpu("5")},
            {"name": "beside", "restartPolicy": "Always", "resources": cpu("50m")}
        ],
        "containers": [{"name": "a", "resources": cpu("100m")}, {"name": "b", "resources": cpu("1")}]
    }));
    let whole = read(json!({
        "resources": cpu("3"),
        "containers": [{"name": "a", "resources": cpu("100m")}, {"name": "b"}]
    }));
    let rows = [
        (&two, None, "cpu", Ok(1150)),
        (&two, Some("a"), "cpu", Ok(100)),
        (
            &two,
            Some("z"),
            "cpu",
            Err("container z not found in Pod p"),
        ),
        (
            &two,
            None,
            "memory",
            Err("missing request for memory in container a of Pod p"),
        ),
        (&whole, None, "cpu", Ok(3000)),
        (&whole, Some("a"), "cpu", Ok(100)),
        (
            &whole,
            Some("b"),
            "cpu",
            Err("missing request for cpu in container b of Pod p"),
        ),
    ];
    for (pod, container, resource, wanted) in rows {
        let found = requests(std::slice::from_ref(pod), container, resource);
        let found = found.map(|found| found["p"]);
        assert_eq!(
            found,
            wanted.map_err(str::to_owned),
            "{container:?} {resource}"
        );
    }
}
