//! The scheduler's metrics, under upstream's names. Follows k8s.io/kubernetes/pkg/scheduler/metrics.

use std::time::Duration;

use tokio::time::Instant;

use super::pod::SCHEDULER;
use super::queue::Attempt;
use super::state::State;
use crate::meta::prometheus::{Families, Histogram, exponential};

/// Buckets for the duration of attempts, in seconds.
static ATTEMPT: [f64; 15] = exponential(0.001, 2.0);
/// Buckets for the time until a pod is placed, in seconds.
static UNTIL_PLACED: [f64; 20] = exponential(0.01, 2.0);
static VICTIMS: [f64; 7] = exponential(1.0, 2.0);
static TRIES: [f64; 5] = exponential(1.0, 2.0);
/// Pods with at least so many attempts are counted together.
const MANY: usize = 15;

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API rejected a request, or another error occurred.
    Error,
    /// The pod was placed.
    Scheduled,
    /// No node was suitable.
    Unschedulable,
}

impl Outcome {
    const ALL: [(Outcome, &str); 3] = [
        (Outcome::Error, "error"),
        (Outcome::Scheduled, "scheduled"),
        (Outcome::Unschedulable, "unschedulable"),
    ];
}

/// The scheduler's counters.
#[derive(Clone)]
pub struct Counts {
    /// By [`Outcome`].
    attempts: [Histogram; 3],
    algorithm: Histogram,
    preemptions: u64,
    victims: Histogram,
    tries: Histogram,
    /// By the number of attempts, starting with one.
    until_placed: Vec<Histogram>,
    after_flush: u64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            attempts: std::array::from_fn(|_| Histogram::new(&ATTEMPT)),
            algorithm: Histogram::new(&ATTEMPT),
            preemptions: 0,
            victims: Histogram::new(&VICTIMS),
            tries: Histogram::new(&TRIES),
            until_placed: vec![Histogram::new(&UNTIL_PLACED); MANY],
            after_flush: 0,
        }
    }
}

impl Counts {
    /// Records the end of an attempt.
    pub fn ended(&mut self, outcome: Outcome, took: Duration) {
        self.attempts[outcome as usize].add(took.as_secs_f64());
    }

    /// Records a decision.
    pub fn decided(&mut self, took: Duration) {
        self.algorithm.add(took.as_secs_f64());
    }

    /// Records a preemption attempt.
    pub fn looked_for_victims(&mut self) {
        self.preemptions += 1;
    }

    /// Records pods preempted for another.
    pub fn ends(&mut self, victims: usize) {
        self.victims.add(victims as f64);
    }

    /// Records a bound pod.
    pub fn bound(&mut self, attempt: &Attempt, now: Instant) {
        self.ended(Outcome::Scheduled, now - attempt.begun);
        self.tries.add(f64::from(attempt.number));
        let place = (attempt.number as usize).clamp(1, MANY) - 1;
        self.until_placed[place].add((now - attempt.since).as_secs_f64());
        self.after_flush += u64::from(attempt.is_flushed);
    }

    fn tell(&self, out: &mut Families) {
        let mut family = out.begin(
            "scheduler_pod_scheduled_after_flush_total",
            "counter",
            "[ALPHA] Pods that were placed when they were tried again because they had waited for very long.",
        );
        family.series("", self.after_flush);
        let mut family = out.begin(
            "scheduler_pod_scheduling_attempts",
            "histogram",
            "[STABLE] How many attempts it took to place a pod.",
        );
        family.histogram("", &self.tries);
        let mut family = out.begin(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "histogram",
            "[BETA] How long it took to place a pod from the moment that it could be tried, over all attempts.",
        );
        for (place, histogram) in self.until_placed.iter().enumerate() {
            let number = place + 1;
            let more = if number == MANY { "+" } else { "" };
            family.histogram(&format!("attempts=\"{number}{more}\""), histogram);
        }
        let mut family = out.begin(
            "scheduler_preemption_attempts_total",
            "counter",
            "[STABLE] How often it was looked for pods to end, so that another has room.",
        );
        family.series("", self.preemptions);
        let mut family = out.begin(
            "scheduler_preemption_victims",
            "histogram",
            "[STABLE] How many pods are ended for one.",
        );
        family.histogram("", &self.victims);
        let mut family = out.begin(
            "scheduler_schedule_attempts_total",
            "counter",
            "[STABLE] Attempts to place pods, by what came of them.",
        );
        let of = |name: &str| format!("profile=\"{SCHEDULER}\",result=\"{name}\"");
        for (outcome, name) in Outcome::ALL {
            match self.attempts[outcome as usize].count() {
                0 => {}
                count => drop(family.series(of(name), count)),
            }
        }
        let mut family = out.begin(
            "scheduler_scheduling_algorithm_duration_seconds",
            "histogram",
            "[BETA] How long decisions took.",
        );
        family.histogram("", &self.algorithm);
        let mut family = out.begin(
            "scheduler_scheduling_attempt_duration_seconds",
            "histogram",
            "[STABLE] How long attempts took, decision and binding.",
        );
        for (outcome, name) in Outcome::ALL {
            family.histogram(&of(name), &self.attempts[outcome as usize]);
        }
    }
}

/// Writes all metrics and queue lengths. The state is only locked for copying them.
pub fn tell(state: &parking_lot::Mutex<State>, out: &mut Families) {
    let (counts, queue, cache) = {
        let state = state.lock();
        let cache = state.snapshot.sizes();
        (state.counts.clone(), state.queue.tally(), cache)
    };
    let mut family = out.begin(
        "scheduler_cache_size",
        "gauge",
        "[ALPHA] How many nodes and placed pods are known, and how many pods are assumed to be placed.",
    );
    for (kind, size) in cache {
        family.series(format_args!("type=\"{kind}\""), size);
    }
    let mut family = out.begin(
        "scheduler_pending_pods",
        "gauge",
        "[STABLE] How many pods wait, by where: active for those that are next, backoff, unschedulable, gated.",
    );
    for (name, size) in queue.waiting {
        family.series(format_args!("queue=\"{name}\""), size);
    }
    counts.tell(out);
    let mut family = out.begin(
        "scheduler_queue_incoming_pods_total",
        "counter",
        "[STABLE] How many pods were put where they wait, by why.",
    );
    for ((name, event), count) in queue.incoming {
        family.series(format_args!("event={event:?},queue=\"{name}\""), count);
    }
    let mut family = out.begin(
        "scheduler_unschedulable_pods",
        "gauge",
        "[BETA] How many pods without a place a rule said no to.",
    );
    for (plugin, count) in queue.rejected {
        let labels = format_args!("plugin=\"{plugin}\",profile=\"{SCHEDULER}\"");
        family.series(labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_told_by_what_came_of_them() {
        let mut counts = Counts::default();
        let begun = Instant::now();
        let now = begun + Duration::from_millis(30);
        counts.ended(Outcome::Unschedulable, Duration::from_millis(3));
        counts.ended(Outcome::Error, Duration::from_millis(3));
        for (number, is_flushed) in [(1, false), (2, true), (40, false)] {
            let attempt = Attempt {
                begun,
                since: begun,
                number,
                is_flushed,
            };
            counts.bound(&attempt, now);
        }
        counts.looked_for_victims();
        counts.ends(3);
        let mut out = Families::default();
        counts.tell(&mut out);
        let text = out.into_text();
        let profile = "profile=\"default-scheduler\"";
        for line in [
            format!("scheduler_schedule_attempts_total{{{profile},result=\"scheduled\"}} 3"),
            format!("scheduler_schedule_attempts_total{{{profile},result=\"error\"}} 1"),
            format!("scheduler_schedule_attempts_total{{{profile},result=\"unschedulable\"}} 1"),
            format!(
                "scheduler_scheduling_attempt_duration_seconds_bucket{{{profile},result=\"scheduled\",le=\"0.032\"}} 3"
            ),
            "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"1\"} 1".to_owned(),
            "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"2\"} 1".to_owned(),
            "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"15+\"} 1".to_owned(),
            "scheduler_pod_scheduling_attempts_sum 43".to_owned(),
            "scheduler_pod_scheduled_after_flush_total 1".to_owned(),
            "scheduler_preemption_attempts_total 1".to_owned(),
            "scheduler_preemption_victims_bucket{le=\"4\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
    }
}
