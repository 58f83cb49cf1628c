//! Priority levels of a running server: requests of a full level are rejected, while those of others are served.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::Server;
use crate::wire::{Answer, Connection};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// A user of the level, with a group that may write.
const USER: [(&str, &str); 2] = [
    ("Impersonate-User", "jane"),
    ("Impersonate-Group", "writers"),
];

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Bytes> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .expect("a request")
}

async fn make(connection: &mut Connection, path: &str, body: &str) -> serde_json::Value {
    let answer = connection
        .ask(request("POST", path, &[], body))
        .await
        .expect("an answer");
    assert_eq!(answer.status, 201, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Repeats a request until the response is the wanted one.
async fn until(
    connection: &mut Connection,
    ask: impl Fn() -> Request<Bytes>,
    wanted: impl Fn(&Answer) -> bool,
) -> Answer {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let answer = connection.ask(ask()).await.expect("an answer");
        if wanted(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < end, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A level without queues and with one seat, which is taken by a client that sends only half of a body.
#[tokio::test]
async fn a_level_that_is_full_refuses_and_others_are_answered() {
    let server = Server::in_memory(&[
        "--max-requests-inflight=40",
        "--max-mutating-requests-inflight=20",
    ]);
    let mut admin = server.admin().connection();
    // Not one of the roles whose rules are aggregated while the server begins.
    make(
        &mut admin,
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        r#"{"metadata":{"name":"writers"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["*"]}]}"#,
    )
    .await;
    make(
        &mut admin,
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        r#"{"metadata":{"name":"writers"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"writers"},
        "subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"writers"}]}"#,
    )
    .await;
    // Its share of 60 seats is rounded up to one, and it borrows nothing.
    let level = make(
        &mut admin,
        &format!("{GROUP}/prioritylevelconfigurations"),
        r#"{"metadata":{"name":"narrow"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":1,"borrowingLimitPercent":0,
        "limitResponse":{"type":"Reject"}}}}"#,
    )
    .await;
    let schema = make(
        &mut admin,
        &format!("{GROUP}/flowschemas"),
        r#"{"metadata":{"name":"narrow"},"spec":{"matchingPrecedence":50,"priorityLevelConfiguration":{"name":"narrow"},
        "rules":[{"subjects":[{"kind":"User","user":{"name":"jane"}}],
        "resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"namespaces":["*"],"clusterScope":true}]}]}}"#,
    )
    .await;
    let uid = |object: &serde_json::Value| object["metadata"]["uid"].as_str().map(str::to_owned);
    let told = |answer: &Answer, name: &str| {
        let value = answer.headers.get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let mut jane = server.admin().connection();
    let list = || request("GET", MAPS, &USER, "");
    let answer = until(&mut jane, list, |answer| {
        answer.status == 200 && told(answer, "x-kubernetes-pf-flowschema-uid") == uid(&schema)
    })
    .await;
    assert_eq!(
        told(&answer, "x-kubernetes-pf-prioritylevel-uid"),
        uid(&level)
    );

    let mut holds = server.admin().stream().await.expect("a connection");
    let body = r#"{"metadata":{"name":"slow"}}"#;
    let (first, rest) = body.split_at(10);
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: {}\r\nImpersonate-User: jane\r\nImpersonate-Group: writers\r\n\
        Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{first}",
        server.admin().address(),
        body.len()
    );
    holds
        .write_all(head.as_bytes())
        .await
        .expect("half a request");
    let refused = until(&mut jane, list, |answer| answer.status == 429).await;
    assert_eq!(refused.body, "Too many requests, please try again later.\n");
    assert_eq!(
        told(&refused, "content-type").as_deref(),
        Some("text/plain; charset=utf-8")
    );
    let after = told(&refused, "retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(after.is_some_and(|seconds| seconds >= 1), "{refused:?}");
    assert_eq!(
        told(&refused, "x-kubernetes-pf-flowschema-uid"),
        uid(&schema)
    );
    // A watch is rejected like a list.
    let watch = jane
        .ask(request("GET", &format!("{MAPS}?watch=1"), &USER, ""))
        .await;
    assert_eq!(watch.expect("an answer").status, 429);
    // Another user belongs to another level, and administrators are always served.
    let other = [
        ("Impersonate-User", "joe"),
        ("Impersonate-Group", "writers"),
    ];
    for headers in [&other[..], &[]] {
        let answer = jane
            .ask(request("GET", MAPS, headers, ""))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let metrics = admin
        .ask(request("GET", "/metrics", &[], ""))
        .await
        .expect("an answer");
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in [
        r#"apiserver_flowcontrol_current_executing_requests{flow_schema="narrow",priority_level="narrow"} 1"#,
        r#"apiserver_flowcontrol_nominal_limit_seats{priority_level="narrow"} 1"#,
        r#"apiserver_flowcontrol_rejected_requests_total{flow_schema="narrow",priority_level="narrow",reason="concurrency-limit"} "#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let path = "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1";
    let dump = admin
        .ask(request("GET", path, &[], ""))
        .await
        .expect("an answer");
    let text = String::from_utf8_lossy(&dump.body).into_owned();
    let row = text
        .lines()
        .find(|line| line.starts_with("narrow,"))
        .expect("the request");
    assert!(row.contains("jane,") && row.contains("create,"), "{row}");

    holds.write_all(rest.as_bytes()).await.expect("the rest");
    let mut answer = Vec::new();
    // The connection was answered, even if it is closed without a TLS alert.
    let _ = holds.read_to_end(&mut answer).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 201 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let answer = until(&mut jane, list, |answer| answer.status == 200).await;
    assert_eq!(
        told(&answer, "x-kubernetes-pf-flowschema-uid"),
        uid(&schema)
    );
}

#[tokio::test]
async fn without_priority_and_fairness_answers_name_no_schema() {
    let server = Server::in_memory(&["--enable-priority-and-fairness=false"]);
    let mut admin = server.admin().connection();
    let answer = admin
        .ask(request("GET", MAPS, &[], ""))
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(
        !answer
            .headers
            .contains_key("x-kubernetes-pf-flowschema-uid")
    );
    let path = "/debug/api_priority_and_fairness/dump_queues";
    let answer = admin
        .ask(request("GET", path, &[], ""))
        .await
        .expect("an answer");
    assert_eq!(answer.status, 404);
}
