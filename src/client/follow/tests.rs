//! Tests with a scripted server: each request gets the next response, and requests are recorded.

use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::source::LASTS;
use super::text::{Kind, parts};
use super::*;
use crate::auth::User;
use crate::client::Transport;

/// A server's responses, in order.
struct Script {
    asked: Arc<Mutex<Vec<String>>>,
    api: Api<ConfigMap>,
    /// Notified when there is a request beyond the script.
    over: Arc<Notify>,
}

/// The end of a response that stays open.
const STAYS: &str = "stays open";

fn script(answers: &[(u16, &str)]) -> Script {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut answers: VecDeque<(u16, String)> = answers
        .iter()
        .map(|(code, body)| (*code, (*body).to_owned()))
        .collect();
    let (noted, over) = (asked.clone(), Arc::new(Notify::new()));
    let ends = over.clone();
    let answers = Mutex::new(std::mem::take(&mut answers));
    let transport = Transport::new(move |request, _| {
        noted
            .lock()
            .push(request.uri().query().unwrap_or_default().to_owned());
        let answer = answers.lock().pop_front();
        let ends = ends.clone();
        async move {
            let Some((code, body)) = answer else {
                ends.notify_one();
                return std::future::pending().await;
            };
            let begun = body.trim_end_matches(STAYS).to_owned();
            let stays = body.len() > begun.len();
            let begun = stream::iter([Ok(Frame::data(begun.into()))]);
            let body = match stays {
                true => StreamBody::new(begun.chain(stream::pending())).boxed_unsync(),
                false => StreamBody::new(begun).boxed_unsync(),
            };
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(code).expect("a status code");
            response
        }
    });
    Script {
        asked,
        over,
        api: Api::namespaced(transport.client(User::new("test", &[]), "test"), "a"),
    }
}

/// A line of a watch about the object `name`.
fn line(kind: &str, name: &str, version: u32) -> String {
    format!(
        "{{\"type\":\"{kind}\",\"object\":{{\"metadata\":{{\"name\":\"{name}\",\"resourceVersion\":\"{version}\"}}}}}}\n"
    )
}

fn complete(version: u32) -> String {
    format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{version}\",\
         \"annotations\":{{\"k8s.io/initial-events-end\":\"true\"}}}}}}}}\n"
    )
}

/// The events until the script is over, as text.
async fn told(script: &Script, fields: &str) -> Vec<String> {
    let mut events = follow(script.api.clone(), fields);
    let mut told = Vec::new();
    let name = |object: ConfigMap| object.metadata.name.unwrap_or_default();
    loop {
        let event = tokio::select! {
            event = events.next() => event.expect("it goes on for ever"),
            () = script.over.notified() => return told,
        };
        told.push(match event {
            Ok(Event::Listing) => "listing".to_owned(),
            Ok(Event::Listed(object)) => format!("listed {}", name(object)),
            Ok(Event::Complete(version)) => format!("complete {version}"),
            Ok(Event::UpTo(version)) => format!("up to {version}"),
            Ok(Event::Applied(object)) => format!("applied {}", name(object)),
            Ok(Event::Deleted(object)) => format!("deleted {}", name(object)),
            Err(broken) => format!("broken: {broken}"),
        });
    }
}

fn asked(script: &Script) -> Vec<String> {
    let asked = script.asked.lock();
    let timeout = format!("&timeoutSeconds={LASTS}");
    asked
        .iter()
        .map(|query| query.trim_start_matches('&').replace(&timeout, ""))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let first = [
        line("ADDED", "one", 3),
        complete(5),
        line("MODIFIED", "one", 7),
        line("DELETED", "one", 8),
    ]
    .concat();
    let second = [
        line("ADDED", "two", 9),
        "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"20\"}}}\n"
            .to_owned(),
    ]
    .concat();
    let script = script(&[(200, &first), (200, &second)]);
    assert_eq!(
        told(&script, "metadata.name!=x").await,
        [
            "listing",
            "listed one",
            "complete 5",
            "applied one",
            "deleted one",
            "applied two",
            "up to 20"
        ]
    );
    let asked = asked(&script);
    assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(
        asked[0].contains("fieldSelector=metadata.name%21%3Dx"),
        "{asked:?}"
    );
    assert!(asked[1].contains("resourceVersion=8"), "{asked:?}");
    assert!(!asked[1].contains("sendInitialEvents"), "{asked:?}");
    assert!(asked[2].contains("resourceVersion=20"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_listed_anew() {
    const GONE: &str =
        r#"{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}"#;
    let ended = format!("{{\"type\":\"ERROR\",\"object\":{GONE}}}\n");
    for (code, answer) in [(200, ended.as_str()), (410, GONE)] {
        let first = [complete(5), line("ADDED", "one", 6)].concat();
        let again = [line("ADDED", "one", 6), complete(9)].concat();
        let script = script(&[(200, &first), (code, answer), (200, &again)]);
        let told = told(&script, "").await;
        assert_eq!(told[..3], ["listing", "complete 5", "applied one"]);
        assert!(told[3].starts_with("broken: "), "{told:?}");
        assert_eq!(told[4..], ["listing", "listed one", "complete 9"]);
        assert!(asked(&script)[2].contains("sendInitialEvents=true"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_stream_lists_is_asked_for_pages() {
    const REFUSED: &str = r#"{"kind":"Status","status":"Failure","message":"sendInitialEvents: Forbidden","reason":"Invalid","code":422}"#;
    let item = |name| format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}");
    let page = |next: &str, name| {
        format!(
            "{{\"metadata\":{{\"resourceVersion\":\"7\",\"continue\":\"{next}\"}},\"items\":[{}]}}",
            item(name)
        )
    };
    let script = script(&[
        (422, REFUSED),
        (200, &page("t", "one")),
        (200, &page("", "two")),
    ]);
    let told = told(&script, "").await;
    assert!(told[0].starts_with("broken: "), "{told:?}");
    assert_eq!(
        told[1..],
        ["listing", "listed one", "listed two", "complete 7"]
    );
    let asked = asked(&script);
    assert_eq!(asked[1], "limit=500");
    assert_eq!(asked[2], "limit=500&continue=t");
    assert!(
        asked[3].contains("watch=true") && asked[3].contains("resourceVersion=7"),
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_left_out_and_a_watch_that_breaks_at_once_is_not_hurried() {
    let odd = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":1}}}\n";
    let first = [complete(5), odd.to_owned(), line("ADDED", "one", 6)].concat();
    let script = script(&[(200, &first), (200, ""), (500, "no"), (200, "{\"type\"")]);
    let begun = Instant::now();
    let told = told(&script, "").await;
    assert_eq!(told[..2], ["listing", "complete 5"]);
    assert!(
        told[2].starts_with("broken: what was told cannot be read"),
        "{told:?}"
    );
    assert_eq!(told[3], "applied one");
    assert!(told[4].contains("ended at once"), "{told:?}");
    assert_eq!(told[4..].len(), 3, "{told:?}");
    assert!(
        asked(&script)[1..]
            .iter()
            .all(|query| query.contains("resourceVersion=6"))
    );
    assert!(begun.elapsed() > Pauses::FIRST * 7);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_which_something_cannot_be_read_is_never_whole() {
    let odd = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":1}}}\n";
    let first = [odd.to_owned(), complete(5), STAYS.to_owned()].concat();
    let second = [complete(5), STAYS.to_owned()].concat();
    let script = script(&[(200, &first), (200, &second)]);
    let told = told(&script, "").await;
    assert_eq!(told[0], "listing");
    assert!(
        told[1].starts_with("broken: what was told cannot be read"),
        "{told:?}"
    );
    assert_eq!(told[2..4], ["listing", "complete 5"], "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_asked_again() {
    let first = [complete(5), line("ADDED", "one", 6), STAYS.to_owned()].concat();
    let second = [line("ADDED", "two", 7), STAYS.to_owned()].concat();
    let script = script(&[(200, &first), (200, &second)]);
    let begun = Instant::now();
    let told = told(&script, "").await;
    let silent = "broken: the server says nothing any more";
    assert_eq!(told[..4], ["listing", "complete 5", "applied one", silent]);
    assert_eq!(told[4..], ["applied two", silent]);
    assert!(asked(&script)[1].contains("resourceVersion=6"));
    assert!(begun.elapsed() > Duration::from_secs(u64::from(LASTS) * 2));
}

#[test]
fn pauses_grow_and_begin_anew_after_a_good_while() {
    let mut pauses = Pauses::default();
    let begun = Instant::now();
    let mut now = begun;
    for millis in [800, 1600, 3200, 6400, 12800, 25600, 30000, 30000] {
        assert_eq!(pauses.next(now, 0.0), Duration::from_millis(millis));
        now += Duration::from_secs(60);
    }
    now += Pauses::GOOD_WHILE;
    assert_eq!(pauses.next(now, 1.0), Pauses::FIRST * 2);
}

#[tokio::test]
async fn a_record_hears_of_changes_and_of_what_a_list_lacks() {
    let object = |name: &str, version: &str| ConfigMap {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: Some(version.to_owned()),
            ..Default::default()
        },
        ..ConfigMap::default()
    };
    let name = |object: &ConfigMap| object.metadata.name.clone().unwrap_or_default();
    let events = [
        Ok(Event::Listing),
        Ok(Event::Listed(object("lost", "9"))),
        Err(Broken::Incomplete),
        Ok(Event::Listing),
        Ok(Event::Listed(object("one", "3"))),
        Ok(Event::Listed(object("two", "2"))),
        Ok(Event::Complete("12".to_owned())),
        Ok(Event::Applied(object("one", "13"))),
        Ok(Event::UpTo("20".to_owned())),
        Ok(Event::Deleted(object("one", "21"))),
        Ok(Event::UpTo("none".to_owned())),
    ];
    let mut heard = Vec::new();
    record("ConfigMap", stream::iter(events), name, |told| {
        heard.push(match told {
            Told::There(object) => format!("there {}", name(&object)),
            Told::Gone(object) => format!("gone {}", name(&object)),
            Told::Only(all) => {
                let mut all: Vec<String> = all.into_iter().collect();
                all.sort_unstable();
                format!("only {}", all.join(" "))
            }
            Told::UpTo(version) => format!("up to {version}"),
        });
    })
    .await;
    assert_eq!(
        heard,
        [
            "there lost",
            "there one",
            "there two",
            "only one two",
            "up to 12",
            "there one",
            "up to 13",
            "up to 20",
            "gone one",
            "up to 21",
            "up to 0"
        ]
    );
}

#[test]
fn an_object_is_found_in_a_line_however_it_is_written() {
    let object = r#"{"metadata":{"name":"type\",\"object\":"}}"#;
    for (line, kind) in [
        (
            format!(r#"{{"type":"ADDED","object":{object}}}"#),
            Kind::Added,
        ),
        (
            format!(r#"{{"type":"ERROR","object":{object}}}"#),
            Kind::Error,
        ),
        (
            format!(r#"{{ "type": "DELETED", "object": {object} }}"#),
            Kind::Deleted,
        ),
        (
            format!(r#"{{"object":{object},"type":"BOOKMARK"}}"#),
            Kind::Bookmark,
        ),
        (
            format!("{{\"type\":\"MODIFIED\",\"object\":{object}\r}}"),
            Kind::Modified,
        ),
    ] {
        let (found, at) = parts(&line).expect("a line");
        assert_eq!((found, &line[at]), (kind, object), "{line}");
    }
    for line in [
        r#"{"type":"NEWS","object":{}}"#,
        r#"{"type":"ADDED"}"#,
        "{}",
        "",
    ] {
        assert!(parts(line).is_err(), "{line}");
    }
}
