use super::*;
use crate::value;

/// The columns ready, status and restarts of a pod, 100 seconds after the epoch.
fn row(pod: &Value) -> (String, String, String) {
    let cells = super::pod(pod, 100);
    let text = |n: usize| cells[n].as_str().unwrap().to_owned();
    (text(1), text(2), text(3))
}

fn shown(ready: &str, status: &str, restarts: &str) -> (String, String, String) {
    (ready.into(), status.into(), restarts.into())
}

#[test]
fn a_pod_without_status_is_pending_and_a_reason_wins_over_the_phase() {
    let pod = |status: Value| {
        value!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "status": status,
        })
    };
    assert_eq!(
        row(&pod(value!({"phase": "Pending"}))),
        shown("0/2", "Pending", "0")
    );
    assert_eq!(
        row(&pod(value!({"phase": "Failed", "reason": "Evicted"}))),
        shown("0/2", "Evicted", "0")
    );
    let gated = value!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
    assert_eq!(row(&pod(gated)), shown("0/2", "SchedulingGated", "0"));
}

#[test]
fn init_containers_are_told_until_they_are_done_and_sidecars_count() {
    let pod = |states: Value| {
        value!({
            "spec": {
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                "containers": [{"name": "a"}],
            },
            "status": {"phase": "Pending", "initContainerStatuses": states},
        })
    };
    for (states, status, ready) in [
        (
            value!([{"name": "i", "state": {"running": {}}}]),
            "Init:0/2",
            "0/2",
        ),
        (
            value!([{"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}}]),
            "Init:ErrImagePull",
            "0/2",
        ),
        (
            value!([{"name": "i", "state": {"terminated": {"exitCode": 3}}}]),
            "Init:ExitCode:3",
            "0/2",
        ),
        (
            value!([{"name": "i", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]),
            "Init:Signal:9",
            "0/2",
        ),
        (
            value!([
                {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                {"name": "s", "started": true, "ready": true, "state": {"running": {}}}
            ]),
            "Pending",
            "1/2",
        ),
    ] {
        assert_eq!(row(&pod(states)), shown(ready, status, "0"));
    }
}

#[test]
fn restarts_tell_when_the_last_was_and_completed_containers_do_not_hide_running_ones() {
    let status = |conditions: Value| {
        value!({
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "status": {
                "phase": "Running",
                "conditions": conditions,
                "containerStatuses": [
                    {"name": "a", "restartCount": 1, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                    {"name": "b", "restartCount": 2, "ready": true, "state": {"running": {}},
                     "lastState": {"terminated": {"finishedAt": "1970-01-01T00:01:00Z"}}}
                ],
            },
        })
    };
    assert_eq!(
        row(&status(value!([{"type": "Ready", "status": "True"}]))),
        shown("1/2", "Running", "3 (40s ago)")
    );
    assert_eq!(
        row(&status(value!([]))),
        shown("1/2", "NotReady", "3 (40s ago)")
    );
}

#[test]
fn a_pod_that_is_being_deleted_terminates_unless_it_has_ended() {
    let pod = |phase: &str, reason: &str| {
        value!({
            "metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}]},
            "status": {"phase": phase, "reason": reason},
        })
    };
    assert_eq!(row(&pod("Running", "")).1, "Terminating");
    assert_eq!(row(&pod("Succeeded", "")).1, "Succeeded");
    assert_eq!(row(&pod("Running", "NodeLost")).1, "Unknown");
}

#[test]
fn gates_that_are_open_are_counted() {
    let pod = value!({
        "spec": {"readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
        "status": {"conditions": [{"type": "a", "status": "True"}]},
    });
    assert_eq!(super::pod(&pod, 0)[8], Value::from("1/2"));
}
