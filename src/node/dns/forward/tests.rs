use super::*;
use simple_dns::TYPE;

#[test]
fn servers_are_those_that_the_file_names() {
    for (text, expected) in [
        ("", vec!["127.0.0.1"]),
        ("search a\noptions ndots:2\n", vec!["127.0.0.1"]),
        (
            "# nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \nnameserver nonsense\n",
            vec!["192.0.2.1", "2001:db8::1"],
        ),
    ] {
        let found: Vec<String> = servers_of(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn the_file_is_read_again_when_it_changes_and_nobody_asks_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("resolv.conf");
    let own = IpAddr::from([10, 244, 0, 1]);
    let forwarder = Forwarder::new(file.clone(), own, 53);
    let localhost = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(*forwarder.servers(), [localhost]);
    for (text, expected) in [
        ("nameserver 192.0.2.1\n", vec![IpAddr::from([192, 0, 2, 1])]),
        (
            "nameserver 10.244.0.1\nnameserver 192.0.2.2\n",
            vec![IpAddr::from([192, 0, 2, 2])],
        ),
        ("nameserver 10.244.0.1\n", vec![]),
    ] {
        std::fs::write(&file, text).expect("a file");
        assert_eq!(*forwarder.servers(), expected, "{text}");
    }
}

/// A server that answers each query with the result of `answers`.
async fn server(
    at: [u8; 4],
    port: u16,
    answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> u16 {
    let socket = UdpSocket::bind((IpAddr::from(at), port))
        .await
        .expect("a socket");
    let port = socket.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for answer in answers(&buffer[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    port
}

fn answered(query: &[u8], code: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = code;
    answer
}

#[tokio::test]
async fn the_first_that_knows_is_heard_and_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("resolv.conf");
    let unable = |query: &[u8]| vec![answered(query, 2)];
    let port = server([127, 0, 0, 2], 0, unable).await;
    // A server without the name precedes one that has it.
    let knows = |query: &[u8]| {
        let mut guessed = answered(query, 3);
        guessed[1] ^= 1;
        let mut other = answered(query, 3);
        other[13] ^= 1;
        vec![
            b"x".to_vec(),
            guessed,
            other,
            query.to_vec(),
            answered(query, 0),
        ]
    };
    server([127, 0, 0, 3], port, knows).await;
    let forwarder = Forwarder::new(file.clone(), IpAddr::from([10, 244, 0, 1]), port);
    let name = Name::new("example.org").expect("a name");
    let mut bytes = message::query(&name, TYPE::A, None).expect("a query");
    bytes[..2].copy_from_slice(&[0xab, 0xcd]);
    let Received::Query(query) = read(&bytes) else {
        panic!("no query");
    };
    // Nobody listens at the last one.
    for (text, expected) in [
        ("nameserver 127.0.0.2\nnameserver 127.0.0.3\n", Some(0)),
        ("nameserver 127.0.0.4\nnameserver 127.0.0.2\n", Some(2)),
        ("nameserver 127.0.0.4\n", None),
        ("nameserver 10.244.0.1\n", None),
    ] {
        std::fs::write(&file, text).expect("a file");
        let answer = forwarder.ask(&query, Via::Datagram).await;
        if let Some(answer) = &answer {
            assert_eq!(answer[..2], [0xab, 0xcd], "{text}");
        }
        assert_eq!(answer.map(|answer| answer[3]), expected, "{text}");
    }
}

#[test]
fn who_is_silent_is_asked_last_until_it_answers() {
    let mut silent = Silent::default();
    let [a, b, c] = [1, 2, 3].map(|n| IpAddr::from([192, 0, 2, n]));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(silent.order(&[a, b, c], at(0)), [a, b, c]);
    silent.did_not_answer(a, at(0));
    for (seconds, expected) in [
        (1, [b, c, a]),
        (4, [b, c, a]),
        // Its time is over: one query tries it, and no other.
        (5, [a, b, c]),
        (5, [b, c, a]),
    ] {
        assert_eq!(silent.order(&[a, b, c], at(seconds)), expected, "{seconds}");
    }
    // Growing pauses, with an upper limit.
    for (seconds, ends) in [(6, 16), (16, 36), (36, 76), (76, 136), (136, 196)] {
        silent.did_not_answer(a, at(seconds));
        assert_eq!(silent.order(&[a, b], at(ends - 1)), [b, a], "{seconds}");
        assert_eq!(silent.order(&[a, b], at(ends)), [a, b], "{seconds}");
    }
    silent.did_not_answer(b, at(200));
    assert_eq!(silent.order(&[a, b, c], at(201)), [c, a, b]);
}

/// Queries with an EDNS size.
fn with_edns() -> Vec<u8> {
    let name = Name::new("example.org").expect("a name");
    message::query(&name, TYPE::A, Some(1232)).expect("a query")
}

#[tokio::test]
async fn an_old_server_is_asked_as_it_understands() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.2\n").expect("a file");
    for (what, refusal) in [("a head alone", 12), ("the question, too", usize::MAX)] {
        let old = move |query: &[u8]| match query[11] {
            0 => vec![answered(query, 0)],
            _ => {
                let mut answer = answered(query, 1);
                if refusal < answer.len() {
                    answer.truncate(refusal);
                    answer[4..].fill(0);
                }
                vec![answer]
            }
        };
        let port = server([127, 0, 0, 2], 0, old).await;
        let forwarder = Forwarder::new(file.clone(), IpAddr::from([10, 244, 0, 1]), port);
        let bytes = with_edns();
        let Received::Query(query) = read(&bytes) else {
            panic!("no query");
        };
        let answer = forwarder.ask(&query, Via::Datagram).await.expect("heard");
        assert_eq!(answer[3], 0, "{what}");
        assert!(query.is_answered_by(query.id(), &answer), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_datagram_that_is_lost_is_sent_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.2\n").expect("a file");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let second = move |query: &[u8]| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Vec::new(),
        _ => vec![answered(query, 0)],
    };
    let port = server([127, 0, 0, 2], 0, second).await;
    let forwarder = Forwarder::new(file, IpAddr::from([10, 244, 0, 1]), port);
    let bytes = with_edns();
    let Received::Query(query) = read(&bytes) else {
        panic!("no query");
    };
    let answer = forwarder.ask(&query, Via::Datagram).await;
    assert_eq!(answer.map(|answer| answer[3]), Some(0));
}
