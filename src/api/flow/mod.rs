//! API Priority and Fairness: which requests are served when there are more than the server can handle at once. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol and pkg/server/filters/priority-and-fairness.go.
//!
//! A request belongs to a flow schema (`classify`) and through it to a priority level. A level's seats are its part of
//! the server's (`shares`), adjusted to recent demand (`demand`). A request takes seats according to its cost
//! (`width`); if none are free it is rejected or waits in a queue (`queues`, `deal`), with its body unread. These
//! modules decide without clocks or tasks; `levels` applies the stored objects, and this module makes requests wait.
//! Requests from within this process are not limited, because waiting requests may depend on them.

mod classify;
mod counts;
mod deal;
mod demand;
mod dump;
mod inflight;
mod levels;
mod queues;
mod request;
mod retry;
mod shares;
pub mod stored;
mod watched;
mod width;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use compact_str::CompactString;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::inflight::InFlight;
use self::levels::{Level, Levels, Snapshot, Uids};
use self::request::{Arrival, Response, Start, Ticket};
pub use self::watched::Open;
use self::watched::Watched;
use self::width::Width;
use super::query::Query;
use super::request_info::Info;
use crate::auth::User;
use crate::meta::prometheus::Families;
use crate::meta::time;
use crate::resources::cluster::Cluster;
use crate::schema::Value;

/// Marks a request from the network, with its address if known. Requests from within this process are unmarked and
/// never wait, because others may wait for them.
#[derive(Clone, Copy)]
pub struct Remote(pub Option<SocketAddr>);

/// Limits of concurrent requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whether to use priority levels, which share the sum of both limits.
    pub fair: bool,
    /// Read-only requests.
    pub reading: usize,
    /// Mutating requests.
    pub changing: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            fair: true,
            reading: 400,
            changing: 200,
        }
    }
}

/// Admits requests. Clones share their state.
#[derive(Clone)]
pub struct Flow(Arc<Inner>);

struct Inner {
    how: How,
    begun: Clock,
    watched: Watched,
}

enum How {
    /// By priority levels.
    Fair {
        levels: Mutex<Levels>,
        now: ArcSwap<Snapshot>,
    },
    /// By number only.
    Plain(InFlight),
}

/// When the server started, by the monotonic clock and by the wall clock.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant, SystemTime);

impl Clock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Default for Flow {
    fn default() -> Self {
        Flow::new(Limits::default())
    }
}

/// The outcome of admission.
pub struct Entry {
    /// The UIDs of its flow schema and level, for response headers.
    pub uids: Option<Uids>,
    /// The seats until it is answered, or after how many seconds the client may try again.
    pub seats: Result<Seats, i64>,
}

impl Entry {
    /// A request without limits.
    fn free() -> Entry {
        Entry {
            uids: None,
            seats: Ok(Seats::default()),
        }
    }
}

/// The seats of a request, released when dropped.
#[derive(Default)]
pub struct Seats {
    _place: inflight::Place,
    _taken: Option<Taken>,
}

/// A request in a level, waiting or executing.
struct Taken {
    level: Arc<Level>,
    ticket: Ticket,
    clock: Clock,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let (ticket, clock) = (self.ticket, self.clock);
        let Some(lingers) = self.level.change(|set| set.end(clock.now(), ticket)) else {
            return;
        };
        let level = self.level.clone();
        let release = move || level.change(|set| set.release(clock.now(), ticket));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(lingers).await;
                release();
            })),
            // There is no runtime any more: the process is ending.
            Err(_) => release(),
        }
    }
}

impl Flow {
    /// Admits requests within `limits`.
    pub fn new(limits: Limits) -> Flow {
        let how = match limits.fair {
            true => {
                let (levels, now) = Levels::new(limits.reading + limits.changing);
                How::Fair {
                    levels: Mutex::new(levels),
                    now: ArcSwap::from_pointee(now),
                }
            }
            false => How::Plain(InFlight::new(limits.reading, limits.changing)),
        };
        Flow(Arc::new(Inner {
            how,
            begun: Clock(Instant::now(), SystemTime::now()),
            watched: Watched::default(),
        }))
    }

    /// Admits a request of `user`, after waiting at most `patience` for seats. `width` returns how many seats it takes,
    /// given the most that it may take.
    pub async fn enter(
        &self,
        user: &User,
        info: &Arc<Info>,
        patience: Duration,
        width: impl FnOnce(usize) -> Width,
    ) -> Entry {
        if info.is_long_running() && info.verb != "watch" {
            return Entry::free();
        }
        let snapshot = match &self.0.how {
            How::Fair { now, .. } => now.load_full(),
            How::Plain(places) => {
                let place = places.enter(user, info);
                return Entry {
                    uids: None,
                    seats: place.ok_or(1).map(|place| Seats {
                        _place: place,
                        _taken: None,
                    }),
                };
            }
        };
        // There is always one: catch-all.
        let Some(class) = snapshot.class(user, info) else {
            return Entry::free();
        };
        let mut flow = CompactString::default();
        let mut number = 0;
        if let Response::Queue(queuing) = class.response
            && queuing.queues > 1
        {
            flow = class.schema.distinguisher(user, info).into();
            number = deal::number(&class.schema.name, &flow);
        }
        let arrival = Arrival {
            schema: class.schema.name.clone(),
            flow,
            number,
            width: match class.response {
                Response::Exempt => Width::ONE,
                Response::Reject | Response::Queue(_) => width(class.most),
            },
            user: user.name.clone(),
            info: info.clone(),
        };
        let taken = self.take(&class.level, arrival, patience).await;
        let seats = taken.map(|taken| Seats {
            _place: None,
            _taken: Some(taken),
        });
        Entry {
            uids: Some(class.uids.clone()),
            seats: seats.ok_or_else(|| class.level.refusals.lock().refuse(time::now())),
        }
    }

    /// Takes seats of a level; `None` if the request was rejected or waited in vain.
    async fn take(
        &self,
        level: &Arc<Level>,
        arrival: Arrival,
        patience: Duration,
    ) -> Option<Taken> {
        let clock = self.0.begun;
        let taken = |ticket| Taken {
            level: level.clone(),
            ticket,
            clock,
        };
        let (started, waits) = level.change(|set| {
            let started = set.start(clock.now(), arrival);
            let Start::Wait(ticket) = started else {
                return (started, None);
            };
            let (wake, woken) = oneshot::channel();
            set.wake_by(ticket, wake);
            (started, Some(woken))
        });
        let ticket = match started {
            Start::Refuse(_) => return None,
            Start::Run(ticket) | Start::Wait(ticket) => ticket,
        };
        // From here on the seats are released even if this future is dropped.
        let taken = taken(ticket);
        let Some(woken) = waits else {
            return Some(taken);
        };
        let woken = tokio::time::timeout(patience, woken).await;
        // If the request was dispatched just after the timeout, it is admitted.
        let in_vain = woken.is_err() && level.change(|set| set.give_up(clock.now(), ticket));
        (!in_vain).then_some(taken)
    }

    /// Applies the stored objects.
    pub fn digest(&self, levels: &[Arc<Value>], schemas: &[Arc<Value>]) {
        if let How::Fair { levels: kept, now } = &self.0.how {
            let mut kept = kept.lock();
            now.store(Arc::new(kept.digest(self.0.begun.now(), levels, schemas)));
        }
    }

    /// Adjusts concurrency limits to demand.
    pub fn adjust(&self) {
        if let How::Fair { levels, .. } = &self.0.how {
            levels.lock().adjust(self.0.begun.now());
        }
    }

    /// Writes the metrics.
    pub fn tell(&self, out: &mut Families) {
        if let How::Fair { levels, .. } = &self.0.how {
            let counted = levels.lock().counted();
            counts::tell(&counted, out);
        }
    }

    /// The dump `name`, with the requests' attributes if `details`; `None` if there is no such dump.
    pub fn dump(&self, name: &str, details: bool) -> Option<String> {
        match &self.0.how {
            How::Fair { levels, .. } => dump::dump(&levels.lock(), name, details, self.0.begun.1),
            How::Plain(_) => None,
        }
    }

    /// Counts an open watch until the returned value is dropped.
    pub fn watches(&self, info: &Info, query: &Query) -> Option<Open> {
        self.0.watched.open(info, query)
    }

    /// How many seats a request takes, at most `most`.
    pub fn width(&self, cluster: &Cluster, info: &Info, query: &Query, most: usize) -> Width {
        let watches = || self.0.watched.count(info);
        width::estimate(cluster, info, query, watches, most)
    }
}

#[cfg(test)]
mod tests;
