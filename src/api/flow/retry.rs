//! When whoever was refused is to come again: the more are refused, the later. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/dropped_requests_tracker.go.

/// The longest that anybody is told to wait, in seconds.
const LONGEST: i64 = 32;

/// What a level refused lately.
#[derive(Debug)]
pub struct Refusals {
    /// Seconds and how many were refused in them, the oldest first; the last may go on.
    history: Vec<(i64, i64)>,
    after: i64,
    /// When the wait was last made longer.
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
    /// Notes a refusal in the second `now`; for how many seconds whoever it is told to is to wait.
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

    /// Doubles the wait where at least three a second were refused for as long as it is, but not twice within it; makes
    /// it a second shorter where less than one a second was.
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
        // Eight within the last two, but it was raised within them.
        second(1, 2);
        second(1, 4);
        for _ in 0..3 {
            second(0, 4);
        }
        // One within the last four.
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
