use serde_json::json;

use super::pods::newest;
use super::*;

#[test]
fn pods_that_need_what_is_not_declared_are_refused() {
    let pod = |list: &str, action: &str| -> Pod {
        let rules = json!([{"action": action, "exitCodes": {"operator": "In", "values": [1]}}]);
        let mut spec = json!({"containers": [{"name": "c"}]});
        spec[list] = json!([{"name": "r", "restartPolicy": "Never", "restartPolicyRules": rules}]);
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    };
    let all =
        "Pod requires node features that are not available: RestartAllContainersOnContainerExits";
    for (list, action, expected) in [
        ("containers", "Restart", None),
        ("containers", "RestartAllContainers", Some(all)),
        ("initContainers", "RestartAllContainers", Some(all)),
    ] {
        let refused = needs_more(&pod(list, action)).map(|refused| refused.message);
        assert_eq!(refused.as_deref(), expected, "{list} {action}");
    }
}

#[test]
fn of_two_pods_with_a_name_the_newest_is_meant() {
    let pod = |uid: &str, minute: u32| -> (Arc<Pod>, u32) {
        let at = format!("2026-01-01T00:{minute:02}:00Z");
        let metadata =
            json!({"namespace": "n", "name": "web-0", "uid": uid, "creationTimestamp": at});
        let pod = serde_json::from_value(json!({"metadata": metadata})).expect("a pod");
        (Arc::new(pod), minute)
    };
    for order in [["a", "b"], ["b", "a"]] {
        let all = || {
            order
                .map(|uid| pod(uid, if uid == "a" { 1 } else { 2 }))
                .into()
        };
        for (uid, expected) in [(None, Some(2)), (Some("a"), Some(1)), (Some("c"), None)] {
            let found = newest(all(), "n", "web-0", uid);
            assert_eq!(found.map(|(_, minute)| minute), expected, "{uid:?}");
        }
        assert!(newest(all(), "n", "web-1", None).is_none());
    }
}

#[test]
fn nobody_knows_which_pods_are_active_before_all_are_told_of() {
    let pods = Pods::default();
    assert_eq!(pods.active(), None);
    pods.listed.store(true, Ordering::Release);
    assert_eq!(pods.active(), Some(Vec::new()));
}
