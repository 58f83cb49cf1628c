use http_body_util::BodyExt as _;

use super::*;
use crate::auth;
use crate::client::Transport;

fn claim(rest: &str) -> Claim {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"p-v","namespace":"n","ownerReferences":[{{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u","controller":true}}]{rest}}},"status":{{"phase":"Bound"}}}}"#
    ))
    .unwrap()
}

#[tokio::test]
async fn the_pods_of_a_namespace_are_read_once_for_all_claims_that_wait() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    let transport = Transport::new(move |request, _| {
        let path = request.uri().path().to_owned();
        noted.lock().push(format!("{} {path}", request.method()));
        // One pod of namespace `a` uses the claim `late`, and no watch has shown it yet.
        let pods = r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"p"},"spec":{"nodeName":"n","volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"late"}}]}}]}"#;
        let claim = r#"{"metadata":{"name":"c"}}"#;
        let answer = if path.ends_with("/pods") { pods } else { claim };
        async move { http::Response::new(http_body_util::Full::from(answer).boxed_unsync()) }
    });
    let claims = Claims {
        client: transport.client(auth::User::new("test", &[]), "test"),
        cache: Informer::by_hand(),
        pods: Pods::in_cache(Informer::by_hand()),
        waiting: Waiting::default(),
    };
    for (namespace, name) in [("a", "late"), ("a", "one"), ("a", "two"), ("b", "one")] {
        let text = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}","finalizers":["kubernetes.io/pvc-protection"],"deletionTimestamp":"2026-01-01T00:00:00Z"}}}}"#
        );
        claims
            .cache
            .put(serde_json::from_str(&text).expect("a claim"));
        claims.waiting.add(&namespace.into(), name);
    }
    for _ in 0..2 {
        let looked = claims.look("a".into()).await.expect("it never fails");
        assert_eq!(looked, Next::Done);
    }
    let path = |name: &str| format!("PUT /api/v1/namespaces/a/persistentvolumeclaims/{name}");
    let wanted = [
        "GET /api/v1/namespaces/a/pods".to_owned(),
        path("one"),
        path("two"),
    ];
    assert_eq!(*asked.lock(), wanted);
    assert_eq!(claims.waiting.take(&"b".into()).len(), 1);
}

#[tokio::test]
async fn claims_are_looked_at_when_their_pod_is_shut_down() {
    let transport = Transport::new(|_, _| std::future::pending());
    let claims = Arc::new(Claims {
        client: transport.client(auth::User::new("test", &[]), "test"),
        cache: Informer::by_hand(),
        pods: Pods::in_cache(Informer::by_hand()),
        waiting: Waiting::default(),
    });
    claims.listen();
    let pod = |version: u32, meta: &str, phase: &str| {
        let text = format!(
            r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u","resourceVersion":"{version}"{meta}}},"spec":{{"nodeName":"n","volumes":[{{"name":"v","ephemeral":{{}}}}]}},"status":{{"phase":"{phase}"}}}}"#
        );
        serde_json::from_str::<Pod>(&text).expect("a pod")
    };
    let ends = |grace: u32| {
        format!(
            r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":{grace}"#
        )
    };
    let mut version = 0;
    let mut wakes = |meta: &str, phase: &str| {
        version += 1;
        claims.pods.cache.put(pod(version, meta, phase));
        !claims.waiting.take(&"n".into()).is_empty()
    };
    assert!(wakes("", "Running"), "new");
    assert!(
        !wakes(r#","labels":{"a":"b"}"#, "Running"),
        "of no interest"
    );
    assert!(!wakes(&ends(30), "Running"), "still held");
    assert!(wakes(&ends(30), "Succeeded"));
    assert!(wakes(&ends(0), "Succeeded"), "its node is done with it");
}

#[test]
fn finalizers_come_and_go() {
    let ends = r#","deletionTimestamp":"2026-01-01T00:00:00Z""#;
    let held = r#","finalizers":["f"]"#;
    let after = |rest: &str, used: bool| {
        protected(&claim(rest), "f", used).map(|new| new.finalizers().len())
    };
    assert_eq!(after("", false), Some(1));
    assert_eq!(after(held, false), None);
    assert_eq!(after(ends, false), None, "too late");
    assert_eq!(after(&format!("{ends}{held}"), false), Some(0));
    assert_eq!(after(&format!("{ends}{held}"), true), None);
}

#[test]
fn claims_are_used_by_pods() {
    let pod = |meta: &str, spec: &str, volume: &str, phase: &str| -> Pod {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"p","uid":"u"{meta}}},"spec":{{"volumes":[{{"name":"v",{volume}}}]{spec}}},"status":{{"phase":"{phase}"}}}}"#
        ))
        .unwrap()
    };
    let placed = r#","nodeName":"n""#;
    let named = r#""persistentVolumeClaim":{"claimName":"p-v"}"#;
    let made = r#""ephemeral":{}"#;
    let shut = r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0"#;
    for (pod, held, referred) in [
        (pod("", placed, named, "Running"), true, true),
        (pod("", placed, named, "Succeeded"), true, false),
        (pod("", "", named, "Pending"), false, true),
        (pod("", placed, made, "Running"), true, true),
        (pod(shut, placed, made, "Running"), false, true),
        (pod(shut, placed, named, "Running"), true, true),
        (pod("", placed, r#""emptyDir":{}"#, "Running"), false, false),
    ] {
        let found = (holds(&pod, &claim("")), refers(&pod, &claim("")));
        assert_eq!(found, (held, referred), "{pod:?}");
    }
    let mut other = pod("", placed, made, "Running");
    other.metadata.uid = Some("other".to_owned());
    assert!(!holds(&other, &claim("")));

    let now = Timestamp::UNIX_EPOCH;
    let said = unused(&claim(""), true, now).unwrap();
    let text = serde_json::to_string(&said).unwrap();
    let again: Claim = serde_json::from_str(&text).unwrap();
    assert_eq!(unused(&again, true, now), None);
    let condition = &unused(&again, false, now)
        .unwrap()
        .status
        .unwrap()
        .conditions
        .unwrap()[0];
    assert_eq!(
        (&*condition.status, condition.reason.as_deref()),
        ("True", Some("NoPodsUsingPVC"))
    );
}
