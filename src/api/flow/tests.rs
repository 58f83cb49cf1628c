use http::Method;

use super::*;
use crate::auth::{AUTHENTICATED, MASTERS};
use crate::schema::json;

/// How long each waits at most.
const PATIENCE: Duration = Duration::from_secs(15);

fn object(text: &str) -> Arc<Value> {
    Arc::new(json::parse(text.as_bytes()).expect("JSON").value)
}

/// One seat and two queues for all requests about pods; each user is a flow.
fn narrow() -> Flow {
    let flow = Flow::new(Limits {
        fair: true,
        reading: 1,
        changing: 0,
    });
    let level = object(
        r#"{"metadata":{"name":"narrow","uid":"1"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":1,"borrowingLimitPercent":0,
        "limitResponse":{"type":"Queue","queuing":{"queues":2,"handSize":1,"queueLengthLimit":1}}}}}"#,
    );
    let schema = object(
        r#"{"metadata":{"name":"pods","uid":"2"},"spec":{"matchingPrecedence":50,"priorityLevelConfiguration":{"name":"narrow"},
        "distinguisherMethod":{"type":"ByUser"},"rules":[{"subjects":[{"kind":"Group","group":{"name":"system:authenticated"}}],
        "resourceRules":[{"verbs":["*"],"apiGroups":[""],"resources":["pods"],"namespaces":["*"],"clusterScope":true}]}]}}"#,
    );
    flow.digest(&[level], &[schema]);
    flow
}

fn info(path: &str) -> Arc<Info> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Arc::new(Info::of(&Method::GET, path, &Query::parse(query)))
}

async fn enter(flow: &Flow, user: &str, groups: &[&str], path: &str) -> Entry {
    let user = User::new(user, groups);
    flow.enter(&user, &info(path), PATIENCE, |_| Width::ONE)
        .await
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_too_long_is_refused_and_others_are_let_in_in_turn() {
    let flow = narrow();
    let pods = "/api/v1/pods";
    let ask = || enter(&flow, "jane", &[AUTHENTICATED], pods);
    let first = ask().await;
    let uids = first.uids.as_ref().expect("a schema");
    assert_eq!(
        (&uids.schema, &uids.level),
        (&"2".parse().unwrap(), &"1".parse().unwrap())
    );
    let begun = Instant::now();
    let late = ask().await;
    assert_eq!((late.seats.err(), begun.elapsed()), (Some(1), PATIENCE));
    assert!(late.uids.is_some());
    // One waits, another finds the queue full, and the waiting one is dispatched when the first is answered.
    let waits = tokio::spawn({
        let flow = flow.clone();
        async move { enter(&flow, "jane", &[AUTHENTICATED], pods).await }
    });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    assert!(ask().await.seats.is_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(first);
    let second = waits.await.expect("no panic");
    assert!(second.seats.is_ok());
    // A request whose client has gone leaves the queue.
    let gone = tokio::time::timeout(Duration::from_secs(1), ask()).await;
    assert!(gone.is_err());
    drop(second);
    assert!(ask().await.seats.is_ok());
    let text = flow.dump("dump_priority_levels", false).expect("a dump");
    let row = text
        .lines()
        .find(|line| line.starts_with("narrow,"))
        .expect("a row");
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    assert_eq!(
        cells,
        ["narrow", "0", "true", "false", "0", "0", "3", "3", "0", "2"]
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_up_administrators_or_what_is_not_counted() {
    let flow = narrow();
    let first = enter(&flow, "jane", &[AUTHENTICATED], "/api/v1/pods").await;
    for (groups, path, told) in [
        (&[MASTERS][..], "/api/v1/pods", true),
        (&[AUTHENTICATED], "/api/v1/namespaces/a/pods/p/log", false),
        (&[AUTHENTICATED], "/api/v1/proxy/nodes/n", false),
        (&[AUTHENTICATED], "/debug/pprof/heap", false),
    ] {
        let begun = Instant::now();
        let entry = enter(&flow, "jane", groups, path).await;
        assert!(entry.seats.is_ok() && begun.elapsed().is_zero(), "{path}");
        assert_eq!(entry.uids.is_some(), told, "{path}");
    }
    // A watch waits for its seats like other requests.
    let watch = "/api/v1/pods?watch=1";
    let late = enter(&flow, "jane", &[AUTHENTICATED], watch).await;
    assert!(late.seats.is_err() && late.uids.is_some());
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn what_lingers_gives_its_seats_back_later() {
    let flow = narrow();
    let user = User::new("jane", &[AUTHENTICATED]);
    let pods = info("/api/v1/pods");
    let write = flow
        .enter(&user, &pods, PATIENCE, |_| Width::write(10, 1))
        .await;
    drop(write);
    let begun = Instant::now();
    assert!(
        enter(&flow, "jane", &[AUTHENTICATED], "/api/v1/pods")
            .await
            .seats
            .is_ok()
    );
    assert!(begun.elapsed() >= Duration::from_millis(5) && begun.elapsed() < PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn without_levels_only_the_number_counts() {
    let flow = Flow::new(Limits {
        fair: false,
        reading: 1,
        changing: 1,
    });
    let first = enter(&flow, "jane", &[AUTHENTICATED], "/api/v1/pods").await;
    assert!(first.seats.is_ok() && first.uids.is_none());
    let second = enter(&flow, "jane", &[AUTHENTICATED], "/version").await;
    assert_eq!(second.seats.err(), Some(1));
    assert!(flow.dump("dump_queues", false).is_none());
}

#[tokio::test(start_paused = true)]
async fn dumps_show_who_asks_for_what() {
    let flow = narrow();
    let running = enter(
        &flow,
        "jane",
        &[AUTHENTICATED],
        "/api/v1/namespaces/a/pods/p",
    )
    .await;
    let text = flow.dump("dump_requests", true).expect("a dump");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split(',').map(str::trim).collect())
        .collect();
    let [heads, request] = &rows[..] else {
        panic!("{text}");
    };
    assert_eq!((heads.len(), request.len()), (18, 18));
    assert_eq!(request[..2], ["narrow", "pods"]);
    assert_eq!(request[3..5], ["-1", "jane"]);
    assert_eq!(request[6..9], ["1", "0", "0s"]);
    assert_eq!(
        request[10..],
        [
            "jane",
            "get",
            "/api/v1/namespaces/a/pods/p",
            "a",
            "p",
            "v1",
            "pods",
            ""
        ]
    );
    let queues = flow.dump("dump_queues", false).expect("a dump");
    let running_in: usize = queues
        .lines()
        .filter(|line| line.starts_with("narrow,"))
        .filter_map(|line| line.split(',').nth(3)?.trim().parse::<usize>().ok())
        .sum();
    assert_eq!(running_in, 1);
    assert!(flow.dump("dump_nothing", false).is_none());
    drop(running);
}
