//! The requests of one priority level: which are executing, which wait in which queue, and which is next. A state
//! machine without clock, lock or task: the caller passes the time and wakes the requests it returns. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset.
//!
//! Fair queuing: queues are served as if all of them progressed at the same time. `meter` is the work (seat-seconds)
//! that each busy queue would have had so far; a queue's `next` is the reading at which its first request would begin;
//! the request that would end first is dispatched first. Unlike upstream's, the meter is an integer that never needs to
//! be reset, and surplus queues after a configuration change are removed from the end as they become empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::counts::Counts;
use super::deal::deal;
use super::demand::{Demand, Found};
use super::request::{
    Arrival, Queue, Queuing, Reason, Request, Response, Start, State, Ticket, Work, ten_nanos, work,
};
use super::width::SERVICE;

/// The requests of a level. `W` wakes a waiting request.
pub struct QueueSet<W> {
    response: Response,
    limit: usize,
    queues: Vec<Queue>,
    requests: BTreeMap<Ticket, Request<W>>,
    tickets: Ticket,
    /// The queues with waiting requests.
    nonempty: BTreeSet<usize>,
    /// How many queues have waiting or executing requests.
    busy: usize,
    meter: Work,
    at: Duration,
    /// The queue that was served last.
    served: usize,
    /// How many requests have been queued; rotates the queue of a hand that is tried first.
    arrivals: usize,
    waiting: usize,
    waiting_seats: usize,
    running: usize,
    seats: usize,
    demand: Demand,
    woken: Vec<W>,
    /// The metrics.
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

    /// Changes the settings. Requests that are waiting stay in their queues.
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

    /// Adds a request. If it has to wait, pass its waker to [`Self::wake_by`].
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

    /// Sets the waker of a waiting request.
    pub fn wake_by(&mut self, ticket: Ticket, wake: W) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.wake = Some(wake);
        }
    }

    /// Takes the wakers of the requests dispatched since the last call.
    pub fn woken(&mut self) -> Vec<W> {
        std::mem::take(&mut self.woken)
    }

    /// Removes a waiting request. Returns false if it is not waiting: if it is executing, it must be ended.
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
        // The request may have wanted more seats than were free and blocked those behind it. Upstream leaves them
        // waiting.
        self.dispatch(now);
        true
    }

    /// Ends a request, whether it was answered or gave up waiting. If it keeps seats for some more time, returns for
    /// how long; [`Self::release`] must be called then.
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
            // Replace the estimated service time by the real one.
            own.next -= width.first as i128 * (ten_nanos(SERVICE) - ten_nanos(took));
            self.busy -= usize::from(own.is_idle());
            self.bound(queue);
        }
        if width.lingers.is_zero() {
            self.release(now, ticket);
            return None;
        }
        // A request wider than the limit waits only for executing requests, so it may be dispatched now.
        self.dispatch(now);
        Some(width.lingers)
    }

    /// Releases the seats of a request that was answered.
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

    /// Ends a period of demand statistics.
    pub fn demand(&mut self, now: Duration, before: Found) -> Found {
        self.demand.ends(now, before)
    }

    fn refuse(&mut self, arrival: &Arrival, reason: Reason) -> Start {
        self.counts.refused(arrival, reason);
        Start::Refuse(reason)
    }

    /// Advances the meter to `now`.
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

    /// The queue with the least waiting work among those of a flow's hand.
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

    /// Removes a request from its queue.
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

    /// Dispatches requests while there are free seats.
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

    /// The waiting request that would end first, if there are seats for it. Ties go to the next queue after the one
    /// served last.
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

    /// Whether so many seats are free. A request wider than the limit runs alone.
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

    /// A queue gets no credit for the time before its first waiting request arrived.
    fn bound(&mut self, queue: usize) {
        let own = &mut self.queues[queue];
        if let Some(first) = own.waiting.front()
            && let Some(request) = self.requests.get(first)
        {
            own.next = own.next.max(request.reading);
        }
    }

    /// Whether there are no requests.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many requests are executing.
    pub fn running(&self) -> usize {
        self.running
    }

    /// The queues, in order.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// All requests, in order of arrival.
    pub fn requests(&self) -> impl Iterator<Item = (Ticket, &Request<W>)> {
        self.requests
            .iter()
            .map(|(ticket, request)| (*ticket, request))
    }

    /// The request with this ticket.
    pub fn request(&self, ticket: Ticket) -> Option<&Request<W>> {
        self.requests.get(&ticket)
    }
}

#[cfg(test)]
mod tests;
