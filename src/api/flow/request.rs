//! The types of priority levels: requests, how they are queued, and their outcome.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;

use super::width::Width;
use crate::api::request_info::Info;

/// Seats multiplied by time, in units of ten nanoseconds.
pub type Work = i128;

/// The work of some seats over some time.
pub fn work(seats: usize, time: Duration) -> Work {
    seats as i128 * ten_nanos(time)
}

pub fn ten_nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos() / 10).unwrap_or(i128::MAX)
}

/// What happens to requests when there are no free seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// They never need seats.
    Exempt,
    /// They are rejected.
    Reject,
    /// They wait.
    Queue(Queuing),
}

/// The queuing of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    /// The number of queues.
    pub queues: usize,
    /// How many of them each flow may use.
    pub hand: usize,
    /// How many requests may wait in a queue.
    pub length: usize,
}

/// An arriving request.
pub struct Arrival {
    /// Its flow schema.
    pub schema: Arc<str>,
    /// Its flow distinguisher.
    pub flow: CompactString,
    /// The hash of its flow.
    pub number: u64,
    /// Its seats.
    pub width: Width,
    /// The user, for dumps.
    pub user: CompactString,
    /// The request's attributes, for dumps.
    pub info: Arc<Info>,
}

/// Identifies a request within its level.
pub type Ticket = u64;

/// The immediate outcome for an arriving request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It runs.
    Run(Ticket),
    /// It waits.
    Wait(Ticket),
    /// It is rejected.
    Refuse(Reason),
}

/// Why a request was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There are no free seats, and the level has no queues.
    Limit,
    /// Its queue is full.
    Full,
    /// It waited too long.
    Late,
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In its queue.
    Waits,
    /// It runs.
    Runs,
    /// It was answered, but keeps seats for the work that it caused.
    Lingers,
}

/// A request in a level.
pub struct Request<W> {
    /// What arrived.
    pub arrival: Arrival,
    /// When it arrived.
    pub arrived: Duration,
    /// When it started executing.
    pub began: Option<Duration>,
    pub state: State,
    /// Its queue, if the level has queues.
    pub queue: Option<usize>,
    /// The reading of the meter when it arrived.
    pub reading: Work,
    pub wake: Option<W>,
}

impl<W> Request<W> {
    /// Whether it is executing.
    pub fn runs(&self) -> bool {
        self.state == State::Runs
    }

    /// The seats that it takes.
    pub fn seats(&self) -> usize {
        self.arrival.width.most()
    }
}

/// A queue of requests.
#[derive(Debug, Default)]
pub struct Queue {
    /// The waiting requests, in order.
    pub waiting: VecDeque<Ticket>,
    /// How many are executing.
    pub running: usize,
    /// The seats of executing and lingering requests.
    pub seats: usize,
    /// The reading of the meter at which its first request begins.
    pub next: Work,
    /// The work of its waiting requests.
    pub work: Work,
}

impl Queue {
    /// Whether no request waits or executes.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }
}
