use http_body_util::BodyExt as _;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use super::*;
use crate::auth::User;
use crate::client::Transport;

const DISCOVERY: &str = r#"{"items":[{"metadata":{},"versions":[{"version":"v1","resources":[
    {"resource":"secrets","responseKind":{"kind":"Secret"},"scope":"Namespaced","verbs":["delete","deletecollection","list"]},
    {"resource":"pods","responseKind":{"kind":"Pod"},"scope":"Namespaced","verbs":["delete","deletecollection","list"]}
]}]}]}"#;

/// What was found, and which requests were sent, after one attempt to empty a namespace that has these pods and secrets
/// and keeps them.
async fn attempt(pods: &'static str, secrets: &'static str) -> (v1::NamespaceStatus, Vec<String>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    let transport = Transport::new(move |request, _| {
        let path = request.uri().path();
        let answer = match path.rsplit('/').next() {
            Some("api") => DISCOVERY.to_owned(),
            Some("apis") => r#"{"items":[]}"#.to_owned(),
            Some(plural) => {
                noted.lock().push(format!("{} {plural}", request.method()));
                let items = if plural == "pods" { pods } else { secrets };
                format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{}},"items":[{items}]}}"#)
            }
            None => unreachable!("a path has segments"),
        };
        async move { http::Response::new(http_body_util::Full::from(answer).boxed_unsync()) }
    });
    let client = transport.client(User::new("test", &[]), "test");
    let text = r#"{"metadata":{"name":"n","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#;
    let namespace = serde_json::from_str(text).expect("a namespace");
    let (findings, _) = empty(&client, &namespace).await;
    let mut status = v1::NamespaceStatus::default();
    findings.apply(&mut status, &Time(Timestamp::UNIX_EPOCH));
    let asked = asked.lock().clone();
    (status, asked)
}

fn told(status: &v1::NamespaceStatus) -> Vec<&str> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .filter(|condition| condition.status == "True")
        .filter_map(|condition| condition.message.as_deref())
        .collect()
}

#[tokio::test]
async fn nothing_else_is_deleted_while_pods_remain_even_if_they_should_not() {
    // Its grace period is over.
    let pod = r#"{"metadata":{"name":"p"},"spec":{"terminationGracePeriodSeconds":1}}"#;
    let (status, asked) = attempt(pod, "").await;
    assert_eq!(asked, ["GET pods", "DELETE pods", "GET pods"]);
    assert_eq!(
        told(&status),
        [
            "Failed to delete all resource types, 1 remaining: unexpected items still remain in namespace: n for gvr: /v1, Resource=pods"
        ]
    );
}

#[tokio::test]
async fn what_remains_is_told_even_if_it_should_not() {
    let (status, asked) = attempt("", r#"{"metadata":{"name":"s"}}"#).await;
    assert_eq!(asked[3..], ["DELETE secrets", "GET secrets"]);
    assert_eq!(
        told(&status),
        [
            "Failed to delete all resource types, 1 remaining: unexpected items still remain in namespace: n for gvr: /v1, Resource=secrets",
            "Some resources are remaining: secrets. has 1 resource instances"
        ]
    );
}

#[test]
fn what_remains_is_expected_to_go_by_itself_if_it_is_held_or_has_time_left() {
    let item = |finalizers: &[&str]| Bare {
        metadata: kube::api::ObjectMeta {
            finalizers: Some(finalizers.iter().map(|&name| name.to_owned()).collect()),
            ..kube::api::ObjectMeta::default()
        },
    };
    let resource = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        plural: "pods".to_owned(),
    };
    let left = |items: &[Bare], grace| {
        let left = Left::of(items, grace, "n", &resource);
        (left.count, left.estimate, left.failure.is_some())
    };
    assert_eq!(left(&[], 30), (0, 0, false));
    assert_eq!(left(&[item(&[])], 30), (1, 30, false));
    assert_eq!(left(&[item(&["f"])], 0), (1, FINALIZER_SECONDS, false));
    assert_eq!(left(&[item(&[])], 0), (1, 0, true));
}
