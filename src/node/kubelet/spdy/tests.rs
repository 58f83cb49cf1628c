use std::time::Duration;

use flate2::Decompress;
use tokio::io::{AsyncReadExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::read::headers;
use super::*;

/// A client of this protocol.
struct Client {
    from: ReadHalf<DuplexStream>,
    to: WriteHalf<DuplexStream>,
    compress: Compress,
}

impl Client {
    fn new(stream: DuplexStream) -> Client {
        let (from, to) = tokio::io::split(stream);
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(DICTIONARY).expect("fresh");
        Client { from, to, compress }
    }

    /// Opens a stream with headers.
    async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let packed = packed(&mut self.compress, headers);
        let mut frame = 0x8003_0001u32.to_be_bytes().to_vec();
        frame.extend_from_slice(&(packed.len() as u32 + 10).to_be_bytes());
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&packed);
        self.to.write_all(&frame).await.expect("sent");
    }

    async fn send(&mut self, id: u32, flags: u8, bytes: &[u8]) {
        let mut frame = id.to_be_bytes().to_vec();
        frame.extend_from_slice(&(u32::from(flags) << 24 | bytes.len() as u32).to_be_bytes());
        frame.extend_from_slice(bytes);
        self.to.write_all(&frame).await.expect("sent");
    }

    /// The next frame: its first word, flags, and payload.
    async fn receive(&mut self) -> (u32, u8, Vec<u8>) {
        let (word, length) = (self.from.read_u32().await, self.from.read_u32().await);
        let (word, length) = (word.expect("a frame"), length.expect("its length"));
        let mut payload = vec![0; (length & 0xff_ffff) as usize];
        self.from.read_exact(&mut payload).await.expect("a payload");
        (word, (length >> 24) as u8, payload)
    }
}

fn packed(compress: &mut Compress, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = (headers.len() as u32).to_be_bytes().to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        block.extend_from_slice(&(text.len() as u32).to_be_bytes());
        block.extend_from_slice(text.as_bytes());
    }
    let mut packed = Vec::with_capacity(block.len() + 1024);
    compress
        .compress_vec(&block, &mut packed, FlushCompress::Sync)
        .expect("packed");
    packed
}

#[test]
fn header_blocks_share_one_compression() {
    let mut compress = Compress::new(Compression::default(), true);
    compress.set_dictionary(DICTIONARY).expect("fresh");
    let mut decompress = Decompress::new(true);
    for round in 0..3 {
        let value = format!("stdout-{round}");
        let told = [("Streamtype", &*value), ("other", "x"), ("port", "80")];
        let list = headers(&mut decompress, &packed(&mut compress, &told)).expect("read");
        let known = [("streamtype", &*value), ("port", "80")];
        assert_eq!(
            list,
            known.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
    assert!(headers(&mut Decompress::new(true), b"nonsense").is_err());
    // A few bytes can stand for many.
    let bomb = packed(&mut compress, &[("port", &"0".repeat(1 << 20))]);
    assert!(bomb.len() < HEADERS, "{}", bomb.len());
    assert!(headers(&mut decompress, &bomb).is_err());
}

#[tokio::test]
async fn streams_are_accepted_and_carry_data_both_ways() {
    let (client, server) = tokio::io::duplex(1 << 16);
    let (writer, mut streams) = serve(server);
    let mut client = Client::new(client);
    client.open(1, &[]).await;
    client.send(1, FIN, b"hi").await;
    let mut stream = streams.recv().await.expect("a stream");
    assert_eq!(stream.data.recv().await.as_deref(), Some(&b"hi"[..]));
    assert_eq!(stream.data.recv().await, None);
    assert_eq!(client.receive().await.0, 0x8003_0002);
    writer.data(1, b"ho").await.expect("sent");
    writer.end(1).await.expect("sent");
    assert_eq!(client.receive().await, (1, 0, b"ho".to_vec()));
    assert_eq!(client.receive().await, (1, FIN, vec![]));
}

/// Sends chunks of a stream until the other side takes no more; how many bytes it took.
async fn fill(client: &mut Client, id: u32) -> usize {
    let mut sent = 0;
    // The clock only goes on when everybody waits.
    while timeout(Duration::from_secs(1), client.send(id, 0, &[7; 8 * 1024]))
        .await
        .is_ok()
    {
        sent += 8 * 1024;
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_holds_no_more_than_its_share() {
    let (client, server) = tokio::io::duplex(1 << 12);
    let (_writer, mut streams) = serve(server);
    let mut client = Client::new(client);
    let mut taken = Vec::new();
    for id in [1, 3] {
        client.open(id, &[]).await;
        taken.push(streams.recv().await.expect("a stream"));
    }
    // Of all streams of the connection together.
    client.send(3, 0, &vec![7; WAITING as usize / 2]).await;
    let sent = fill(&mut client, 1).await;
    let room = WAITING as usize / 2;
    assert!(
        (room / 2..=room + CHUNK).contains(&sent),
        "{sent} of {room}"
    );
    // What is dropped or taken leaves room. The frame that did not fit is still on its way: its rest completes it.
    drop(taken.pop());
    let mut stream = taken.pop().expect("the first");
    let taking = tokio::spawn(async move {
        let mut count = 0;
        while let Some(bytes) = stream.data.recv().await {
            count += bytes.len();
        }
        count
    });
    drop(client);
    assert!(taking.await.expect("taken") >= sent);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_does_not_hold_back_the_others() {
    let (client, server) = tokio::io::duplex(1 << 12);
    let (_writer, mut streams) = serve(server);
    let mut client = Client::new(client);
    for id in [1, 3] {
        client.open(id, &[]).await;
    }
    drop(streams.recv().await.expect("a stream"));
    let mut other = streams.recv().await.expect("another");
    client.send(1, 0, &vec![7; 4 * WAITING as usize]).await;
    client.send(3, 0, b"hi").await;
    assert_eq!(other.data.recv().await.as_deref(), Some(&b"hi"[..]));
}

#[tokio::test]
async fn more_streams_than_there_are_places_are_refused() {
    let (client, server) = tokio::io::duplex(1 << 12);
    let (_writer, mut streams) = serve(server);
    let mut client = Client::new(client);
    let mut open = Vec::new();
    for number in 0..STREAMS as u32 {
        client.open(number * 2 + 1, &[]).await;
        open.push(streams.recv().await.expect("a stream"));
        assert_eq!(client.receive().await.0, 0x8003_0002);
    }
    let beyond = STREAMS as u32 * 2 + 1;
    client.open(beyond, &[]).await;
    let refused = [beyond.to_be_bytes(), REFUSED_STREAM.to_be_bytes()].concat();
    assert_eq!(client.receive().await, (0x8003_0003, 0, refused));
    // A stream is over when both sides closed it.
    client.send(1, FIN, &[]).await;
    client.open(beyond + 2, &[]).await;
    assert_eq!(client.receive().await.0, 0x8003_0003);
    drop(open.remove(0));
    client.open(beyond + 4, &[]).await;
    assert_eq!(client.receive().await.0, 0x8003_0002);
}
