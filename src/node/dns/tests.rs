use simple_dns::rdata::{CNAME, RData};
use simple_dns::{PacketFlag, TYPE};

use super::*;
use crate::node::dns::directory::tests::of;

/// A name server with some services and the upstream server `upstream`; returns its addresses for datagrams and
/// connections.
async fn server(upstream: SocketAddr) -> (SocketAddr, SocketAddr, tempfile::TempDir) {
    let service = |name: &str, spec: serde_json::Value| serde_json::json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    let endpoints: Vec<_> = (1..=200)
        .map(|n| serde_json::json!({"addresses": [format!("10.244.0.{n}")]}))
        .collect();
    let directory = of(
        serde_json::json!([
            service("web", serde_json::json!({"clusterIP": "10.96.0.10"})),
            service("many", serde_json::json!({"clusterIP": "None"})),
            service(
                "out",
                serde_json::json!({"type": "ExternalName", "externalName": "known.example"})
            ),
            service(
                "gone",
                serde_json::json!({"type": "ExternalName", "externalName": "gone.example"})
            ),
        ]),
        serde_json::json!([{"metadata": {"namespace": "default", "name": "many-1", "labels": {"kubernetes.io/service-name": "many"}},
            "addressType": "IPv4", "endpoints": endpoints}]),
    );
    let etc = tempfile::tempdir().expect("a directory");
    let resolv = etc.path().join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {}\n", upstream.ip())).expect("a file");
    let own = IpAddr::from([127, 0, 0, 1]);
    let server = Server {
        datagrams: Arc::new(UdpSocket::bind((own, 0)).await.expect("a socket")),
        streams: TcpListener::bind((own, 0)).await.expect("a socket"),
        shared: Arc::new(Shared {
            zone: Zone::new("cluster.local", own),
            directory: Arc::new(RwLock::new(directory)),
            forwarder: Forwarder::new(resolv, own, upstream.port()),
            forwarded: Semaphore::new(FORWARDED),
            forwarded_of: Seats::default(),
            cache: Mutex::default(),
        }),
    };
    let datagrams = server.datagrams.local_addr().expect("an address");
    let streams = server.streams.local_addr().expect("an address");
    let ends = CancellationToken::new();
    let shared = server.shared;
    tokio::spawn(
        shared
            .clone()
            .serve_datagrams(server.datagrams, ends.clone()),
    );
    let looks = shared.clone();
    tokio::spawn(async move { looks.forwarder.look_for_loops().await });
    tokio::spawn(async move { shared.serve_streams(&server.streams, ends).await });
    (datagrams, streams, etc)
}

/// An upstream server that knows one name, over both transports.
async fn world() -> SocketAddr {
    fn answer(bytes: &[u8]) -> Vec<u8> {
        let Received::Query(query) = message::read(bytes) else {
            panic!("no query");
        };
        let known = query.name.to_string() == "known.example";
        let address = RData::A(simple_dns::rdata::A {
            address: u32::from_be_bytes([192, 0, 2, 7]),
        });
        let record = ResourceRecord::new(query.name.clone(), simple_dns::CLASS::IN, 60, address);
        let reply = Reply {
            missing: !known,
            answers: known.then_some(record).into_iter().collect(),
            ..Reply::default()
        };
        query.write(&reply, Via::Datagram)
    }
    let at = IpAddr::from([127, 0, 0, 5]);
    let datagrams = UdpSocket::bind((at, 0)).await.expect("a socket");
    let address = datagrams.local_addr().expect("an address");
    let streams = TcpListener::bind(address).await.expect("a socket");
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer).await {
            let _ = datagrams.send_to(&answer(&buffer[..length]), from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = streams.accept().await {
            let query = read_framed(&mut stream).await.expect("a query");
            write_framed(&mut stream, &answer(&query))
                .await
                .expect("room");
        }
    });
    address
}

fn question(name: &str, id: u16) -> Vec<u8> {
    let name = Name::new(name).expect("a name");
    let mut bytes = message::query(&name, TYPE::A, None).expect("a query");
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes
}

/// An answer as text: its code, whether it is truncated, and its addresses.
fn told(answer: &[u8]) -> String {
    let packet = message::read_answer(answer).expect("an answer");
    let data = packet.answers.iter().map(|record| match &record.rdata {
        RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
        RData::CNAME(CNAME(name)) => name.to_string(),
        other => format!("{other:?}"),
    });
    let data: Vec<_> = data.collect();
    let cut = packet.has_flags(PacketFlag::TRUNCATION);
    match data.len() {
        0..5 => format!("{:?} {cut} {}", packet.rcode(), data.join(" ")),
        many => format!("{:?} {cut} {many}", packet.rcode()),
    }
}

#[tokio::test]
async fn names_are_served_by_datagrams_and_streams() {
    let (datagrams, streams, _etc) = server(world().await).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    // An invalid query is ignored, and does no harm.
    socket.send_to(b"nonsense", datagrams).await.expect("sent");
    let mut stream = TcpStream::connect(streams).await.expect("a connection");
    for (id, (name, by_datagram, by_stream)) in (1..).zip([
        (
            "web.default.svc.cluster.local",
            "NoError false 10.96.0.10",
            "NoError false 10.96.0.10",
        ),
        (
            "no.default.svc.cluster.local",
            "NameError false ",
            "NameError false ",
        ),
        (
            "many.default.svc.cluster.local",
            "NoError true 29",
            "NoError false 200",
        ),
        (
            "known.example",
            "NoError false 192.0.2.7",
            "NoError false 192.0.2.7",
        ),
        ("unknown.example", "NameError false ", "NameError false "),
        (
            "out.default.svc.cluster.local",
            "NoError false known.example 192.0.2.7",
            "NoError false known.example 192.0.2.7",
        ),
        (
            "gone.default.svc.cluster.local",
            "NameError false gone.example",
            "NameError false gone.example",
        ),
    ]) {
        let query = question(name, id);
        socket.send_to(&query, datagrams).await.expect("sent");
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).await.expect("an answer");
        assert_eq!(buffer[..2], id.to_be_bytes(), "{name}");
        assert_eq!(told(&buffer[..length]), by_datagram, "{name}");
        write_framed(&mut stream, &query).await.expect("sent");
        let answer = read_framed(&mut stream).await.expect("an answer");
        assert_eq!(answer[..2], id.to_be_bytes(), "{name}");
        assert_eq!(told(&answer), by_stream, "{name}");
    }
}

#[tokio::test]
async fn who_asks_in_turn_is_asked_no_more() {
    // A resolver of the host that forwards to this one.
    let resolver = UdpSocket::bind("127.0.0.6:0").await.expect("a socket");
    let onward = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let (datagrams, _, _etc) = server(resolver.local_addr().expect("an address")).await;
    let mut buffer = [0; 512];
    let (length, from) = resolver.recv_from(&mut buffer).await.expect("asked");
    onward
        .send_to(&buffer[..length], datagrams)
        .await
        .expect("sent");
    let length = onward.recv(&mut buffer).await.expect("an answer");
    assert_eq!(message::code(&buffer[..length]), RCODE::Refused);
    resolver
        .send_to(&buffer[..length], from)
        .await
        .expect("sent");
    // This query gets no answer, and nothing waits for it.
    onward
        .send_to(&question("known.example", 9), datagrams)
        .await
        .expect("sent");
    let length = onward.recv(&mut buffer).await.expect("an answer");
    assert_eq!(told(&buffer[..length]), "ServerFailure false ");
    while let Ok((length, _)) = resolver.try_recv_from(&mut buffer) {
        let Received::Query(query) = message::read(&buffer[..length]) else {
            panic!("no query");
        };
        assert_eq!(query.kind, loops::KIND);
    }
}

#[tokio::test]
async fn who_cannot_be_asked_is_told_of() {
    // Nobody listens at this port any more.
    let nobody = UdpSocket::bind("127.0.0.5:0").await.expect("a socket");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let (datagrams, _, _etc) = server(address).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for name in ["known.example", "out.default.svc.cluster.local"] {
        socket
            .send_to(&question(name, 9), datagrams)
            .await
            .expect("sent");
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).await.expect("an answer");
        assert_eq!(told(&buffer[..length]), "ServerFailure false ", "{name}");
    }
}

#[tokio::test]
async fn no_client_keeps_others_out() {
    let (_, streams, _etc) = server(world().await).await;
    let from = async |host: u8| {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        let own = SocketAddr::from(([127, 0, 0, host], 0));
        socket.bind(own).expect("an address of this host");
        socket.connect(streams).await.expect("a connection")
    };
    async fn answered(stream: &mut TcpStream) -> bool {
        let query = question("web.default.svc.cluster.local", 7);
        write_framed(stream, &query).await.is_ok() && read_framed(stream).await.is_ok()
    }
    let mut held = Vec::new();
    for _ in 0..OF_ONE {
        held.push(from(1).await);
    }
    assert!(
        !answered(&mut from(1).await).await,
        "it has all it may have"
    );
    assert!(answered(&mut from(2).await).await, "another one");
    assert!(answered(&mut held[0]).await, "those it has are served");
    drop(held);
    let again = async { while !answered(&mut from(1).await).await {} };
    tokio::time::timeout(IDLE, again)
        .await
        .expect("places that are given back are taken");
}
