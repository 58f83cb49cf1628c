//! What priority levels are made of: requests, how they wait, and what becomes of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;

use super::width::Width;
use crate::api::request_info::Info;

/// Seats times time, in units of ten nanoseconds.
pub type Work = i128;

/// The work of some seats over some time.
pub fn work(seats: usize, time: Duration) -> Work {
    seats as i128 * ten_nanos(time)
}

pub fn ten_nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos() / 10).unwrap_or(i128::MAX)
}

/// What happens to requests for which there are no seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// There are always seats.
    Exempt,
    /// They are refused.
    Reject,
    /// They wait.
    Queue(Queuing),
}

/// How requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    /// How many queues there are.
    pub queues: usize,
    /// Of how many of them a flow may use any.
    pub hand: usize,
    /// How many may wait in a queue.
    pub length: usize,
}

/// A request that arrives.
pub struct Arrival {
    /// Its flow schema.
    pub schema: Arc<str>,
    /// What tells its flow from others of the schema.
    pub flow: CompactString,
    /// By which its flow is dealt its queues.
    pub number: u64,
    /// Its seats.
    pub width: Width,
    /// Who asks, and
    pub user: CompactString,
    /// what for; both for those who look.
    pub info: Arc<Info>,
}

/// Names a request among those of its level.
pub type Ticket = u64;

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It runs.
    Run(Ticket),
    /// It waits.
    Wait(Ticket),
    /// It is refused.
    Refuse(Reason),
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No seats, and nobody may wait.
    Limit,
    /// Too many wait.
    Full,
    /// It waited for too long.
    Late,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In its queue.
    Waits,
    /// It runs.
    Runs,
    /// It was answered, and what it has caused goes on.
    Lingers,
}

/// A request that is here.
pub struct Request<W> {
    /// What arrived.
    pub arrival: Arrival,
    /// When it arrived.
    pub arrived: Duration,
    /// When it began to run.
    pub began: Option<Duration>,
    pub state: State,
    /// Its queue, where there are queues.
    pub queue: Option<usize>,
    /// The reading of the meter when it arrived.
    pub reading: Work,
    pub wake: Option<W>,
}

impl<W> Request<W> {
    /// Whether it is being answered.
    pub fn runs(&self) -> bool {
        self.state == State::Runs
    }

    /// All seats that it takes.
    pub fn seats(&self) -> usize {
        self.arrival.width.most()
    }
}

/// Requests that wait for one another.
#[derive(Debug, Default)]
pub struct Queue {
    /// Those that wait, the first first.
    pub waiting: VecDeque<Ticket>,
    /// How many run.
    pub running: usize,
    /// The seats of those that run or linger.
    pub seats: usize,
    /// At which reading of the meter the first of them begins.
    pub next: Work,
    /// The work of those that wait.
    pub work: Work,
}

impl Queue {
    /// Whether nobody waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }
}
