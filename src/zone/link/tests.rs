//! Connections that break, and answers that make no sense.

use super::*;
use crate::zone::supervisor::write_json;

/// Connects like a supervisor that has just started.
async fn dial(directory: &Path) -> UnixStream {
    let stream = UnixStream::connect(directory.join(SOCKET)).await;
    let mut stream = stream.expect("connected");
    let hello = Hello::Control {
        boot: "b".into(),
        processes: Vec::new(),
    };
    let said = write_json(&mut stream, kind::HELLO, &hello).await;
    said.expect("said");
    stream
}

#[tokio::test]
async fn a_connection_that_cannot_be_accepted_is_not_the_end_of_the_listener() {
    let directory = tempfile::tempdir().expect("a directory");
    let link = Link::new("z".into(), || {});
    let listener = bind(directory.path()).expect("listens");
    let failures = AtomicU64::new(2);
    let accept = || async {
        let left = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        match left {
            // Out of descriptors.
            Ok(_) => Err(std::io::Error::from_raw_os_error(24)),
            Err(_) => Ok(listener.accept().await?.0),
        }
    };
    let accepting = link.clone().accept(accept);
    let connected = async {
        let _stream = dial(directory.path()).await;
        link.hello(ANSWER).await
    };
    tokio::select! {
        () = accepting => panic!("the listener ended"),
        heard = connected => assert!(heard),
    }
}

#[tokio::test]
async fn an_aborted_connection_leaves_nothing_connected() {
    let directory = tempfile::tempdir().expect("a directory");
    let link = Link::new("z".into(), || {});
    link.listen(directory.path()).expect("listens");
    let mut stream = dial(directory.path()).await;
    assert!(link.hello(ANSWER).await);
    let task = link.listening.lock().take().expect("it listens");
    task.abort();
    let ended = read_frame(&mut stream).await.expect("read");
    assert!(ended.is_none(), "the writer ends as well");
    let mut boot = link.boot.subscribe();
    let gone = boot.wait_for(Option::is_none).await;
    assert!(gone.is_ok());
    assert!(link.known.lock().control.is_none());
}

#[tokio::test]
async fn an_answer_that_is_not_understood_fails_what_it_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let link = Link::new("z".into(), || {});
    link.listen(directory.path()).expect("listens");
    let mut stream = dial(directory.path()).await;
    assert!(link.hello(ANSWER).await);
    let answer = async {
        let (_, ask) = read_frame(&mut stream).await.expect("asked").expect("more");
        let Numbered { number } = serde_json::from_slice(&ask).expect("an ask");
        let reply = serde_json::json!({"number": number, "outcome": "of tomorrow"});
        let sent = write_json(&mut stream, kind::REPLY, &reply).await;
        sent.expect("answered");
        // The connection stays open.
        read_frame(&mut stream).await
    };
    tokio::select! {
        asked = link.ask("connect to", What::Dial(1)) => {
            let error = asked.expect_err("not understood").to_string();
            assert!(error.contains("is not understood"), "{error}");
        }
        end = answer => panic!("the connection ended: {end:?}"),
    }
}

#[tokio::test]
async fn what_is_too_long_to_be_told_is_refused_and_cuts_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let link = Link::new("z".into(), || {});
    link.listen(directory.path()).expect("listens");
    let _stream = dial(directory.path()).await;
    assert!(link.hello(ANSWER).await);
    let exec = crate::zone::ExecSpec {
        command: vec!["x".repeat(FRAME as usize)],
        ..Default::default()
    };
    let id = ProcessId {
        name: "c".into(),
        generation: 0,
    };
    let refused = link.ask("exec in", What::Exec(id, exec)).await;
    assert!(refused.is_err_and(|error| error.is_final()));
    assert!(link.boot().is_some(), "the connection stays");
    assert!(link.known.lock().asks.is_empty());
}

#[tokio::test]
async fn what_was_asked_ends_with_its_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let link = Link::new("z".into(), || {});
    let unreachable = |asked: Result<(), ZoneError>| match asked {
        Err(ZoneError::State { state, .. }) => assert_eq!(state, "unreachable"),
        other => panic!("{other:?}"),
    };
    let ask = || link.ask("connect to", What::Dial(1));
    unreachable(ask().await);
    assert!(link.known.lock().asks.is_empty(), "nobody answers it ever");
    link.listen(directory.path()).expect("listens");
    let dial = || dial(directory.path());
    let mut first = dial().await;
    assert!(link.hello(ANSWER).await);
    // Another connection replaces one whose end was not noticed, and then the zone is halted.
    let again = async {
        read_frame(&mut first).await.expect("asked");
        dial().await
    };
    let (asked, mut second) = tokio::join!(ask(), again);
    unreachable(asked);
    let halted = async {
        read_frame(&mut second).await.expect("asked");
        link.close();
    };
    let (asked, ()) = tokio::join!(ask(), halted);
    unreachable(asked);
}
