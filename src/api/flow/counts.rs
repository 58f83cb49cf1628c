//! Metrics of priority levels and flow schemas, with upstream's names (k8s.io/apiserver/pkg/util/flowcontrol/metrics).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::demand::Found;
use super::request::{Arrival, Reason};
use super::shares::Bounds;
use crate::meta::prometheus::{Families, Histogram};

/// Upper bounds of the wait time histogram's buckets, in seconds.
static WAITS: [f64; 13] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0,
];

/// The values of the label `reason` of rejected requests.
const REASONS: [(Reason, &str); 3] = [
    (Reason::Limit, "concurrency-limit"),
    (Reason::Full, "queue-full"),
    (Reason::Late, "time-out"),
];

/// Counters of one level.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By flow schema.
    schemas: BTreeMap<Arc<str>, OfSchema>,
    /// Dispatched requests.
    pub dispatched: u64,
    /// Rejected requests.
    pub rejected: u64,
    /// Rejected requests that had waited.
    pub cancelled: u64,
}

#[derive(Clone, Debug)]
struct OfSchema {
    waiting: i64,
    waiting_seats: i64,
    running: i64,
    seats: i64,
    dispatched: u64,
    rejected: [u64; REASONS.len()],
    /// Wait times of rejected and of dispatched requests.
    waits: [Histogram; 2],
}

impl Default for OfSchema {
    fn default() -> Self {
        OfSchema {
            waiting: 0,
            waiting_seats: 0,
            running: 0,
            seats: 0,
            dispatched: 0,
            rejected: [0; REASONS.len()],
            waits: [Histogram::new(&WAITS), Histogram::new(&WAITS)],
        }
    }
}

impl Counts {
    fn of(&mut self, arrival: &Arrival) -> &mut OfSchema {
        if !self.schemas.contains_key(&arrival.schema) {
            self.schemas
                .insert(arrival.schema.clone(), OfSchema::default());
        }
        self.schemas.entry(arrival.schema.clone()).or_default()
    }

    /// Adds `more` (1 or -1) to the waiting requests.
    pub fn waits(&mut self, arrival: &Arrival, more: i64) {
        let seats = signed(arrival.width.most());
        let of = self.of(arrival);
        of.waiting += more;
        of.waiting_seats += more * seats;
    }

    /// A request starts executing.
    pub fn begins(&mut self, arrival: &Arrival) {
        self.dispatched += 1;
        let seats = signed(arrival.width.most());
        let of = self.of(arrival);
        of.dispatched += 1;
        of.running += 1;
        of.seats += seats;
    }

    /// A request was answered.
    pub fn ends(&mut self, arrival: &Arrival) {
        self.of(arrival).running -= 1;
    }

    /// A request releases its seats.
    pub fn leaves(&mut self, arrival: &Arrival) {
        let seats = signed(arrival.width.most());
        self.of(arrival).seats -= seats;
    }

    /// A request waited this long, and then was dispatched or not.
    pub fn waited(&mut self, arrival: &Arrival, let_in: bool, waited: Duration) {
        self.of(arrival).waits[usize::from(let_in)].add(waited.as_secs_f64());
    }

    /// A request was rejected.
    pub fn refused(&mut self, arrival: &Arrival, reason: Reason) {
        self.rejected += 1;
        self.cancelled += u64::from(reason == Reason::Late);
        let at = REASONS.iter().position(|(known, _)| *known == reason);
        let of = self.of(arrival);
        if let Some(count) = at.and_then(|at| of.rejected.get_mut(at)) {
            *count += 1;
        }
    }
}

fn signed(seats: usize) -> i64 {
    i64::try_from(seats).unwrap_or(i64::MAX)
}

/// The state of a level at one moment.
pub struct Level {
    /// Its name.
    pub name: Arc<str>,
    /// The bounds of its concurrency limit.
    pub bounds: Bounds,
    /// Its current concurrency limit, in seats.
    pub limit: usize,
    /// Its demand for seats.
    pub demand: Found,
    /// Its counters.
    pub counts: Counts,
}

/// Writes the metrics of all levels.
pub fn tell(levels: &[Level], out: &mut Families) {
    type OfLevel = fn(&Level) -> f64;
    let of_levels: [(&str, &str, OfLevel); 8] = [
        (
            "nominal_limit_seats",
            "Seats that a priority level has by its shares.",
            |level| level.bounds.nominal as f64,
        ),
        (
            "lower_limit_seats",
            "Seats that a priority level keeps, whatever others need.",
            |level| level.bounds.least as f64,
        ),
        (
            "upper_limit_seats",
            "Seats that a priority level has at most.",
            |level| level.bounds.most as f64,
        ),
        (
            "current_limit_seats",
            "Seats that a priority level has now.",
            |level| level.limit as f64,
        ),
        (
            "demand_seats_high_watermark",
            "The most seats that a priority level could use in the last period.",
            |level| level.demand.peak,
        ),
        (
            "demand_seats_average",
            "The seats that a priority level could use on average in the last period.",
            |level| level.demand.average,
        ),
        (
            "demand_seats_stdev",
            "How far the seats that a priority level could use went from their average.",
            |level| level.demand.deviation,
        ),
        (
            "demand_seats_smoothed",
            "The seats that a priority level can use, smoothed over time.",
            |level| level.demand.smoothed,
        ),
    ];
    for (name, help, of) in of_levels {
        let name = format!("{FLOW}_{name}");
        let mut family = out.begin(&name, "gauge", help);
        for level in levels {
            let labels = format_args!("priority_level={:?}", level.name);
            family.series(labels, of(level));
        }
    }
    type OfOne = fn(&OfSchema) -> i64;
    let of_schemas: [(&str, &str, OfOne); 4] = [
        (
            "current_inqueue_requests",
            "Requests that wait in queues.",
            |of| of.waiting,
        ),
        (
            "current_inqueue_seats",
            "Seats that requests in queues wait for.",
            |of| of.waiting_seats,
        ),
        (
            "current_executing_requests",
            "Requests that are being answered; of watches, those that begin.",
            |of| of.running,
        ),
        (
            "current_executing_seats",
            "Seats of the requests that are being answered, or that linger.",
            |of| of.seats,
        ),
    ];
    for (name, help, value) in of_schemas {
        let name = format!("{FLOW}_{name}");
        let mut family = out.begin(&name, "gauge", help);
        for (level, schema, of) in series(levels) {
            family.series(labels(level, schema), value(of));
        }
    }
    let name = format!("{FLOW}_dispatched_requests_total");
    let mut family = out.begin(&name, "counter", "Requests that were let in.");
    for (level, schema, of) in series(levels).filter(|(.., of)| of.dispatched > 0) {
        family.series(labels(level, schema), of.dispatched);
    }
    let name = format!("{FLOW}_rejected_requests_total");
    let mut family = out.begin(&name, "counter", "Requests that were refused, by why.");
    for (level, schema, of) in series(levels) {
        for ((_, reason), count) in REASONS
            .iter()
            .zip(of.rejected)
            .filter(|(_, count)| *count > 0)
        {
            let labels = format!("{},reason=\"{reason}\"", labels(level, schema));
            family.series(labels, count);
        }
    }
    let name = format!("{FLOW}_request_wait_duration_seconds");
    let help = "How long requests waited, in seconds, by whether they were let in.";
    let mut family = out.begin(&name, "histogram", help);
    for (level, schema, of) in series(levels) {
        for (let_in, waits) in [false, true].into_iter().zip(&of.waits) {
            let labels = format!("execute=\"{let_in}\",{}", labels(level, schema));
            family.histogram(&labels, waits);
        }
    }
}

const FLOW: &str = "apiserver_flowcontrol";

fn series(levels: &[Level]) -> impl Iterator<Item = (&str, &str, &OfSchema)> {
    levels.iter().flat_map(|level| {
        let schemas = level.counts.schemas.iter();
        schemas.map(|(schema, of)| (&*level.name, &**schema, of))
    })
}

fn labels(level: &str, schema: &str) -> String {
    format!("flow_schema={schema:?},priority_level={level:?}")
}
