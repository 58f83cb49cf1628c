//! The `Retry-After` of rejected requests, which grows with the rate of rejections. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/dropped_requests_tracker.go.

/// The longest `Retry-After`, in seconds.
const LONGEST: i64 = 32;

/// The recent rejections of a level.
#[derive(Debug)]
pub struct Refusals {
    /// How many requests were rejected in which second, oldest first; the last second may still be running.
    history: Vec<(i64, i64)>,
    after: i64,
    /// When `after` was last increased.
    raised: i64,
}

impl Default for Refusals {
    fn default() -> Self {
        Refusals {
            history: Vec::new(),
            after: 1,
            raised: 0,
        }
    }
}

impl Refusals {
    /// Counts a rejection in the second `now`. Returns after how many seconds the client may retry.
    pub fn refuse(&mut self, now: i64) -> i64 {
        match self.history.last_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => {
                self.history.push((now, 1));
                self.adapt(now);
            }
        }
        self.after
    }

    /// Doubles `after` if at least three requests per second were rejected within the last `after` seconds, but at most
    /// once in that time; decrements it if it was less than one per second.
    fn adapt(&mut self, now: i64) {
        let oldest = now - LONGEST;
        self.history.retain(|(second, _)| *second >= oldest);
        let within = |(second, _): &&(i64, i64)| (now - self.after..now).contains(second);
        let lately: i64 = self
            .history
            .iter()
            .filter(within)
            .map(|(_, count)| count)
            .sum();
        if now - self.raised >= self.after && lately >= 3 * self.after {
            self.after = (2 * self.after).min(LONGEST);
            self.raised = now;
        } else if lately < self.after && self.after > 1 {
            self.after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_refused_the_longer_the_wait_is() {
        let mut refusals = Refusals::default();
        let mut now = 1_000;
        let mut second = |count, expected: i64| {
            for _ in 0..count {
                assert_eq!(refusals.refuse(now), expected, "{now}");
            }
            now += 1;
        };
        second(3, 1);
        // Three within the last second.
        second(5, 2);
        // Eight within the last two seconds, but it was raised within them.
        second(1, 2);
        second(1, 4);
        for _ in 0..3 {
            second(0, 4);
        }
        // One within the last four seconds.
        second(1, 3);
        second(1, 2);
        second(1, 2);
    }

    #[test]
    fn nobody_waits_for_longer_than_half_a_minute() {
        let mut refusals = Refusals::default();
        let waits: Vec<i64> = (0..200)
            .flat_map(|second| [second; 4])
            .map(|second| refusals.refuse(second))
            .collect();
        assert_eq!(waits.last(), Some(&LONGEST));
    }
}
