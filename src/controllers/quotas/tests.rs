use futures::FutureExt as _;
use http_body_util::BodyExt as _;

use super::*;
use crate::auth::User;
use crate::client::Transport;
use crate::client::informer::Informers;

fn quotas(ends: &CancellationToken) -> Quotas {
    let transport = Transport::new(|_, _| std::future::pending());
    let client = transport.client(User::new("test", &[]), "test");
    Quotas {
        cache: Informers::new(client, ends.clone()).of::<Quota>(),
        queue: Queue::new(),
        costs: Mutex::default(),
    }
}

fn quota(name: &str, limits: &str) -> (Key, Arc<Quota>) {
    let text = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"hard":{{{limits}}}}}}}"#);
    let quota = serde_json::from_str(&text).expect("a quota");
    (Key::new("n", name), Arc::new(quota))
}

#[tokio::test(start_paused = true)]
async fn quotas_that_count_a_resource_are_counted_the_later_the_more_that_costs() {
    let ends = CancellationToken::new();
    let quotas = quotas(&ends);
    let pods = Evaluator::for_names(["pods"]);
    let all = vec![
        quota("cheap", r#""pods":"1""#),
        quota("dear", r#""pods":"1""#),
        quota("other", r#""services":"1""#),
    ];
    let second = Duration::from_secs(1);
    quotas.costs.lock().insert(Key::new("n", "dear"), second);
    let begun = Instant::now();
    quotas.add(all, &pods[0], SETTLE);
    let mut counted = Vec::new();
    for _ in 0..2 {
        let key = quotas.queue.next().await;
        quotas.queue.done(&key);
        counted.push((key.name.to_string(), begun.elapsed()));
    }
    assert_eq!(
        counted,
        [
            ("cheap".to_owned(), SETTLE),
            ("dear".to_owned(), second * SETTLE_COSTS)
        ]
    );
    tokio::time::advance(COUNT_ALL).await;
    assert!(quotas.queue.next().now_or_never().is_none());
}

#[tokio::test]
async fn what_can_be_counted_is_even_if_something_else_cannot() {
    let written = Arc::new(Mutex::new(String::new()));
    let noted = written.clone();
    let transport = Transport::new(move |request, _| {
        let noted = noted.clone();
        async move {
            let (head, body) = request.into_parts();
            let (code, answer) = match head.uri.path() {
                "/api/v1/namespaces/n/services" => (
                    500,
                    r#"{"kind":"Status","status":"Failure","message":"broken","reason":"InternalError","code":500}"#,
                ),
                "/api/v1/namespaces/n/pods" => (200, r#"{"items":[{"spec":{}}]}"#),
                _ => {
                    let body = body.collect().await.expect("a body").to_bytes();
                    *noted.lock() = String::from_utf8_lossy(&body).into_owned();
                    (200, r#"{"metadata":{"name":"q"}}"#)
                }
            };
            let mut answer = http::Response::new(http_body_util::Full::from(answer).boxed_unsync());
            *answer.status_mut() = http::StatusCode::from_u16(code).expect("a code");
            answer
        }
    });
    let client = transport.client(User::new("test", &[]), "test");
    let cache = Informer::by_hand();
    let text = r#"{"metadata":{"name":"q","namespace":"n"},"spec":{"hard":{"pods":"9","services":"9"}},"status":{"hard":{"pods":"9"},"used":{"services":"7"}}}"#;
    cache.put(serde_json::from_str(text).expect("a quota"));
    let counted = count(&client, &cache, &Key::new("n", "q")).await;
    let failure = counted.expect_err("services cannot be counted");
    assert!(failure.to_string().contains("broken"), "{failure}");
    let status = json::parse(written.lock().as_bytes())
        .expect("a quota")
        .value;
    let used = Amounts::read(status.at("status").at("used"));
    assert_eq!(
        (
            used.get("pods").to_string(),
            used.get("services").to_string()
        ),
        ("1".to_owned(), "7".to_owned())
    );
}

#[test]
fn a_quota_is_counted_when_its_limits_or_scopes_change() {
    let quota = |scopes: &str, hard: &str, used: &str| {
        let text = format!(
            r#"{{"spec":{{"hard":{{"pods":"{hard}"}},"scopeSelector":{{"matchExpressions":[{{"scopeName":"PriorityClass","operator":"In","values":["{scopes}"]}}]}}}},"status":{{"hard":{{"pods":"1"}},"used":{{{used}}}}}}}"#
        );
        Arc::new(serde_json::from_str::<Quota>(&text).expect("a quota"))
    };
    let used = r#""pods":"1""#;
    let key = Key::new("n", "q");
    let old = quota("a", "1", used);
    for (new, wanted) in [
        (quota("a", "1", r#""pods":"0""#), false),
        (quota("a", "2", used), true),
        (quota("b", "1", used), true),
        (quota("a", "1", ""), true),
    ] {
        let change = Change {
            key: &key,
            old: Some(&old),
            new: Some(&new),
        };
        assert_eq!(is_to_be_counted(&change), wanted, "{new:?}");
    }
}
