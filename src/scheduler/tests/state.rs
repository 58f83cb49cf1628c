//! Tests how the state handles events.

use std::sync::Arc;

use serde_json::json;

use super::super::pod::Pod;
use super::super::state::{State, Step, Work};
use super::super::watch;
use super::{Instant, asking, decided, node, pod};
use crate::client::informer::Change;

/// Passes a change of a pod to the state.
fn seen(state: &mut State, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
    let pod = new.or(old).expect("one of them is there");
    let key = &pod.key;
    watch::pod(state, &Change { key, old, new });
}

#[test]
fn no_room_is_kept_for_a_pod_that_is_gone_whether_or_not_the_node_is_there() {
    for is_there in [false, true] {
        let mut state = State::new(1);
        if is_there {
            state.snapshot.set_node(node("n", json!({}), json!({})));
        }
        let status = json!({"nominatedNodeName": "n"});
        let containers = json!([{"resources": {"requests": {"cpu": "3"}}}]);
        let kept = pod("kept", json!({}), json!({"containers": containers}), status);
        seen(&mut state, None, Some(&kept));
        seen(&mut state, Some(&kept), None);
        state.snapshot.set_node(node("n", json!({}), json!({})));
        let next = asking("next", "3", json!({}));
        assert_eq!(decided(&mut state.snapshot, &next), "n", "{is_there}");
    }
}

#[test]
fn a_pod_made_anew_while_its_name_was_bound_is_placed() {
    let mut state = State::new(1);
    state.snapshot.set_node(node("n", json!({}), json!({})));
    let first = asking("p", "1", json!({}));
    seen(&mut state, None, Some(&first));
    let Step::Work(Work::Bind { pod: bound, .. }) = state.step(Instant::now()) else {
        panic!("it has a place");
    };
    seen(&mut state, Some(&first), Some(&bound));
    seen(&mut state, Some(&bound), None);
    let again = pod("p", json!({"uid": "again"}), json!({}), json!({}));
    seen(&mut state, None, Some(&again));
    // Only now the response to the binding is processed.
    state.queue.done(&bound);
    let Step::Work(Work::Bind { pod: bound, .. }) = state.step(Instant::now()) else {
        panic!("it has a place");
    };
    assert_eq!(bound.uid(), "again");
}
