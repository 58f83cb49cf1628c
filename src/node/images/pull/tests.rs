use http_body_util::Full;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_registry_that_says_nothing_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
    let silent = silent.expect("a listener");
    let at = silent.local_addr().expect("an address");
    let registries = Registries::new(Vec::new()).expect("TLS");
    // Connections are accepted and kept open.
    let listening = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            kept.push(stream);
        }
    });
    let uri = format!("https://{at}/v2/").parse().expect("a URI");
    let error = registries.send(&uri, "*/*", None).await;
    assert_eq!(
        error.expect_err("silence"),
        format!("Get \"https://{at}/v2/\": i/o timeout")
    );
    listening.abort();
}

#[tokio::test]
async fn credentials_go_to_no_realm_that_is_less_protected_than_the_registry() {
    let reference = Reference::parse("registry.example/a:1").expect("a reference");
    const CHALLENGE: &str = "Bearer realm=\"http://127.0.0.1:1/token\",service=\"s\"";
    for (plain, expected) in [
        (
            Vec::new(),
            "http://127.0.0.1:1/token, which is not protected",
        ),
        // The registry is contacted, and nobody listens there.
        (vec!["registry.example".to_owned()], "dial tcp 127.0.0.1:1"),
    ] {
        let registries = Registries::new(plain).expect("TLS");
        let mut pull = Pull {
            registries: &registries,
            reference: &reference,
            credentials: None,
            authorization: None,
        };
        let challenge = HeaderValue::from_static(CHALLENGE);
        let headers = HeaderMap::from_iter([(header::WWW_AUTHENTICATE, challenge)]);
        let refused = pull.authorize(&headers).await;
        let error = refused.expect_err("no token");
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn credentials_stay_with_the_registry_whoever_redirects_to_whom() {
    let listen = async || {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a listener");
        let at = listener.local_addr().expect("an address").to_string();
        (listener, at)
    };
    let ((registry, at), (other, elsewhere)) = (listen().await, listen().await);
    let (sees, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (inside, outside) = (at.clone(), elsewhere.clone());
    // The registry redirects within itself and to a store, and the store within itself and back.
    let answer = move |host: &str, path: &str| match path {
        "/v2/a/blobs/b" => Some(format!("http://{inside}/moved")),
        "/moved" => Some(format!("http://{outside}/store")),
        "/store" => Some("/signed".to_owned()),
        "/signed" if host != inside => Some(format!("http://{inside}/back")),
        _ => None,
    };
    for listener in [registry, other] {
        let (sees, answer) = (sees.clone(), answer.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sees, answer) = (sees.clone(), answer.clone());
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let host = request.headers()[header::HOST].to_str().unwrap_or_default();
                    let path = request.uri().path().to_owned();
                    let mut response = Response::new(Full::new(Bytes::from_static(b"blob")));
                    if let Some(to) = answer(host, &path) {
                        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
                        let to = HeaderValue::from_str(&to).expect("an address");
                        response.headers_mut().insert(header::LOCATION, to);
                    }
                    let authorized = request.headers().contains_key(header::AUTHORIZATION);
                    let _ = sees.send((path, authorized));
                    std::future::ready(Ok::<_, std::convert::Infallible>(response))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let served =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                tokio::spawn(served);
            }
        });
    }
    let registries = Registries::new(vec![at.clone()]).expect("TLS");
    let reference = Reference::parse(&format!("{at}/a:1")).expect("a reference");
    let mut pull = Pull {
        registries: &registries,
        reference: &reference,
        credentials: None,
        authorization: Some(HeaderValue::from_static("Bearer secret")),
    };
    let answer = pull.get("blobs/b", "*/*").await.expect("the blob");
    assert_eq!(answer.status(), StatusCode::OK);
    for expected in [
        ("/v2/a/blobs/b", true),
        ("/moved", true),
        ("/store", false),
        ("/signed", false),
        ("/back", false),
    ] {
        let (path, authorized) = seen.recv().await.expect("a request");
        assert_eq!((&*path, authorized), expected);
    }
}

#[tokio::test]
async fn a_cancelled_pull_leaves_nothing() {
    let records = tempfile::tempdir().expect("a directory");
    let scratch = Scratch::new(records.path()).expect("made");
    let path = scratch.path.clone();
    std::fs::write(path.join("0"), "a layer").expect("written");
    assert!(is_in_use(&path), "others do not take it for a leftover");
    drop(scratch);
    let gone = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
    gone.expect("it is removed");
}

#[tokio::test]
async fn a_layer_has_as_much_as_its_manifest_says_and_as_there_is_room_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("layer");
    for (expected, room, found) in [
        (4, 10, Ok(4)),
        (0, 10, Ok(4)),
        (0, 4, Ok(4)),
        (
            5,
            10,
            Err("unexpected commit size 4, expected 5: failed precondition".to_owned()),
        ),
        (
            3,
            10,
            Err("unexpected commit size 4, expected 3: failed precondition".to_owned()),
        ),
        (
            0,
            3,
            Err("it is larger than 0 MiB, which is the most that there is room for".to_owned()),
        ),
    ] {
        let answer = Response::new(Full::new(Bytes::from_static(b"1234")));
        let saved = save(answer, &path, expected, room).await;
        assert_eq!(saved, found, "{expected} {room}");
    }
    assert_eq!(fits([1 << 20, 1 << 20].into_iter(), 2 << 20), Ok(()));
    let refused = fits([u64::MAX, 3 << 20].into_iter(), 2 << 20);
    assert!(refused.expect_err("too much").ends_with("room for 2 MiB"));
}
