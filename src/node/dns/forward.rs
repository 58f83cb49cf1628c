//! Names of the world: asked of the name servers that this host asks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use simple_dns::RCODE;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::message::{Query, Via, code};

/// How long one server may take: a client that waits five seconds hears of the second one.
const PATIENCE: Duration = Duration::from_secs(2);
/// As many servers are asked, as resolvers do.
const MOST: usize = 3;
/// The size of datagrams that are taken from whoever was told of none.
const PLAIN: u16 = 512;

/// Asks the servers that a `resolv.conf` names.
pub struct Forwarder {
    /// The file.
    pub resolv: PathBuf,
    /// Who asks, and must not ask itself.
    pub own: IpAddr,
    /// Where servers listen.
    pub port: u16,
    /// What the file said when it was read last.
    pub read: Mutex<(Option<Stamp>, Arc<[IpAddr]>)>,
}

/// What tells versions of a file apart.
type Stamp = (SystemTime, u64);

/// The servers that the text of a `resolv.conf` names, this host where it names none (resolv.conf(5)).
fn servers_of(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse().ok()
    });
    let named: Vec<IpAddr> = named.collect();
    match named.is_empty() {
        true => vec![Ipv4Addr::LOCALHOST.into()],
        false => named,
    }
}

/// Reads a message that its length precedes.
///
/// # Errors
/// Nothing comes, or not all.
pub async fn read_framed(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(from.read_u16().await?)];
    from.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message after its length.
///
/// # Errors
/// It is too long, or nobody takes it.
pub async fn write_framed(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    to.write_all(&framed).await
}

impl Forwarder {
    /// Asks servers that a file names, in its order.
    pub fn new(resolv: PathBuf, own: IpAddr, port: u16) -> Forwarder {
        Forwarder {
            resolv,
            own,
            port,
            read: Mutex::new((None, Arc::new([]))),
        }
    }

    /// The servers as the file names them now.
    fn servers(&self) -> Arc<[IpAddr]> {
        let stamp = std::fs::metadata(&self.resolv)
            .and_then(|found| Ok((found.modified()?, found.len())))
            .ok();
        let mut read = self.read.lock();
        if stamp.is_none() || read.0 != stamp {
            // A host without the file asks itself, as one with an empty file.
            let text = std::fs::read_to_string(&self.resolv).unwrap_or_default();
            let servers = servers_of(&text).into_iter();
            *read = (
                stamp,
                servers.filter(|server| *server != self.own).collect(),
            );
        }
        read.1.clone()
    }

    /// What the first server says that knows; what the last one said where none does, and nothing where all are silent.
    pub async fn ask(&self, query: &Query<'_>, via: Via) -> Option<Vec<u8>> {
        let mut last = None;
        for server in self.servers().iter().take(MOST) {
            let server = SocketAddr::new(*server, self.port);
            let said = tokio::time::timeout(PATIENCE, async {
                match via {
                    Via::Datagram => by_datagram(server, query).await,
                    Via::Stream => by_stream(server, query).await,
                }
            });
            match said.await {
                Ok(Ok(answer)) => match code(&answer) {
                    RCODE::ServerFailure | RCODE::NotImplemented | RCODE::Refused => {
                        last = Some(answer);
                    }
                    _ => return Some(answer),
                },
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
                Err(_) => tracing::debug!(%server, "a name server does not answer"),
            }
        }
        last
    }
}

/// The message of a query under another id.
fn with_id(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[..2].copy_from_slice(&id);
    message
}

fn random_id() -> [u8; 2] {
    let mut id = [0; 2];
    crate::meta::names::random(&mut id);
    id
}

/// Asks from a port that nobody can guess, and hears only the one that was asked.
async fn by_datagram(server: SocketAddr, query: &Query<'_>) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = random_id();
    socket.send(&with_id(query.whole, id)).await?;
    let mut buffer = vec![0; usize::from(query.size().unwrap_or(PLAIN).max(PLAIN))];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        if query.is_answered_by(u16::from_be_bytes(id), answer) {
            return Ok(with_id(answer, query.id().to_be_bytes()));
        }
    }
}

async fn by_stream(server: SocketAddr, query: &Query<'_>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random_id();
    write_framed(&mut stream, &with_id(query.whole, id)).await?;
    let answer = read_framed(&mut stream).await?;
    match query.is_answered_by(u16::from_be_bytes(id), &answer) {
        true => Ok(with_id(&answer, query.id().to_be_bytes())),
        false => Err(io::Error::other("it answered something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::dns::message::{self, Received, read};
    use simple_dns::{Name, TYPE};

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

    /// A server that answers each query with what `answers` makes of it.
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
        // Who knows is preceded by who guesses.
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
}
