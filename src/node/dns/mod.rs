//! The name server of a node's pods: names of services from caches, other names from the servers that the host asks.
//!
//! ```text
//!  informers --changes--> directory --find--> answer (pure) --records--> message --bytes--> sockets
//!                                                |                                            ^
//!                                                '--what others know--> forward --bytes------'
//! ```
//! Names that are known are answered where they are received; what others are asked for is a task each, so that nobody
//! who asks for a service waits for the world.

mod answer;
mod cache;
mod directory;
mod forward;
mod loops;
mod message;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use simple_dns::rdata::RData;
use simple_dns::{Name, RCODE, ResourceRecord};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::answer::{Outcome, Zone};
use self::cache::Cache;
use self::directory::Directory;
use self::forward::{Forwarder, read_framed, write_framed};
use self::message::{Query, Received, Reply, Via};
use super::services::Services;
use crate::listen;
use crate::meta::time;

/// The port of name servers.
pub const PORT: u16 = 53;
/// As many questions are asked of others at the same time; who asks for more is told that it failed.
const FORWARDED: usize = 1000;
/// As many of them may be of one client, so that none keeps the names of the world from the others.
const FORWARDED_OF_ONE: usize = 200;
/// As many tasks answer datagrams.
const ANSWERING: usize = 4;
/// As many connections are held at the same time; others wait to be accepted.
const CONNECTIONS: usize = 256;
/// As many of them may be of one client, so that none keeps the others out; more are closed.
const OF_ONE: usize = 32;
/// How long a connection may be idle, or an answer may take to be taken.
const IDLE: Duration = Duration::from_secs(10);
/// No query is longer, in bytes.
const QUERY: usize = 4096;

/// A name server that listens. Cheap where nobody asks.
pub struct Server {
    datagrams: Arc<UdpSocket>,
    streams: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    zone: Zone,
    directory: Arc<RwLock<Directory>>,
    forwarder: Forwarder,
    forwarded: Semaphore,
    forwarded_of: Seats,
    cache: Mutex<Cache>,
}

/// What is to be done about a message.
enum Step<'a> {
    /// Nothing.
    Ignore,
    /// To answer this.
    Send(Vec<u8>),
    /// To pass it on.
    Forward(Query<'a>),
    /// To find out where the last of some aliases leads.
    Follow {
        query: Query<'a>,
        answers: Vec<ResourceRecord<'a>>,
        target: Name<'a>,
    },
}

impl Shared {
    /// Decides about a message by what is known here.
    fn decide<'a>(&self, bytes: &'a [u8], via: Via) -> Step<'a> {
        let query = match message::read(bytes) {
            Received::Nothing => return Step::Ignore,
            Received::Wrong(reply) => return Step::Send(reply),
            Received::Query(query) => query,
        };
        if query.kind == loops::KIND && self.forwarder.loops.came_back(&query.name) {
            return Step::Send(query.refusal(RCODE::Refused));
        }
        match answer::answer(&query, &self.directory.read(), &self.zone) {
            Outcome::Answer(reply) => Step::Send(query.write(&reply, via)),
            Outcome::Refusal(code) => Step::Send(query.refusal(code)),
            Outcome::Elsewhere => Step::Forward(query),
            Outcome::Alias { answers, target } => Step::Follow {
                query,
                answers,
                target,
            },
        }
    }

    /// Answers a message, if it wants an answer.
    async fn respond(&self, bytes: &[u8], via: Via, from: IpAddr) -> Option<Vec<u8>> {
        match self.decide(bytes, via) {
            Step::Ignore => None,
            Step::Send(reply) => Some(reply),
            Step::Forward(query) => {
                let answer = self.ask(&query, via, from).await;
                Some(answer.unwrap_or_else(|| query.refusal(RCODE::ServerFailure)))
            }
            Step::Follow {
                query,
                answers,
                target,
            } => {
                let answer = self.follow(&query, answers, &target, (via, from)).await;
                Some(answer.unwrap_or_else(|| query.refusal(RCODE::ServerFailure)))
            }
        }
    }

    /// Asks others, unless too much is asked of them already, or by this client alone.
    async fn ask(&self, query: &Query<'_>, via: Via, from: IpAddr) -> Option<Vec<u8>> {
        let known = self.cache.lock().find(query, via, Instant::now());
        if known.is_some() {
            return known;
        }
        let _place = self.forwarded.try_acquire().ok()?;
        let _seat = Seat::take(&self.forwarded_of, from, FORWARDED_OF_ONE)?;
        let answer = self.forwarder.ask(query, via).await?;
        self.cache.lock().keep(query, via, &answer, Instant::now());
        Some(answer)
    }

    /// Aliases with what others know of the target of the last one.
    async fn follow(
        &self,
        query: &Query<'_>,
        answers: Vec<ResourceRecord<'_>>,
        target: &Name<'_>,
        (via, from): (Via, IpAddr),
    ) -> Option<Vec<u8>> {
        let asked = message::query(target, query.kind, query.size()).ok()?;
        let Received::Query(further) = message::read(&asked) else {
            return None;
        };
        let said = self.ask(&further, via, from).await?;
        let packet = message::read_answer(&said)?;
        let missing = match packet.rcode() {
            RCODE::NoError => false,
            RCODE::NameError => true,
            _ => return None,
        };
        let truncated = packet.has_flags(simple_dns::PacketFlag::TRUNCATION);
        let mut all = answers;
        all.extend(packet.answers);
        // How long it holds that there is none (RFC 2308).
        let mut authority = packet.name_servers;
        authority.retain(|record| matches!(record.rdata, RData::SOA(_)));
        let reply = Reply {
            missing,
            truncated,
            foreign: true,
            answers: all,
            authority,
            ..Reply::default()
        };
        Some(query.write(&reply, via))
    }

    /// Answers datagrams until `ends` is cancelled.
    async fn serve_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>, ends: CancellationToken) {
        let mut buffer = vec![0; QUERY];
        let mut tasks = JoinSet::new();
        loop {
            let received = tokio::select! {
                // Cancel-safe: a datagram that was not taken stays in the socket.
                received = socket.recv_from(&mut buffer) => received,
                Some(_) = tasks.join_next() => continue,
                () = ends.cancelled() => return,
            };
            let (length, from) = match received {
                Ok(received) => received,
                Err(error) => {
                    // That somebody did not take an answer, most likely.
                    tracing::debug!(%error, "a datagram cannot be received");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let bytes = &buffer[..length];
            match self.decide(bytes, Via::Datagram) {
                Step::Ignore => {}
                Step::Send(reply) => send(&socket, &reply, from).await,
                Step::Forward(_) | Step::Follow { .. } => {
                    let (shared, socket, bytes) = (self.clone(), socket.clone(), bytes.to_vec());
                    tasks.spawn(async move {
                        let replied = shared.respond(&bytes, Via::Datagram, from.ip()).await;
                        if let Some(reply) = replied {
                            send(&socket, &reply, from).await;
                        }
                    });
                }
            }
        }
    }

    /// Answers what comes by connections until `ends` is cancelled.
    async fn serve_streams(self: Arc<Self>, listener: &TcpListener, ends: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let seats = Arc::new(Mutex::new(HashMap::new()));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                // Nothing closes the semaphore.
                let place = places.clone().acquire_owned().await.ok();
                (place, listen::next("DNS", || listener.accept()).await)
            };
            let (place, (stream, from)) = tokio::select! {
                // Cancel-safe: a connection that was not taken stays in the queue, and a place is given back.
                accepted = accept => accepted,
                () = ends.cancelled() => return,
            };
            while connections.try_join_next().is_some() {}
            let Some(seat) = Seat::take(&seats, from.ip(), OF_ONE) else {
                tracing::debug!(%from, "a client of the name server has too many connections");
                continue;
            };
            let shared = self.clone();
            connections.spawn(async move {
                let _held = (place, seat);
                if let Err(error) = shared.converse(stream, from.ip()).await {
                    tracing::debug!(%error, "a connection of a client of the name server ends");
                }
            });
        }
    }

    /// Answers the queries of one connection in their order.
    async fn converse(&self, mut stream: TcpStream, from: IpAddr) -> io::Result<()> {
        loop {
            let query = tokio::time::timeout(IDLE, read_framed(&mut stream)).await??;
            if let Some(reply) = self.respond(&query, Via::Stream, from).await {
                tokio::time::timeout(IDLE, write_framed(&mut stream, &reply)).await??;
            }
        }
    }
}

/// How many connections, or questions, each client has.
type Seats = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of a client's, as long as it is held.
struct Seat {
    seats: Seats,
    of: IpAddr,
}

impl Seat {
    /// One for a client, unless it has all that it may have.
    fn take(seats: &Seats, of: IpAddr, most: usize) -> Option<Seat> {
        let mut taken = seats.lock();
        let own = taken.entry(of).or_default();
        (*own < most).then(|| {
            *own += 1;
            Seat {
                seats: seats.clone(),
                of,
            }
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(own) = taken.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(reply, to).await {
        tracing::debug!(%error, %to, "an answer cannot be sent");
    }
}

impl Server {
    /// Listens at an address for names of a cluster's domain, and others that the servers know that `resolv` names.
    ///
    /// # Errors
    /// Somebody else listens there, or it is not an address of this host.
    pub async fn bind(at: SocketAddr, domain: &str, resolv: PathBuf) -> io::Result<Server> {
        Ok(Server {
            datagrams: Arc::new(UdpSocket::bind(at).await?),
            streams: TcpListener::bind(at).await?,
            shared: Arc::new(Shared {
                zone: Zone::new(domain, at.ip()),
                directory: Arc::default(),
                forwarder: Forwarder::new(resolv, at.ip(), PORT),
                forwarded: Semaphore::new(FORWARDED),
                forwarded_of: Seats::default(),
                cache: Mutex::default(),
            }),
        })
    }

    /// Serves the names of services until `ends` is cancelled. It may be run again, with another subscription.
    pub async fn run(&self, services: Services, ends: CancellationToken) {
        let directory = &self.shared.directory;
        // An earlier run may know what is gone by now.
        *directory.write() = Directory::default();
        let now = || u32::try_from(time::now()).unwrap_or_default();
        let known = directory.clone();
        services.services.subscribe(move |change| {
            let mut known = known.write();
            known.serial = now();
            known.take_service(&change);
        });
        let known = directory.clone();
        services.slices.subscribe(move |change| {
            let mut known = known.write();
            known.serial = now();
            known.take_slice(&change);
        });
        let known = directory.clone();
        let complete = async {
            tokio::join!(services.services.synced(), services.slices.synced());
            known.write().complete = true;
        };
        // One that writes a long answer holds up no other.
        let answering: JoinSet<()> = (0..ANSWERING)
            .map(|_| {
                let shared = self.shared.clone();
                shared.serve_datagrams(self.datagrams.clone(), ends.clone())
            })
            .collect();
        let answers = async {
            tokio::join!(
                complete,
                answering.join_all(),
                self.shared.clone().serve_streams(&self.streams, ends),
            )
        };
        tokio::select! {
            _ = answers => {}
            () = self.shared.forwarder.look_for_loops() => {}
        }
    }
}

#[cfg(test)]
mod tests;
