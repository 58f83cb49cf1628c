//! Watches under load, resumed at random, while the server is killed and restarted: every watcher must see every change
//! once and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::random::Random;
use crate::server::Server;
use crate::wire::{Connection, Login};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: u64 = 3;
const WATCHERS: u64 = 4;
/// Writes per writer.
const WRITES: usize = 120;
/// How often the server is killed during the writes.
const KILLS: usize = 3;

/// A change of a key: its value, or None after a deletion.
type Change = Option<String>;

/// A client of the current server.
struct Client {
    login: watch::Receiver<Login>,
    connection: Connection,
}

impl Client {
    fn new(login: &watch::Receiver<Login>) -> Self {
        let connection = login.borrow().connection();
        Client {
            login: login.clone(),
            connection,
        }
    }

    /// Sends a request; None if the server went away, in which case it is unknown whether the request was carried out.
    async fn ask(&mut self, method: Method, path: &str, body: &Value) -> Option<(u16, Value)> {
        let body = if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        match self.connection.ask(request).await {
            Ok(answer) => Some((answer.status, serde_json::from_slice(&answer.body).ok()?)),
            Err(_) => {
                // If repeated too early, it would fail again.
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.connection = self.login.borrow_and_update().connection();
                None
            }
        }
    }

    /// Repeats a read until there is a response.
    async fn get(&mut self, path: &str) -> (u16, Value) {
        loop {
            if let Some(answer) = self.ask(Method::GET, path, &Value::Null).await {
                return answer;
            }
        }
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no revision: {object}"))
}

fn named(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"load": ""}},
        "data": {"v": value}})
}

/// Writes objects of its own; returns the changes of each in order, with the revision if a response contained it.
async fn write(
    number: u64,
    login: watch::Receiver<Login>,
    written: watch::Sender<usize>,
) -> BTreeMap<String, Vec<(Change, Option<u64>)>> {
    let mut random = Random(number + 1);
    let mut client = Client::new(&login);
    let mut log: BTreeMap<String, Vec<(Change, Option<u64>)>> = BTreeMap::new();
    for turn in 0..WRITES {
        let name = format!("w{number}-{}", random.below(4));
        let path = format!("{MAPS}/{name}");
        let value = format!("{number}-{turn}");
        let there = log
            .get(&name)
            .and_then(|log| log.last())
            .is_some_and(|(last, _)| last.is_some());
        let deletes = there && random.below(3) == 0;
        let body = named(&name, &value);
        let answer = match (there, deletes) {
            (false, _) => client.ask(Method::POST, MAPS, &body).await,
            (true, false) => client.ask(Method::PUT, &path, &body).await,
            (true, true) => client.ask(Method::DELETE, &path, &Value::Null).await,
        };
        let change = (!deletes).then_some(value);
        match answer {
            Some((200 | 201, object)) => {
                let rev = (!deletes).then(|| revision(&object));
                log.entry(name).or_default().push((change, rev));
            }
            Some((status, refusal)) => panic!("{path}: {status} {refusal}"),
            None => {
                // The whole change was made, or nothing.
                let (status, object) = client.get(&path).await;
                let now = (status == 200)
                    .then(|| object["data"]["v"].as_str().unwrap_or_default().to_owned());
                if now == change {
                    log.entry(name).or_default().push((change, None));
                } else {
                    let before = log
                        .get(&name)
                        .and_then(|log| log.last())
                        .and_then(|(last, _)| last.clone());
                    assert_eq!(
                        now, before,
                        "{name}: neither what it was nor what it was to be"
                    );
                }
            }
        }
        written.send_modify(|count| *count += 1);
    }
    log
}

/// An event as a watcher received it.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Told {
    kind: String,
    name: String,
    value: String,
    rev: u64,
}

/// Watches from `after` on until it receives `end`, stopping and resuming at random.
async fn watch_all(number: u64, login: watch::Receiver<Login>, mut after: u64) -> Vec<Told> {
    let mut random = Random(number + 100);
    let mut told: Vec<Told> = Vec::new();
    loop {
        let bookmarks = random.below(2) == 0;
        let path = format!(
            "{MAPS}?watch=true&labelSelector=load&allowWatchBookmarks={bookmarks}&resourceVersion={after}"
        );
        let request = Request::get(path).body(Bytes::new()).expect("a request");
        let current = login.borrow().clone();
        let Ok(answer) = current.send(request).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        let mut rest = Vec::new();
        let mut left = 1 + random.below(60);
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while left > 0
                && let Some(end) = rest.iter().position(|byte| *byte == b'\n')
            {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event a line");
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                let object = &event["object"];
                assert_ne!(kind, "ERROR", "{event}");
                let rev = revision(object);
                if kind == "BOOKMARK" {
                    assert!(rev >= after, "a bookmark at {rev} after {after}");
                    after = rev;
                    continue;
                }
                assert!(rev > after, "watcher {number} was at {after}: {event}");
                after = rev;
                left -= 1;
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let name = text(&object["metadata"]["name"]);
                let value = text(&object["data"]["v"]);
                let last = name == "end";
                told.push(Told {
                    kind,
                    name,
                    value,
                    rev,
                });
                if last {
                    return told;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_is_told_every_change_once_over_kills_of_the_server() {
    let arguments = ["--controllers=-*"];
    let mut server = Server::start(tempfile::tempdir().expect("a directory"), &arguments);
    let (logins, login) = watch::channel(server.admin());
    let mut client = Client::new(&login);
    let begin = revision(&client.get(MAPS).await.1);
    let (written, mut progress) = watch::channel(0);
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(write(number, login.clone(), written.clone())))
        .collect();
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|number| tokio::spawn(watch_all(number, login.clone(), begin)))
        .collect();
    drop(written);
    let all = WRITES * usize::try_from(WRITERS).expect("a count");
    for kill in 1..=KILLS {
        let due = all * kill / (KILLS + 1);
        if progress.wait_for(|count| *count >= due).await.is_err() {
            break;
        }
        server = Server::start(server.kill(), &arguments);
        logins.send(server.admin()).expect("listeners");
    }
    let mut log = BTreeMap::new();
    for writer in writers {
        log.extend(writer.await.expect("a writer"));
    }
    while client
        .ask(Method::POST, MAPS, &named("end", ""))
        .await
        .is_none()
    {}
    let mut streams = Vec::new();
    for watcher in watchers {
        let stream = tokio::time::timeout(Duration::from_secs(60), watcher).await;
        streams.push(
            stream
                .expect("a watcher is told the end")
                .expect("a watcher"),
        );
    }
    for stream in &streams[1..] {
        assert_eq!(
            stream, &streams[0],
            "two watchers were told different things"
        );
    }
    let mut keys: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for told in &streams[0] {
        keys.entry(&told.name).or_default().push(told);
    }
    keys.remove("end");
    let names: Vec<&str> = log.keys().map(String::as_str).collect();
    assert_eq!(keys.keys().copied().collect::<Vec<_>>(), names);
    for (name, told) in keys {
        let done = &log[name];
        assert_eq!(told.len(), done.len(), "{name}: {told:?} for {done:?}");
        let mut there = false;
        for (told, (change, rev)) in told.into_iter().zip(done) {
            let kind = match (there, change) {
                (false, _) => "ADDED",
                (true, Some(_)) => "MODIFIED",
                (true, None) => "DELETED",
            };
            assert_eq!(told.kind, kind, "{name}: {told:?}");
            if let Some(value) = change {
                assert_eq!(&told.value, value, "{name}: {told:?}");
            }
            assert!(
                rev.is_none_or(|rev| rev == told.rev),
                "{name}: {told:?}, acknowledged at {rev:?}"
            );
            there = change.is_some();
        }
    }
}

/// The body of a running watch, after its first event.
async fn begun(login: &Login, path: &str) -> hyper::body::Incoming {
    let request = Request::get(path).body(Bytes::new()).expect("a request");
    let mut body = login.send(request).await.expect("a watch").into_body();
    let first = body.frame().await.expect("an event").expect("a frame");
    let first: Value = serde_json::from_slice(first.data_ref().expect("data")).expect("an event");
    assert_eq!(first["type"], "ADDED");
    body
}

#[tokio::test]
async fn a_watch_ends_when_the_definition_of_what_is_watched_says_something_else() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
    let server = Server::in_memory(&["--controllers=-*"]);
    let (_logins, login) = watch::channel(server.admin());
    let mut client = Client::new(&login);
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    let made = client.ask(Method::POST, DEFINITIONS, &definition).await;
    assert_eq!(made.expect("an answer").0, 201);
    while client.get(WIDGETS).await.0 != 200 {}
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}});
    let made = client.ask(Method::POST, WIDGETS, &widget).await;
    assert_eq!(made.expect("an answer").0, 201);
    let current = login.borrow().clone();
    let path = format!("{WIDGETS}?watch=true");

    // A change that does not affect the served version does not end the watch: it continues with later changes.
    let mut body = begun(&current, &path).await;
    let name = format!("{DEFINITIONS}/widgets.example.com");
    let change = async |client: &mut Client, edit: &dyn Fn(&mut Value)| {
        let (_, mut now) = client.get(&name).await;
        edit(&mut now);
        let changed = client.ask(Method::PUT, &name, &now).await;
        assert_eq!(changed.expect("an answer").0, 200);
    };
    change(&mut client, &|now| {
        now["metadata"]["labels"] = json!({"a": "b"})
    })
    .await;
    let gone = format!("{WIDGETS}/a");
    let deleted = client.ask(Method::DELETE, &gone, &Value::Null).await;
    assert_eq!(deleted.expect("an answer").0, 200);
    let told = body.frame().await.expect("an event").expect("a frame");
    assert!(
        told.data_ref()
            .expect("data")
            .starts_with(b"{\"type\":\"DELETED\"")
    );

    change(&mut client, &|now| {
        now["spec"]["names"]["shortNames"] = json!(["w"])
    })
    .await;
    assert!(body.frame().await.is_none(), "other names end a watch");

    let made = client.ask(Method::POST, WIDGETS, &widget).await;
    assert_eq!(made.expect("an answer").0, 201);
    let body = begun(&current, &path).await;
    let deleted = client.ask(Method::DELETE, &name, &Value::Null).await;
    assert_eq!(deleted.expect("an answer").0, 200);
    let rest = body.collect().await.expect("an end").to_bytes();
    assert!(rest.starts_with(b"{\"type\":\"DELETED\""), "{rest:?}");
}
