//! The demand for seats of a level over time. Follows k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/integrator.go
//! and `seatDemandStats` in apf_controller.go.

use std::time::Duration;

/// The weight of the previous smoothed value at each adjustment; its half-life is five minutes.
const STAYS: f64 = 0.977;

/// Integrates the seats in use and waited for over a period.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    since: Duration,
    now: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
    peak: f64,
}

/// Statistics of the periods so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// The highest demand in the last period.
    pub peak: f64,
    /// The average demand in the last period.
    pub average: f64,
    /// The standard deviation in the last period.
    pub deviation: f64,
    /// Average plus deviation; rises at once and falls slowly.
    pub smoothed: f64,
}

impl Demand {
    /// Sets the demand from `at` on.
    pub fn set(&mut self, at: Duration, seats: usize) {
        self.advance(at);
        self.now = seats as f64;
        self.peak = self.peak.max(self.now);
    }

    fn advance(&mut self, at: Duration) {
        let seconds = at.saturating_sub(self.since).as_secs_f64();
        self.since = at;
        self.seconds += seconds;
        self.sum += self.now * seconds;
        self.squares += self.now * self.now * seconds;
    }

    /// Ends the period at `at` and begins the next. Returns the new statistics, given the previous ones.
    pub fn ends(&mut self, at: Duration, before: Found) -> Found {
        self.advance(at);
        let done = std::mem::replace(
            self,
            Demand {
                since: at,
                now: self.now,
                peak: self.now,
                ..Demand::default()
            },
        );
        if done.seconds <= 0.0 {
            return Found {
                peak: done.peak,
                ..before
            };
        }
        let average = done.sum / done.seconds;
        let variance = (done.squares / done.seconds - average * average).max(0.0);
        let deviation = variance.sqrt();
        let envelope = average + deviation;
        Found {
            peak: done.peak,
            average,
            deviation,
            smoothed: envelope.max(STAYS * before.smoothed + (1.0 - STAYS) * envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let seconds = Duration::from_secs;
        let mut demand = Demand::default();
        demand.set(seconds(2), 10);
        demand.set(seconds(4), 0);
        let first = demand.ends(seconds(8), Found::default());
        let average = 20.0 / 8.0;
        let deviation = (200.0_f64 / 8.0 - average * average).sqrt();
        assert_eq!(
            first,
            Found {
                peak: 10.0,
                average,
                deviation,
                smoothed: average + deviation
            }
        );
        let second = demand.ends(seconds(18), first);
        assert_eq!((second.peak, second.average), (0.0, 0.0));
        assert_eq!(second.smoothed, STAYS * first.smoothed);
        // The current demand carries over to the next period; a period of length zero updates only the peak.
        demand.set(seconds(18), 3);
        let third = demand.ends(seconds(18), second);
        assert_eq!((third.peak, third.smoothed), (3.0, second.smoothed));
        let fourth = demand.ends(seconds(19), third);
        assert_eq!(
            (fourth.peak, fourth.average, fourth.deviation),
            (3.0, 3.0, 0.0)
        );
    }
}
