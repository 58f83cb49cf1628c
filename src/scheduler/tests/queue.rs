//! Tests the order and time of attempts.

use std::time::Duration;

use serde_json::json;

use super::super::queue::Queue;
use super::{Event, Instant, Key, Plugin, Plugins, asking, node, pod, three};

fn fit() -> Plugins {
    [Plugin::NodeResourcesFit].into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn waiting_pods_come_by_priority_and_when_something_can_help() {
    let mut snapshot = three();
    let mut queue = Queue::default();
    let now = Instant::now;
    let next = |queue: &mut Queue| queue.next(now()).map(|pod| pod.key.name.to_string());
    for (name, priority) in [("old", 0), ("new", 0), ("high", 9)] {
        queue.set(
            asking(name, "9", json!({"priority": priority})),
            &snapshot,
            now(),
        );
    }
    let gated = asking("gated", "1", json!({"schedulingGates": [{"name": "g"}]}));
    queue.set(gated, &snapshot, now());
    for name in ["high", "old", "new"] {
        let busy = queue.next(now()).expect("it is ready");
        assert_eq!(busy.key.name, name);
        queue.fail(&busy, fit(), now());
    }
    assert_eq!(
        next(&mut queue),
        Err(None),
        "nothing is ready, and gates are closed"
    );
    let tally = queue.tally();
    let waiting = [
        ("active", 0),
        ("backoff", 0),
        ("gated", 1),
        ("unschedulable", 3),
    ];
    assert_eq!(tally.waiting, waiting);
    let rejected = [("NodeResourcesFit", 3), ("SchedulingGates", 1)];
    let rejected = rejected.map(|(rule, count)| (rule.to_owned(), count));
    assert_eq!(tally.rejected, rejected.into());
    let incoming = [
        (("active", "UnscheduledPodAdd".into()), 3),
        (("unschedulable", "ScheduleAttemptFailure".into()), 3),
        (("unschedulable", "UnscheduledPodAdd".into()), 1),
    ];
    assert_eq!(tally.incoming, incoming.into());
    queue.set(asking("gated", "1", json!({})), &snapshot, now());
    assert_eq!(next(&mut queue).as_deref(), Ok("gated"));
    // A node that is too small helps no pod; a large one makes those ready whose backoff is over.
    let small = node("small", json!({}), json!({}));
    queue.on(&Event::NodeCame(&small), &snapshot, now(), |_| true);
    assert_eq!(next(&mut queue), Err(None));
    let gone = asking("x", "1", json!({"nodeName": "a"}));
    snapshot.set_pod(gone.clone());
    queue.on(&Event::PodCame(&gone), &snapshot, now(), |_| true);
    assert_eq!(next(&mut queue), Err(None), "a pod more is no help");
    queue.on(&Event::PodGone(&gone), &snapshot, now(), |_| true);
    assert_eq!(
        next(&mut queue).as_deref(),
        Ok("high"),
        "it backs off, but nothing else is ready"
    );
    // A pod that failed with an error is not retried before its backoff ends.
    queue.remove(&Key::new("n", "old"));
    let busy = queue.next(now()).expect("it backs off");
    assert_eq!(busy.key.name, "new");
    assert!(queue.err(&busy, now()).is_some());
    assert_eq!(next(&mut queue), Err(Some(now() + Duration::from_secs(2))));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(next(&mut queue).as_deref(), Ok("new"));
    // A pod with preemption in progress is not retried before that has started, and then only after an event.
    let key = busy.key.clone();
    queue.fail(&busy, fit(), now());
    queue.begin_preempting(&busy);
    queue.end_preempting(&busy, false, now());
    assert_eq!(next(&mut queue), Err(None));
    queue.begin_preempting(&busy);
    queue.on(&Event::PodGone(&gone), &snapshot, now(), |_| true);
    assert_eq!(next(&mut queue), Err(None));
    queue.end_preempting(&busy, false, now());
    assert_eq!(next(&mut queue).as_deref(), Ok("new"));
    queue.fail(&busy, fit(), now());
    tokio::time::advance(Duration::from_secs(301)).await;
    queue.flush(now());
    assert_eq!(next(&mut queue).as_deref(), Ok("new"));
    let attempt = queue.attempt(&key, now());
    assert!(attempt.is_flushed && attempt.number == 5);
    assert_eq!(attempt.begun - attempt.since, Duration::from_secs(303));
    let incoming = queue.tally().incoming;
    for why in [
        ("active", "BackoffComplete"),
        ("active", "PopFromBackoffQ"),
        ("active", "TargetPodUpdatePodSchedulingGatesEliminated"),
        ("active", "UnschedulableTimeout"),
        ("backoff", "AssignedPodDelete"),
        ("backoff", "ScheduleAttemptFailure"),
    ] {
        assert!(
            incoming.contains_key(&(why.0, why.1.into())),
            "{why:?} is not in {incoming:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_pod_is_not_said_of_another_of_its_name() {
    let snapshot = three();
    let now = Instant::now();
    let another = pod("p", json!({"uid": "another"}), json!({}), json!({}));
    let first = asking("p", "1", json!({}));
    for (what, tell) in [
        (
            "it has its place",
            (|queue, first| queue.done(first)) as fn(&mut Queue, &_),
        ),
        ("it has none", |queue, first| {
            queue.fail(first, fit(), Instant::now())
        }),
        ("that went wrong", |queue, first| {
            assert!(queue.err(first, Instant::now()).is_none())
        }),
        ("others end for it", |queue, first| {
            queue.begin_preempting(first)
        }),
        ("others have ended for it", |queue, first| {
            queue.end_preempting(first, true, Instant::now())
        }),
    ] {
        for is_busy in [false, true] {
            let mut queue = Queue::default();
            queue.set(first.clone(), &snapshot, now);
            let busy = queue.next(now).expect("it is ready");
            queue.remove(&busy.key);
            queue.set(another.clone(), &snapshot, now);
            let other = is_busy.then(|| queue.next(now).expect("it is ready"));
            tell(&mut queue, &first);
            let other = match other {
                None => queue.next(now).expect(what),
                Some(other) => {
                    queue.begin_preempting(&other);
                    tell(&mut queue, &first);
                    queue.fail(&other, fit(), now);
                    let gone = Event::PodGone(&first);
                    queue.on(&gone, &snapshot, now, |_| true);
                    assert_eq!(queue.next(now).err(), Some(None), "{what}");
                    other
                }
            };
            assert_eq!(other.uid(), "another", "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_was_given_out_is_given_back() {
    let snapshot = three();
    let mut queue = Queue::default();
    let now = Instant::now();
    let waits = asking("p", "1", json!({}));
    queue.set(waits.clone(), &snapshot, now);
    let busy = queue.next(now).expect("it is ready");
    // It changes while it is being scheduled, and that fails.
    queue.remove(&busy.key);
    queue.set(waits, &snapshot, now);
    assert!(queue.err(&busy, now).is_none());
    queue.fail(&busy, fit(), now);
    queue.done(&busy);
    assert!(queue.next(now).is_ok());
    queue.remove(&busy.key);
    assert_eq!(queue.next(now).err(), Some(None));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(queue.next(Instant::now()).err(), Some(None));
}

#[tokio::test(start_paused = true)]
async fn among_pods_that_back_off_a_second_decides_and_then_priority() {
    let snapshot = three();
    for (apart, first) in [(100, "high"), (1_100, "low")] {
        let mut queue = Queue::default();
        for (name, priority) in [("low", 0), ("high", 1_000)] {
            let spec = json!({"priority": priority, "preemptionPolicy": "Never"});
            queue.set(asking(name, "9", spec), &snapshot, Instant::now());
            let busy = queue.next(Instant::now()).expect("it is ready");
            queue.fail(&busy, fit(), Instant::now());
            tokio::time::advance(Duration::from_millis(apart)).await;
        }
        let gone = asking("x", "1", json!({"nodeName": "a"}));
        // While their first backoff lasts.
        let now = Instant::now() - Duration::from_millis(apart);
        queue.on(&Event::PodGone(&gone), &snapshot, now, |_| true);
        let got = queue.next(now).expect("nothing else is ready");
        assert_eq!(got.key.name, first, "{apart}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_comes_after_what_was_not() {
    let snapshot = three();
    let mut queue = Queue::default();
    let now = Instant::now;
    for name in ["a", "b", "new"] {
        queue.set(asking(name, "9", json!({})), &snapshot, now());
    }
    let busy = queue.next(now()).expect("it is ready");
    queue.fail(&busy, fit(), now());
    let busy = queue.next(now()).expect("it is ready");
    assert!(queue.err(&busy, now()).is_some());
    tokio::time::advance(Duration::from_secs(11)).await;
    let gone = asking("x", "1", json!({"nodeName": "a"}));
    queue.on(&Event::PodGone(&gone), &snapshot, now(), |_| true);
    let order = std::iter::from_fn(|| Some(queue.next(now()).ok()?.key.name.to_string()));
    assert_eq!(order.collect::<Vec<_>>(), ["new", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_tried_at_once_where_nothing_will_say_that_there_is_room() {
    let snapshot = three();
    let mut queue = Queue::default();
    let now = Instant::now();
    queue.set(asking("p", "1", json!({})), &snapshot, now);
    let busy = queue.next(now).expect("it is ready");
    queue.fail(&busy, fit(), now);
    queue.begin_preempting(&busy);
    queue.end_preempting(&busy, true, now);
    assert_eq!(queue.tally().waiting[0], ("active", 1));
}
