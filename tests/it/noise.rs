//! Large amounts of bad input: recorded requests, damaged in many ways, and clients that stop in the middle.

use bytes::Bytes;
use http::Request;
use regex::Regex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::random::Random;
use crate::scenarios;
use crate::server::Server;

/// Damaged requests.
const REQUESTS: u64 = 1000;
/// Messages that upstream, too, returns with 500.
const AS_UPSTREAM: &[&str] = &[
    "failed to create typed patch object",
    "failed to convert new object",
    "resourceVersion: Invalid value",
    "target.kind: Unsupported value",
    "target.name: Required value",
    "target.name: Invalid value",
    "resourceVersion should not be set on objects to be created",
    "strconv.ParseUint: parsing",
    // Recorded: errors for paths of old forms that end too early.
    "failed to create RequestInfo",
];
/// The server's maximum peak memory, in KiB. Idle it has about 60 MiB.
const MEMORY: u64 = 1 << 20;

const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/cbor",
    "nonsense/",
];

const QUERIES: &[&str] = &[
    "limit=-1",
    "limit=99999999999999999999",
    "continue=bm9uc2Vuc2U",
    "resourceVersion=abc",
    "resourceVersion=99999999999999999999&resourceVersionMatch=Exact",
    "labelSelector=a%20in%20((b",
    "labelSelector=%00",
    "fieldSelector=a%3Db%3Dc%2C%2C",
    "fieldManager=%FF%FE",
    "dryRun=Some",
    "fieldValidation=Perhaps",
    "force=maybe&fieldManager=a",
    "gracePeriodSeconds=-9223372036854775809",
    "pretty=1&timeout=1x&propagationPolicy=Sideways",
];

/// Unexpected values.
fn values() -> Vec<String> {
    let deep = |open: &str, close: &str, depth| open.repeat(depth) + "1" + &close.repeat(depth);
    let mut values: Vec<String> = [
        "null",
        "true",
        "-1",
        "0",
        "-0.0",
        "1e999",
        "99999999999999999999",
        "0.1",
        "\"\"",
        "[]",
        "{}",
        "[null]",
        "{\"\":null}",
        r#""\u0000""#,
        r#""\ud800""#,
        "\"1Ei\"",
        "\"9999999999999999999999999m\"",
        "\"%s%n\"",
        "\"9999-99-99T99:99:99Z\"",
        "\"../..\"",
        "{\"$patch\":\"delete\"}",
        "[{\"$patch\":\"replace\"}]",
        "{\"$setElementOrder/a\":[1]}",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push(format!("\"{}\"", "a".repeat(20_000)));
    values.push(format!("[{}]", vec!["{}"; 20_000].join(",")));
    values.push(deep("[", "]", 12_000));
    values.push(deep("{\"a\":", "}", 12_000));
    values.push(deep("{\"a\":", "}", 9_000));
    values
}

/// A damaged body.
fn damage(random: &mut Random, body: &str, tokens: &Regex, values: &[String]) -> Vec<u8> {
    let mut bytes = body.as_bytes().to_vec();
    let spans: Vec<_> = tokens.find_iter(body).map(|found| found.range()).collect();
    match random.below(8) {
        0 if !bytes.is_empty() => {
            let at = random.index(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        1 => bytes.truncate(random.index(bytes.len() + 1)),
        2 => bytes = random.one_of(values).clone().into_bytes(),
        3 => bytes.extend_from_slice(body.as_bytes()),
        _ if !spans.is_empty() => {
            for _ in 0..=random.below(2) {
                let span = random.one_of(&spans).clone();
                if bytes.len() == body.len() {
                    bytes.splice(span, random.one_of(values).bytes());
                }
            }
        }
        _ => {}
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_a_server_fail() {
    let mut server = Server::in_memory(&["--controllers=-*"]);
    let tokens = Regex::new(r#""[^"]*"|-?\d+|true|false|null|\{\}|\[\]"#).expect("an expression");
    let values = values();
    let asked: Vec<_> = scenarios::requests()
        .into_iter()
        .filter(|request| !request.path.contains("watch"))
        .collect();
    let login = server.admin();
    let mut connection = login.connection();
    let mut failures = Vec::new();
    for seed in 0..REQUESTS {
        let mut random = Random(seed);
        let request = random.one_of(&asked);
        let mut path = request.path.clone();
        if random.below(4) == 0 {
            path += if path.contains('?') { "&" } else { "?" };
            path += random.one_of::<&str>(QUERIES);
        }
        let body = Bytes::from(damage(&mut random, &request.body, &tokens, &values));
        let content = match random.below(6) {
            0 => *random.one_of(CONTENT_TYPES),
            _ => request.content_type.as_str(),
        };
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let about = format!("seed {seed}: {} {path} {content} {shown}", request.method);
        let mut attempts = 0;
        let answer = loop {
            let sent = Request::builder()
                .method(request.method.as_str())
                .uri(&path)
                .header("content-type", content)
                .body(body.clone());
            // A malformed request cannot be sent.
            let Ok(sent) = sent else { break None };
            attempts += 1;
            match connection.ask(sent).await {
                Ok(answer) => break Some(answer),
                // The server closes a connection after responding without reading the whole body.
                Err(_) if attempts < 3 => {}
                Err(error) => {
                    failures.push(format!("{about}\n    {error}"));
                    break None;
                }
            }
        };
        if let Some(answer) = answer.filter(|answer| answer.status == 500) {
            let text = String::from_utf8_lossy(&answer.body);
            if !AS_UPSTREAM.iter().any(|known| text.contains(known)) {
                failures.push(format!("{about}\n    {text}"));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(server.is_running());
    if let Some(peak) = server.peak_memory() {
        assert!(peak < MEMORY, "{peak} KiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_in_the_middle_is_cut_off() {
    let server = Server::in_memory(&["--controllers=-*"]);
    let login = server.admin();
    let mut silent = tokio::net::TcpStream::connect(login.address())
        .await
        .expect("a connection");
    let mut slow = login.stream().await.expect("a connection");
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .expect("written");
    let mut rest = Vec::new();
    let cut = async {
        let _ = silent.read_to_end(&mut rest).await;
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
    };
    // Upstream's 32 seconds; only their end is asserted.
    tokio::time::timeout(std::time::Duration::from_secs(100), cut)
        .await
        .expect("they are cut off");
    let request = Request::get("/livez")
        .body(Bytes::new())
        .expect("a request");
    assert_eq!(
        login
            .connection()
            .ask(request)
            .await
            .expect("an answer")
            .status,
        200
    );
}

#[tokio::test]
async fn paths_and_time_limits_are_looked_at_before_credentials() {
    let server = Server::in_memory(&["--controllers=-*"]);
    let mut nobody = server.bearer("nobody").connection();
    for (path, status) in [
        ("/api/v1/watch", 500),
        ("/api/v1/pods?timeout=x", 400),
        ("/api/v1/pods?timeout=1ns", 504),
        ("/api/v1/pods?timeout=1m", 401),
    ] {
        let request = Request::get(path).body(Bytes::new()).expect("a request");
        let answer = nobody.ask(request).await.expect("an answer");
        assert_eq!(answer.status, status, "{path}");
    }
}
