//! Who is answered when more is asked than the server can do at once: API Priority and Fairness. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol and pkg/server/filters/priority-and-fairness.go.
//!
//! A request belongs to a flow schema (`classify`) and by it to a priority level, whose seats are its part of the server's
//! (`shares`) by what it could use lately (`demand`). It takes seats by what it costs (`width`); where there are none, it
//! is refused or waits in a queue (`queues`, `deal`), with its body unread. All of that decides without clock or task;
//! `levels` keeps it as the objects say, and here requests wait for real. Requests from within this process are not held
//! up: what waits may wait for them.

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

/// A request came from the network, from this address where the system tells it, and not from within this process, where
/// one may wait for another.
#[derive(Clone, Copy)]
pub struct Remote(pub Option<SocketAddr>);

/// How many requests are answered at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whether by priority levels, which have both numbers together.
    pub fair: bool,
    /// Requests that read.
    pub reading: usize,
    /// Requests that change something.
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

/// Lets requests in. Clones are the same.
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
    /// By their number alone.
    Plain(InFlight),
}

/// When the server began, by the clock that goes evenly and by the one on the wall.
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

/// A request as it is let in or not.
pub struct Entry {
    /// What its answer tells of its flow schema and level.
    pub uids: Option<Uids>,
    /// Its seats until it is answered, or how many seconds whoever asks is to wait.
    pub seats: Result<Seats, i64>,
}

impl Entry {
    /// One that nothing limits.
    fn free() -> Entry {
        Entry {
            uids: None,
            seats: Ok(Seats::default()),
        }
    }
}

/// The seats of a request, given back when they are dropped.
#[derive(Default)]
pub struct Seats {
    _place: inflight::Place,
    _taken: Option<Taken>,
}

/// A request that is in a level, whether it runs or waits.
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
            // The process ends.
            Err(_) => release(),
        }
    }
}

impl Flow {
    /// Lets in so many at once.
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

    /// Lets a request of `user` in, or has it wait for at most `patience` until there are seats. `width` says how many
    /// it takes, given the most that it may.
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
        // There is always one.
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

    /// Takes seats of a level; none where there are none for too long, or nobody may wait.
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
        // From here on what is taken is given back, even where nobody waits for the answer any more.
        let taken = taken(ticket);
        let Some(woken) = waits else {
            return Some(taken);
        };
        let woken = tokio::time::timeout(patience, woken).await;
        // Who is let in at the last moment is in.
        let in_vain = woken.is_err() && level.change(|set| set.give_up(clock.now(), ticket));
        (!in_vain).then_some(taken)
    }

    /// Takes over what the stored objects say.
    pub fn digest(&self, levels: &[Arc<Value>], schemas: &[Arc<Value>]) {
        if let How::Fair { levels: kept, now } = &self.0.how {
            let mut kept = kept.lock();
            now.store(Arc::new(kept.digest(self.0.begun.now(), levels, schemas)));
        }
    }

    /// Shares seats out again.
    pub fn adjust(&self) {
        if let How::Fair { levels, .. } = &self.0.how {
            levels.lock().adjust(self.0.begun.now());
        }
    }

    /// Tells what was counted.
    pub fn tell(&self, out: &mut Families) {
        if let How::Fair { levels, .. } = &self.0.how {
            let counted = levels.lock().counted();
            counts::tell(&counted, out);
        }
    }

    /// The dump of that name, with what requests are about if `details`; none where there is none.
    pub fn dump(&self, name: &str, details: bool) -> Option<String> {
        match &self.0.how {
            How::Fair { levels, .. } => dump::dump(&levels.lock(), name, details, self.0.begun.1),
            How::Plain(_) => None,
        }
    }

    /// Counts a watch that has begun, until what is returned is dropped.
    pub fn watches(&self, info: &Info, query: &Query) -> Option<Open> {
        self.0.watched.open(info, query)
    }

    /// How many seats a request takes, which may be `most`.
    pub fn width(&self, cluster: &Cluster, info: &Info, query: &Query, most: usize) -> Width {
        let watches = || self.0.watched.count(info);
        width::estimate(cluster, info, query, watches, most)
    }
}

#[cfg(test)]
mod tests;
