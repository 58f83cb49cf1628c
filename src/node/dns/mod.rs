//! The name server of a node's pods: services from caches, other names from the name servers of the host.
//!
//! ```text
//!  informers --changes--> directory --find--> answer (pure) --records--> message --bytes--> sockets
//!                                                |                                            ^
//!                                                '--external names--> forward --bytes---------'
//! ```
//! Known names are answered where they are received. Each forwarded query has its own task, so that queries for
//! services do not wait for external ones.

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
/// How many forwarded queries may run at once; more get SERVFAIL.
const FORWARDED: usize = 1000;
/// How many of them may belong to one client, so that it cannot block external names for others.
const FORWARDED_OF_ONE: usize = 200;
/// How many tasks answer datagrams.
const ANSWERING: usize = 4;
/// How many connections are open at once; others wait to be accepted.
const CONNECTIONS: usize = 256;
/// How many of them may belong to one client, so that it cannot block others; more are closed.
const OF_ONE: usize = 32;
/// How long a connection may be idle, or writing an answer may take.
const IDLE: Duration = Duration::from_secs(10);
/// The longest query, in bytes.
const QUERY: usize = 4096;

/// A listening name server. It costs little while nobody asks.
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

/// What to do with a message.
enum Step<'a> {
    /// Nothing.
    Ignore,
    /// Send this answer.
    Send(Vec<u8>),
    /// Forward the query.
    Forward(Query<'a>),
    /// Resolve the target of the last alias.
    Follow {
        query: Query<'a>,
        answers: Vec<ResourceRecord<'a>>,
        target: Name<'a>,
    },
}

impl Shared {
    /// Decides about a message with the local information.
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

    /// The answer to a message, if it needs one.
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

    /// Forwards a query, unless too many are running already, in total or for this client.
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

    /// Aliases, with the records that upstream servers have for the last one's target.
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
        // The SOA record with the TTL of negative answers (RFC 2308).
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
                    // Most likely the recipient of an answer was unreachable.
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

    /// Answers queries over connections until `ends` is cancelled.
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
                // Cancel-safe: a connection that was not accepted stays in the queue, and a permit is returned.
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
                    tracing::debug!(%error, "a client's connection to the name server ended");
                }
            });
        }
    }

    /// Answers the queries of one connection in order.
    async fn converse(&self, mut stream: TcpStream, from: IpAddr) -> io::Result<()> {
        loop {
            let query = tokio::time::timeout(IDLE, read_framed(&mut stream)).await??;
            if let Some(reply) = self.respond(&query, Via::Stream, from).await {
                tokio::time::timeout(IDLE, write_framed(&mut stream, &reply)).await??;
            }
        }
    }
}

/// The number of connections, or queries, of each client.
type Seats = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of a client's, released when it is dropped.
struct Seat {
    seats: Seats,
    of: IpAddr,
}

impl Seat {
    /// One for a client, unless it has reached its limit.
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
    /// Listens at an address, for names in a cluster's domain and those that the servers in `resolv` know.
    ///
    /// # Errors
    /// Another program listens there, or it is not an address of this host.
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
        // An earlier run may have left what no longer exists.
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
        // A task that writes a long answer does not delay the others.
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
