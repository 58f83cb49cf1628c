//! Resolves external names with the name servers of this host.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use simple_dns::{Name, RCODE};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::loops::{self, Loops};
use super::message::{self, Query, Received, Via, code, read};

/// Timeout for one server: a client that waits five seconds gets the answer of the second one.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this time a datagram is considered lost, and sent once more.
const LOST: Duration = Duration::from_secs(1);
/// Timeout for all of them: clients do not wait longer.
const ALL: Duration = Duration::from_secs(5);
/// How long a silent server is asked last, at first and at most.
const SILENT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// How often a server that caused a loop is tried again.
const LOOP: Duration = Duration::from_secs(60);
/// How many servers are used, as in resolvers.
const MOST: usize = 3;
/// The largest reply to accept from a server when the query had no EDNS size (RFC 1035).
const PLAIN: u16 = 512;

/// Forwards queries to the servers in a `resolv.conf`.
pub struct Forwarder {
    /// The file.
    pub resolv: PathBuf,
    /// This server's own address, which must not be asked.
    pub own: IpAddr,
    /// The port of the servers.
    pub port: u16,
    /// The content of the file when it was last read.
    pub read: Mutex<(Option<Stamp>, Arc<[IpAddr]>)>,
    /// Servers that did not respond.
    silent: Mutex<Silent>,
    /// Servers that forward back to this one.
    pub(super) loops: Loops,
    /// The file has changed.
    renamed: Notify,
}

/// Servers that did not respond to the last query.
#[derive(Debug, Default)]
struct Silent(HashMap<IpAddr, Silence>);

#[derive(Debug)]
struct Silence {
    /// When it is asked in its normal place again.
    ends: Instant,
    /// The length of that time.
    lasts: Duration,
}

impl Silent {
    /// The order in which servers are asked: silent ones last. When the time of a silent one is over, this one query
    /// asks it in its normal place; other queries meanwhile do not wait for it.
    fn order(&mut self, servers: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        let is_silent = |server: &&IpAddr| {
            self.0.get_mut(*server).is_some_and(|silence| {
                let is_over = silence.ends <= now;
                if is_over {
                    silence.ends = now + silence.lasts;
                }
                !is_over
            })
        };
        let (silent, others): (Vec<_>, Vec<_>) = servers.iter().partition(is_silent);
        others.into_iter().chain(silent).copied().collect()
    }

    /// Records that a server did not respond.
    fn did_not_answer(&mut self, server: IpAddr, now: Instant) {
        let before = self.0.get(&server).map(|silence| silence.lasts * 2);
        let lasts = before.unwrap_or(SILENT[0]).min(SILENT[1]);
        let ends = now + lasts;
        self.0.insert(server, Silence { ends, lasts });
    }
}

/// Distinguishes versions of a file.
type Stamp = (SystemTime, u64);

/// The servers in the text of a `resolv.conf`; this host if there are none (resolv.conf(5)).
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

/// Reads a message that is preceded by its length.
///
/// # Errors
/// The connection ends before the message is complete.
pub async fn read_framed(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(from.read_u16().await?)];
    from.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message preceded by its length.
///
/// # Errors
/// It is too long, or the connection is broken.
pub async fn write_framed(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    to.write_all(&framed).await
}

impl Forwarder {
    /// Forwards to the servers in a file, in its order.
    pub fn new(resolv: PathBuf, own: IpAddr, port: u16) -> Forwarder {
        Forwarder {
            resolv,
            own,
            port,
            read: Mutex::new((None, Arc::new([]))),
            silent: Mutex::default(),
            loops: Loops::default(),
            renamed: Notify::new(),
        }
    }

    /// Looks for servers that forward back to this one, forever: at once, when the file changes, and periodically while
    /// there is one.
    pub async fn look_for_loops(&self) {
        loop {
            let is_found = self.look_for_loops_once().await;
            tokio::select! {
                () = self.renamed.notified() => {}
                () = tokio::time::sleep(LOOP), if is_found => {}
            }
        }
    }

    /// Returns whether there is one.
    async fn look_for_loops_once(&self) -> bool {
        let names = self.loops.begin(&self.servers());
        let asked = names.iter().map(|(server, name)| async move {
            let message = message::query(&Name::new(name).ok()?, loops::KIND, None).ok()?;
            let Received::Query(query) = read(&message) else {
                return None;
            };
            let server = SocketAddr::new(*server, self.port);
            // The answer does not matter: the query arrives at this server, or it does not.
            let answer = exchange(server, &query, Via::Datagram);
            tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
        });
        futures::future::join_all(asked).await;
        self.loops.end()
    }

    /// The servers in the current version of the file.
    fn servers(&self) -> Arc<[IpAddr]> {
        let stamp = std::fs::metadata(&self.resolv)
            .and_then(|found| Ok((found.modified()?, found.len())))
            .ok();
        let mut read = self.read.lock();
        if stamp.is_none() || read.0 != stamp {
            // A missing file means this host itself, like an empty one.
            let text = std::fs::read_to_string(&self.resolv).unwrap_or_default();
            let servers = servers_of(&text).into_iter();
            let servers: Arc<[IpAddr]> = servers.filter(|server| *server != self.own).collect();
            if read.1 != servers {
                self.renamed.notify_one();
            }
            *read = (stamp, servers);
        }
        read.1.clone()
    }

    /// The answer of the first server that knows; the last one's error if none does, and None if all are silent. Silent
    /// servers are asked once more, if there is time.
    pub async fn ask(&self, query: &Query<'_>, via: Via) -> Option<Vec<u8>> {
        let ends = Instant::now() + ALL;
        let all = self.servers();
        let all = all.iter().copied();
        let all = all.filter(|server| self.loops.may_ask(*server));
        let all: Vec<IpAddr> = all.take(MOST).collect();
        let mut servers = self.silent.lock().order(&all, Instant::now());
        let mut last = None;
        for _ in 0..2 {
            let mut silent = Vec::new();
            for server in servers {
                let until = ends.min(Instant::now() + PATIENCE);
                match tokio::time::timeout_at(until, self.ask_one(server, query, via)).await {
                    Ok(Ok(answer)) => {
                        self.silent.lock().0.remove(&server);
                        match code(&answer) {
                            RCODE::ServerFailure | RCODE::NotImplemented | RCODE::Refused => {
                                last = Some(answer);
                            }
                            _ => return Some(answer),
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%server, %error, "a query to a name server failed");
                        self.silent.lock().did_not_answer(server, Instant::now());
                    }
                    Err(_) => {
                        tracing::debug!(%server, "a name server does not respond");
                        self.silent.lock().did_not_answer(server, Instant::now());
                        silent.push(server);
                    }
                }
            }
            servers = silent;
        }
        last
    }

    /// Asks one server. If it does not understand EDNS, asks again without it.
    async fn ask_one(&self, server: IpAddr, query: &Query<'_>, via: Via) -> io::Result<Vec<u8>> {
        let server = SocketAddr::new(server, self.port);
        let answer = exchange(server, query, via).await?;
        let is_lost = matches!(code(&answer), RCODE::FormatError | RCODE::NotImplemented);
        if !is_lost || query.size().is_none() {
            return Ok(answer);
        }
        let plain = query.plain();
        match read(&plain) {
            Received::Query(plain) => exchange(server, &plain, via).await,
            _ => Ok(answer),
        }
    }
}

/// Sends a query to a server, and waits for the answer.
async fn exchange(server: SocketAddr, query: &Query<'_>, via: Via) -> io::Result<Vec<u8>> {
    match via {
        Via::Datagram => by_datagram(server, query).await,
        Via::Stream => by_stream(server, query).await,
    }
}

/// A copy of a query with another id.
pub(super) fn with_id(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[..2].copy_from_slice(&id);
    message
}

fn random_id() -> [u8; 2] {
    let mut id = [0; 2];
    crate::meta::names::random(&mut id);
    id
}

/// Uses a random port, and accepts only the answer of the queried server.
async fn by_datagram(server: SocketAddr, query: &Query<'_>) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = random_id();
    let message = with_id(query.whole, id);
    socket.send(&message).await?;
    let mut buffer = vec![0; usize::from(query.size().unwrap_or(PLAIN).max(PLAIN))];
    let lost = tokio::time::sleep(LOST);
    tokio::pin!(lost);
    loop {
        let length = tokio::select! {
            // Cancel-safe: a datagram that was not taken stays in the socket.
            received = socket.recv(&mut buffer) => received?,
            () = &mut lost, if !lost.is_elapsed() => {
                socket.send(&message).await?;
                continue;
            }
        };
        if let Some(answer) = query.heard(u16::from_be_bytes(id), &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, query: &Query<'_>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random_id();
    write_framed(&mut stream, &with_id(query.whole, id)).await?;
    let answer = read_framed(&mut stream).await?;
    let heard = query.heard(u16::from_be_bytes(id), &answer);
    heard.ok_or_else(|| io::Error::other("it answered something else"))
}

#[cfg(test)]
mod tests;
