//! The requests of one priority level: which run, which wait in which queue, and who is next. A state machine without
//! clock, lock or task: whoever holds it says what time it is, and wakes whom it names. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset.
//!
//! Queues are served as if all of them worked at the same time: a meter of progress tells how many seat-seconds each has
//! had so far, a queue's `next` tells at which reading its first request would begin, and the request whose end comes
//! first is served. Unlike upstream's, the meter has numbers enough never to be set back, and of queues that are too many
//! after a change those at the end go as soon as they are empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::counts::Counts;
use super::deal::deal;
use super::demand::{Demand, Found};
use super::request::{
    Arrival, Queue, Queuing, Reason, Request, Response, Start, State, Ticket, Work, ten_nanos, work,
};
use super::width::SERVICE;

/// The requests of a level. `W` wakes one that waits.
pub struct QueueSet<W> {
    response: Response,
    limit: usize,
    queues: Vec<Queue>,
    requests: BTreeMap<Ticket, Request<W>>,
    tickets: Ticket,
    /// The queues in which somebody waits.
    nonempty: BTreeSet<usize>,
    /// How many queues are not idle.
    busy: usize,
    meter: Work,
    at: Duration,
    /// The queue that was served last.
    served: usize,
    /// How many have come to queues; where in its hand a flow looks first.
    arrivals: usize,
    waiting: usize,
    waiting_seats: usize,
    running: usize,
    seats: usize,
    demand: Demand,
    woken: Vec<W>,
    /// What is counted.
    pub counts: Counts,
}

impl<W> QueueSet<W> {
    /// A level without requests.
    pub fn new(response: Response, limit: usize) -> Self {
        let mut set = QueueSet {
            response,
            limit,
            queues: Vec::new(),
            requests: BTreeMap::new(),
            tickets: 0,
            nonempty: BTreeSet::new(),
            busy: 0,
            meter: 0,
            at: Duration::ZERO,
            served: 0,
            arrivals: 0,
            waiting: 0,
            waiting_seats: 0,
            running: 0,
            seats: 0,
            demand: Demand::default(),
            woken: Vec::new(),
            counts: Counts::default(),
        };
        set.resize();
        set
    }

    /// Other settings from now on. Those that wait go on waiting, whatever they are.
    pub fn configure(&mut self, now: Duration, response: Response, limit: usize) {
        self.advance(now);
        self.response = response;
        self.limit = limit;
        self.resize();
        self.dispatch(now);
    }

    fn resize(&mut self) {
        let wanted = match self.response {
            Response::Queue(queuing) => queuing.queues,
            Response::Exempt | Response::Reject => 0,
        };
        if self.queues.len() < wanted {
            self.queues.resize_with(wanted, Queue::default);
        }
        let spare = |queue: &Queue| queue.is_idle() && queue.seats == 0;
        while self.queues.len() > wanted && self.queues.last().is_some_and(spare) {
            self.queues.pop();
        }
    }

    /// Takes a request. If it waits, [`Self::wake_by`] says how to wake it.
    pub fn start(&mut self, now: Duration, arrival: Arrival) -> Start {
        self.advance(now);
        let queue = match self.response {
            Response::Queue(queuing) => {
                let queue = self.choose(queuing, arrival.number);
                if self.seats >= self.limit && self.queues[queue].waiting.len() >= queuing.length {
                    return self.refuse(&arrival, Reason::Full);
                }
                Some(queue)
            }
            Response::Exempt | Response::Reject => {
                if !self.has_seats(arrival.width.most()) {
                    return self.refuse(&arrival, Reason::Limit);
                }
                None
            }
        };
        let ticket = self.tickets;
        self.tickets += 1;
        let request = Request {
            arrival,
            arrived: now,
            began: None,
            state: State::Waits,
            queue,
            reading: self.meter,
            wake: None,
        };
        match queue {
            None => {
                self.requests.insert(ticket, request);
                self.run(now, ticket);
            }
            Some(queue) => {
                self.enqueue(ticket, queue, request);
                self.dispatch(now);
            }
        }
        match self.requests[&ticket].state {
            State::Waits => Start::Wait(ticket),
            State::Runs | State::Lingers => Start::Run(ticket),
        }
    }

    /// Says how to wake a request that waits.
    pub fn wake_by(&mut self, ticket: Ticket, wake: W) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.wake = Some(wake);
        }
    }

    /// Those that were let in since this was asked last.
    pub fn woken(&mut self) -> Vec<W> {
        std::mem::take(&mut self.woken)
    }

    /// A request that waits gives up; whether it did wait. One that runs by now does not, and has to be ended.
    pub fn give_up(&mut self, now: Duration, ticket: Ticket) -> bool {
        self.advance(now);
        let Some(request) = self.requests.get(&ticket) else {
            return false;
        };
        let (State::Waits, Some(queue)) = (request.state, request.queue) else {
            return false;
        };
        self.leave(queue, ticket);
        if let Some(request) = self.requests.remove(&ticket) {
            self.counts.waits(&request.arrival, -1);
            let waited = now.saturating_sub(request.arrived);
            self.counts.waited(&request.arrival, false, waited);
            self.counts.refused(&request.arrival, Reason::Late);
        }
        self.bound(queue);
        self.resize();
        // It may have wanted more seats than were free, and kept others out behind it; upstream leaves those waiting.
        self.dispatch(now);
        true
    }

    /// A request is over, whether it was answered or waits in vain. If it lingers for a while, [`Self::release`] is to be
    /// called after it.
    pub fn end(&mut self, now: Duration, ticket: Ticket) -> Option<Duration> {
        match self.give_up(now, ticket) {
            true => None,
            false => self.finish(now, ticket),
        }
    }

    fn finish(&mut self, now: Duration, ticket: Ticket) -> Option<Duration> {
        self.advance(now);
        let request = self.requests.get_mut(&ticket);
        let request = request.filter(|request| request.runs())?;
        request.state = State::Lingers;
        let (queue, width) = (request.queue, request.arrival.width);
        let took = now.saturating_sub(request.began.unwrap_or(now));
        self.counts.ends(&request.arrival);
        self.running -= 1;
        if let Some(queue) = queue {
            let own = &mut self.queues[queue];
            own.running -= 1;
            // Its work is known now, and not only guessed.
            own.next -= width.first as i128 * (ten_nanos(SERVICE) - ten_nanos(took));
            self.busy -= usize::from(own.is_idle());
            self.bound(queue);
        }
        if width.lingers.is_zero() {
            self.release(now, ticket);
            return None;
        }
        // Who wants more seats than there are waits for those that run, and not for those that linger.
        self.dispatch(now);
        Some(width.lingers)
    }

    /// A request that was answered does not linger any more.
    pub fn release(&mut self, now: Duration, ticket: Ticket) {
        self.advance(now);
        let Some(request) = self.requests.remove(&ticket) else {
            return;
        };
        let seats = request.seats();
        self.seats -= seats;
        if let Some(queue) = request.queue {
            self.queues[queue].seats -= seats;
        }
        self.counts.leaves(&request.arrival);
        self.note_demand();
        self.resize();
        self.dispatch(now);
    }

    /// Ends a period of what is noted of demand.
    pub fn demand(&mut self, now: Duration, before: Found) -> Found {
        self.demand.ends(now, before)
    }

    fn refuse(&mut self, arrival: &Arrival, reason: Reason) -> Start {
        self.counts.refused(arrival, reason);
        Start::Refuse(reason)
    }

    /// Notes that everything was as it is until now.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        if self.busy > 0 {
            let seats = (self.seats + self.waiting_seats).min(self.limit);
            self.meter += work(seats, passed) / self.busy as i128;
        }
    }

    fn note_demand(&mut self) {
        self.demand.set(self.at, self.seats + self.waiting_seats);
    }

    /// The queue of a flow's hand in which the least work waits.
    fn choose(&mut self, queuing: Queuing, number: u64) -> usize {
        let hand = deal(number, queuing.queues, queuing.hand);
        let first = self.arrivals % hand.len();
        self.arrivals = self.arrivals.wrapping_add(1);
        let cards = hand[first..].iter().chain(&hand[..first]).copied();
        cards
            .min_by_key(|card| self.queues[*card].work)
            .unwrap_or(0)
    }

    fn enqueue(&mut self, ticket: Ticket, queue: usize, request: Request<W>) {
        let own = &mut self.queues[queue];
        if own.is_idle() {
            own.next = self.meter;
            self.busy += 1;
        }
        own.waiting.push_back(ticket);
        own.work += request.arrival.width.work();
        self.nonempty.insert(queue);
        self.waiting += 1;
        self.waiting_seats += request.seats();
        self.counts.waits(&request.arrival, 1);
        self.requests.insert(ticket, request);
        self.note_demand();
        self.bound(queue);
    }

    /// Takes a request out of its queue.
    fn leave(&mut self, queue: usize, ticket: Ticket) {
        let (seats, work) = self.requests.get(&ticket).map_or((0, 0), |request| {
            (request.seats(), request.arrival.width.work())
        });
        let own = &mut self.queues[queue];
        match own.waiting.front() {
            Some(first) if *first == ticket => drop(own.waiting.pop_front()),
            _ => own.waiting.retain(|waiting| *waiting != ticket),
        }
        own.work -= work;
        if own.waiting.is_empty() {
            self.nonempty.remove(&queue);
        }
        self.busy -= usize::from(own.is_idle());
        self.waiting -= 1;
        self.waiting_seats -= seats;
        self.note_demand();
    }

    /// Lets in all for whom there are seats.
    fn dispatch(&mut self, now: Duration) {
        while self.seats < self.limit || self.response == Response::Exempt {
            let Some((queue, ticket)) = self.next() else {
                return;
            };
            self.served = queue;
            self.leave(queue, ticket);
            self.run(now, ticket);
            self.bound(queue);
        }
    }

    /// The request that would end first, if there are seats for it. Where several would, it is the turn of the queue
    /// after the one that was served last.
    fn next(&self) -> Option<(usize, Ticket)> {
        let turns = self.nonempty.range(self.served + 1..);
        let turns = turns.chain(self.nonempty.range(..=self.served));
        let first = |queue: &usize| {
            let ticket = *self.queues[*queue].waiting.front()?;
            let end = self.queues[*queue].next + self.requests[&ticket].arrival.width.work();
            Some((end, *queue, ticket))
        };
        let (_, queue, ticket) = turns.filter_map(first).min_by_key(|(end, ..)| *end)?;
        let seats = self.requests[&ticket].seats();
        self.has_seats(seats).then_some((queue, ticket))
    }

    /// Whether so many seats are free. Who wants more than there are has them alone.
    fn has_seats(&self, seats: usize) -> bool {
        match self.response {
            Response::Exempt => true,
            _ if seats > self.limit => self.running == 0,
            _ => self.seats + seats <= self.limit,
        }
    }

    fn run(&mut self, now: Duration, ticket: Ticket) {
        let Some(request) = self.requests.get_mut(&ticket) else {
            return;
        };
        request.state = State::Runs;
        request.began = Some(now);
        if request.queue.is_some() {
            self.counts.waits(&request.arrival, -1);
            request.arrival.width.fit(self.limit);
        }
        let seats = request.seats();
        self.running += 1;
        self.seats += seats;
        if self.response != Response::Exempt {
            let waited = now.saturating_sub(request.arrived);
            self.counts.waited(&request.arrival, true, waited);
        }
        self.counts.begins(&request.arrival);
        self.woken.extend(request.wake.take());
        if let Some(queue) = request.queue {
            let work = request.arrival.width.work();
            let own = &mut self.queues[queue];
            self.busy += usize::from(own.is_idle());
            own.running += 1;
            own.seats += seats;
            own.next += work;
        }
        self.note_demand();
    }

    /// A queue that was not served for long is not owed for the time before its first request came.
    fn bound(&mut self, queue: usize) {
        let own = &mut self.queues[queue];
        if let Some(first) = own.waiting.front()
            && let Some(request) = self.requests.get(first)
        {
            own.next = own.next.max(request.reading);
        }
    }

    /// Whether nobody is here.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// The queues, in order.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// Those who are here, in the order in which they came.
    pub fn requests(&self) -> impl Iterator<Item = (Ticket, &Request<W>)> {
        self.requests
            .iter()
            .map(|(ticket, request)| (*ticket, request))
    }

    /// One of them.
    pub fn request(&self, ticket: Ticket) -> Option<&Request<W>> {
        self.requests.get(&ticket)
    }
}

#[cfg(test)]
mod tests;
