use std::sync::Arc;

use compact_str::CompactString;
use proptest::prelude::*;

use super::super::width::Width;
use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn arrival(number: u64, width: Width) -> Arrival {
    Arrival {
        schema: "schema".into(),
        flow: CompactString::default(),
        number,
        width,
        user: "jane".into(),
        info: Arc::default(),
    }
}

fn wide(seats: usize) -> Width {
    Width {
        first: seats,
        ..Width::ONE
    }
}

fn queuing(queues: usize, hand: usize, length: usize) -> Response {
    Response::Queue(Queuing {
        queues,
        hand,
        length,
    })
}

/// A queue set whose wakers are names.
fn set(response: Response, limit: usize) -> QueueSet<&'static str> {
    QueueSet::new(response, limit)
}

impl QueueSet<&'static str> {
    /// Starts a named request at a time in milliseconds.
    fn ask(&mut self, at: u32, number: u64, width: Width, name: &'static str) -> Start {
        let start = self.start(MILLI * at, arrival(number, width));
        if let Start::Wait(ticket) = start {
            self.wake_by(ticket, name);
        }
        start
    }
}

fn ticket(start: Start) -> Ticket {
    match start {
        Start::Run(ticket) | Start::Wait(ticket) => ticket,
        Start::Refuse(why) => panic!("{why:?}"),
    }
}

#[test]
fn the_exempt_never_wait() {
    let mut set = set(Response::Exempt, 0);
    let all: Vec<Start> = (0..50).map(|_| set.ask(0, 0, wide(9), "")).collect();
    assert!(all.iter().all(|start| matches!(start, Start::Run(_))));
    for start in all {
        set.end(MILLI, ticket(start));
    }
    assert!(set.is_idle() && set.seats == 0 && set.requests.is_empty());
}

#[test]
fn without_queues_what_finds_no_seats_is_refused() {
    let mut set = set(Response::Reject, 3);
    let first = set.ask(0, 0, wide(2), "");
    assert_eq!(set.ask(0, 0, wide(2), ""), Start::Refuse(Reason::Limit));
    assert!(matches!(set.ask(0, 0, Width::ONE, ""), Start::Run(_)));
    assert_eq!(set.ask(0, 0, Width::ONE, ""), Start::Refuse(Reason::Limit));
    set.end(MILLI, ticket(first));
    assert!(matches!(set.ask(1, 0, wide(2), ""), Start::Run(_)));
    assert_eq!((set.counts.dispatched, set.counts.rejected), (3, 2));
}

#[test]
fn those_who_wait_are_let_in_in_turn_and_too_many_are_refused() {
    let mut set = set(queuing(1, 1, 2), 1);
    let first = ticket(set.ask(0, 0, Width::ONE, "first"));
    let second = ticket(set.ask(0, 0, Width::ONE, "second"));
    assert!(matches!(set.ask(0, 0, Width::ONE, "third"), Start::Wait(_)));
    assert_eq!(set.ask(0, 0, Width::ONE, ""), Start::Refuse(Reason::Full));
    assert_eq!(set.woken(), Vec::<&str>::new());
    set.end(MILLI, first);
    assert_eq!(set.woken(), ["second"]);
    set.end(MILLI * 2, second);
    assert_eq!(set.woken(), ["third"]);
    assert_eq!((set.waiting(), set.running()), (0, 1));
}

#[test]
fn who_gives_up_makes_room_and_who_was_let_in_before_does_not() {
    let mut set = set(queuing(1, 1, 1), 1);
    let first = ticket(set.ask(0, 0, Width::ONE, "first"));
    let second = ticket(set.ask(0, 0, Width::ONE, "second"));
    assert!(set.give_up(MILLI, second) && !set.give_up(MILLI, second));
    assert_eq!((set.counts.rejected, set.counts.cancelled), (1, 1));
    let third = ticket(set.ask(1, 0, Width::ONE, "third"));
    set.end(MILLI * 2, first);
    // It was dispatched at the same moment, so it has seats to release.
    assert!(!set.give_up(MILLI * 2, third));
    assert_eq!(set.running(), 1);
    set.end(MILLI * 2, third);
    assert!(set.is_idle() && set.requests.is_empty());
}

#[test]
fn one_that_asks_for_much_does_not_keep_another_out() {
    let mut set = set(queuing(2, 1, 50), 1);
    // The hashes 0 and 1 are dealt different queues.
    let mut running = ticket(set.ask(0, 0, Width::ONE, "busy"));
    for _ in 0..20 {
        set.ask(0, 0, Width::ONE, "busy");
    }
    set.ask(1, 1, Width::ONE, "modest");
    set.ask(1, 1, Width::ONE, "modest");
    let mut order = Vec::new();
    for at in 1..=6_u32 {
        set.end(MILLI * 10 * at, running);
        let [name] = set.woken()[..] else {
            panic!("one after the other");
        };
        order.push(name);
        let mut runs = set.requests().filter(|(_, request)| request.runs());
        running = runs.next().expect("one runs").0;
    }
    let second = order.iter().skip(1).position(|name| *name == "modest");
    assert!(
        order.contains(&"modest") && second.is_some_and(|at| at < 4),
        "{order:?}"
    );
}

#[test]
fn a_wide_request_has_what_it_takes_and_more_than_all_alone() {
    let mut set = set(queuing(1, 1, 9), 4);
    let first = ticket(set.ask(0, 0, wide(3), "first"));
    let second = set.ask(0, 0, wide(2), "second");
    assert!(matches!(second, Start::Wait(_)), "only one seat is left");
    // A later request does not overtake it.
    assert!(matches!(set.ask(0, 0, Width::ONE, "third"), Start::Wait(_)));
    set.end(MILLI, first);
    assert_eq!(set.woken(), ["second", "third"]);
    let giant = ticket(set.ask(1, 0, wide(9), "giant"));
    set.end(MILLI, ticket(second));
    assert_eq!(set.woken(), Vec::<&str>::new());
    let third = set
        .requests()
        .find(|(_, request)| request.runs())
        .map(|(ticket, _)| ticket);
    set.end(MILLI, third.expect("the third runs"));
    assert_eq!(set.woken(), ["giant"]);
    set.end(MILLI, giant);
    assert!(set.is_idle());
}

#[test]
fn seats_are_kept_while_a_write_lingers() {
    let mut set = set(queuing(1, 1, 9), 1);
    let width = Width::write(100, 10);
    let first = ticket(set.ask(0, 0, width, "first"));
    assert!(matches!(
        set.ask(0, 0, Width::ONE, "second"),
        Start::Wait(_)
    ));
    let lingers = set.end(MILLI, first).expect("it lingers");
    // Ten seats for five milliseconds, but there is only one seat.
    assert_eq!(lingers, MILLI * 50);
    assert_eq!((set.running(), set.woken().len()), (0, 0));
    set.release(MILLI + lingers, first);
    assert_eq!(set.woken(), ["second"]);
}

#[test]
fn more_seats_let_more_in_and_queues_that_are_too_many_go_when_they_are_empty() {
    let mut set = set(queuing(4, 1, 9), 1);
    let tickets: Vec<Ticket> = (0..4)
        .map(|number| ticket(set.ask(0, number, Width::ONE, "next")))
        .collect();
    set.configure(MILLI, queuing(2, 1, 9), 2);
    assert_eq!((set.woken().len(), set.queues().len()), (1, 4));
    set.configure(MILLI, queuing(2, 1, 9), 4);
    assert_eq!((set.woken().len(), set.queues().len()), (2, 4));
    for ticket in tickets {
        set.end(MILLI * 2, ticket);
    }
    assert_eq!(set.queues().len(), 2);
    assert!(matches!(set.ask(3, 7, Width::ONE, ""), Start::Run(_)));
}

proptest! {
    #[test]
    fn seats_are_never_too_many_and_never_idle_while_somebody_waits(
        limit in 1..6_usize,
        steps in prop::collection::vec((0..6_u32, 0..5_u64, 1..4_usize), 1..200),
    ) {
        let mut set = set(queuing(4, 2, 3), limit);
        let mut here: Vec<Ticket> = Vec::new();
        let mut lingering: Vec<Ticket> = Vec::new();
        let mut now = Duration::ZERO;
        for (what, number, seats) in steps {
            now += MILLI;
            match what {
                0..=2 => {
                    let width = match what {
                        0 => Width::ONE,
                        1 => wide(seats),
                        _ => Width { first: 1, last: seats, lingers: MILLI },
                    };
                    match set.start(now, arrival(number, width)) {
                        Start::Run(ticket) | Start::Wait(ticket) => here.push(ticket),
                        Start::Refuse(why) => prop_assert_eq!(why, Reason::Full),
                    }
                }
                3 if !lingering.is_empty() => set.release(now, lingering.swap_remove(0)),
                4 if !here.is_empty() => {
                    let at = usize::try_from(number).unwrap() % here.len();
                    if set.give_up(now, here[at]) {
                        here.swap_remove(at);
                    }
                }
                _ if !here.is_empty() => {
                    let ticket = here.swap_remove(usize::try_from(number).unwrap() % here.len());
                    if set.end(now, ticket).is_some() {
                        lingering.push(ticket);
                    }
                }
                _ => {}
            }
            let all: Vec<&Request<&str>> = set.requests.values().collect();
            let held = |request: &&&Request<&str>| request.state != State::Waits;
            let seats: usize = all.iter().filter(held).map(|request| request.seats()).sum();
            prop_assert_eq!(seats, set.seats);
            // A request wider than the limit runs alone, except for those that only linger.
            let run = all.iter().filter(|request| request.runs());
            let run: usize = run.map(|request| request.seats()).sum();
            prop_assert!(run <= limit || set.running == 1, "{} of {}", run, limit);
            let waiting = all.iter().filter(|request| request.state == State::Waits).count();
            prop_assert_eq!(waiting, set.waiting);
            prop_assert_eq!(set.queues.iter().filter(|queue| !queue.is_idle()).count(), set.busy);
            prop_assert!(set.next().is_none() || set.seats >= limit, "somebody could run");
            prop_assert!(set.queues.iter().all(|queue| queue.work >= 0));
        }
        for ticket in here.into_iter().chain(lingering) {
            set.end(now, ticket);
            set.release(now, ticket);
        }
        prop_assert!(set.is_idle() && set.requests.is_empty());
        prop_assert_eq!((set.seats, set.waiting_seats, set.busy), (0, 0, 0));
        prop_assert!(set.queues.iter().all(|queue| queue.work == 0 && queue.seats == 0));
    }
}
