//! Limits how fast and how far an autoscaler scales: by its recent recommendations, its recent changes, and its
//! behavior. Follows k8s.io/kubernetes/pkg/controller/podautoscaler/horizontal.go (normalizeDesiredReplicas and the
//! functions it calls).

use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// The default stabilization window for scaling down.
pub const DOWNSCALE_WINDOW: Duration = Duration::from_secs(300);
/// The longest window or policy period that a behavior can have.
const LONGEST: Duration = Duration::from_secs(3600);

/// A recommended number of replicas, or a change of it, at a time.
type At = (i32, Instant);

/// The history of an autoscaler.
#[derive(Debug, Default)]
pub struct History {
    recommendations: Vec<At>,
    added: Vec<At>,
    removed: Vec<At>,
}

/// The reason and message of a condition.
pub type Said = (&'static str, &'static str);

/// The resulting number of replicas, and the conditions that explain it.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The number.
    pub replicas: i32,
    /// The reason and message of AbleToScale, which is true.
    pub able: Said,
    /// The status of the condition ScalingLimited.
    pub is_limited: bool,
    /// Its reason and message.
    pub limited: Said,
}

/// Current, desired and allowed numbers of replicas.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The current number.
    pub current: i32,
    /// The number desired by metrics.
    pub desired: i32,
    /// `minReplicas`.
    pub min: i32,
    /// `maxReplicas`.
    pub max: i32,
}

const READY: Said = ("ReadyForNewScale", "recommended size matches current size");
const WITHIN: Said = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const TOO_FAST_UP: Said = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const TOO_FAST_DOWN: Said = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const TOO_MANY: Said = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FEW: Said = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const STABLE_UP: Said = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const STABLE_DOWN: Said = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);

fn since(list: &[At], now: Instant, period: Duration) -> impl Iterator<Item = i32> {
    let recent = move |(_, at): &&At| now.saturating_duration_since(*at) < period;
    list.iter().filter(recent).map(|(number, _)| *number)
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl History {
    /// At the first sync, records the current number as the recommendation.
    pub fn begin(&mut self, current: i32, now: Instant) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    /// Records a change of the number of replicas.
    pub fn scaled(&mut self, from: i32, to: i32, now: Instant) {
        match to > from {
            true => self.added.push((to - from, now)),
            false => self.removed.push((from - to, now)),
        }
        for list in [&mut self.added, &mut self.removed] {
            list.retain(|(_, at)| now.saturating_duration_since(*at) <= LONGEST);
        }
    }

    /// Limits the number that metrics ask for, and records that as a recommendation.
    pub fn judge(
        &mut self,
        asked: Asked,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        now: Instant,
    ) -> Verdict {
        let (stable, why) = match behavior {
            None => self.highest(asked.desired, now),
            Some(behavior) => self.stable(asked, behavior, now),
        };
        self.recommendations
            .retain(|(_, at)| now.saturating_duration_since(*at) <= LONGEST);
        self.recommendations.push((asked.desired, now));
        let able = if stable == asked.desired { READY } else { why };
        let asked = Asked {
            desired: stable,
            ..asked
        };
        let (replicas, limited) = match behavior {
            None => bounded(asked),
            Some(behavior) => self.paced(asked, behavior, now),
        };
        Verdict {
            replicas,
            able,
            is_limited: replicas != stable,
            limited,
        }
    }

    fn highest(&self, desired: i32, now: Instant) -> (i32, Said) {
        let recent = since(&self.recommendations, now, DOWNSCALE_WINDOW);
        (recent.fold(desired, i32::max), STABLE_DOWN)
    }

    /// The current number, moved between the lowest recommendation in the scale-up window and the highest in the
    /// scale-down window.
    fn stable(
        &self,
        asked: Asked,
        behavior: &HorizontalPodAutoscalerBehavior,
        now: Instant,
    ) -> (i32, Said) {
        let window = |rules: Option<&HPAScalingRules>, default: Duration| {
            rules
                .and_then(|rules| rules.stabilization_window_seconds)
                .map_or(default, seconds)
        };
        let up = window(behavior.scale_up.as_ref(), Duration::ZERO);
        let down = window(behavior.scale_down.as_ref(), DOWNSCALE_WINDOW);
        let lowest = since(&self.recommendations, now, up).fold(asked.desired, i32::min);
        let highest = since(&self.recommendations, now, down).fold(asked.desired, i32::max);
        let why = match asked.desired >= asked.current {
            true => STABLE_UP,
            false => STABLE_DOWN,
        };
        (asked.current.max(lowest).min(highest), why)
    }

    /// Applies the policies of a behavior.
    fn paced(
        &self,
        asked: Asked,
        behavior: &HorizontalPodAutoscalerBehavior,
        now: Instant,
    ) -> (i32, Said) {
        let Asked {
            current,
            desired,
            min,
            max,
        } = asked;
        if desired > current {
            let limit = self.limit(current, behavior.scale_up.as_ref(), true, now);
            let limit = limit.max(current);
            let (most, why) = match max > limit {
                true => (limit, TOO_FAST_UP),
                false => (max, TOO_MANY),
            };
            if desired > most {
                return (most, why);
            }
        } else if desired < current {
            let limit = self.limit(current, behavior.scale_down.as_ref(), false, now);
            let limit = limit.min(current);
            let (least, why) = match min < limit {
                true => (limit, TOO_FAST_DOWN),
                false => (min, TOO_FEW),
            };
            if desired < least {
                return (least, why);
            }
        }
        (desired, WITHIN)
    }

    /// How far the policies of `rules` allow scaling up or down from `current`.
    fn limit(&self, current: i32, rules: Option<&HPAScalingRules>, up: bool, now: Instant) -> i32 {
        // The API defaults both rules of a behavior, with policies.
        let Some(rules) = rules else {
            return current;
        };
        let change = |value: i32, start: i32, kind: &str| match (kind, up) {
            ("Pods", true) => start.saturating_add(value),
            ("Pods", false) => start.saturating_sub(value),
            // Rounded up: a percentage of a small number would otherwise never add a replica.
            (_, true) => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32,
            (_, false) => (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32,
        };
        let proposals = rules.policies.iter().flatten().map(|policy| {
            let period = seconds(policy.period_seconds);
            let added: i32 = since(&self.added, now, period).sum();
            let removed: i32 = since(&self.removed, now, period).sum();
            change(policy.value, current - added + removed, &policy.type_)
        });
        let chosen = match (rules.select_policy.as_deref(), up) {
            (Some("Disabled"), _) => None,
            (Some("Min"), true) | (Some("Max") | None, false) => proposals.min(),
            (_, true) | (Some("Min"), false) => proposals.max(),
            _ => proposals.min(),
        };
        chosen.unwrap_or(current)
    }
}

/// Keeps within minimum and maximum, and below the larger of four and twice the current number.
fn bounded(asked: Asked) -> (i32, Said) {
    let limit = asked.current.saturating_mul(2).max(4);
    let (most, why) = match asked.max > limit {
        true => (limit, TOO_FAST_UP),
        false => (asked.max, TOO_MANY),
    };
    match asked.desired {
        desired if desired < asked.min => (asked.min, TOO_FEW),
        desired if desired > most => (most, why),
        desired => (desired, WITHIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked(current: i32, desired: i32) -> Asked {
        Asked {
            current,
            desired,
            min: 1,
            max: 20,
        }
    }

    fn behavior(up: Value, down: Value) -> HorizontalPodAutoscalerBehavior {
        serde_json::from_value(json!({"scaleUp": up, "scaleDown": down})).expect("a behavior")
    }

    #[test]
    fn without_a_behavior_the_highest_of_five_minutes_counts_and_growth_is_bounded() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::default();
        history.begin(4, start);
        let rows = [
            // current, desired, when: replicas, AbleToScale, ScalingLimited
            (4, 3, 1, 4, STABLE_DOWN, false, WITHIN),
            (4, 15, 2, 8, READY, true, TOO_FAST_UP),
            (8, 30, 3, 16, READY, true, TOO_FAST_UP),
            (16, 30, 4, 20, READY, true, TOO_MANY),
            (20, 2, 200, 20, STABLE_DOWN, true, TOO_MANY),
            (20, 2, 304, 2, READY, false, WITHIN),
            (2, 0, 605, 1, READY, true, TOO_FEW),
            (1, 4, 606, 4, READY, false, WITHIN),
        ];
        for (current, desired, when, replicas, able, is_limited, limited) in rows {
            let verdict = history.judge(asked(current, desired), None, at(when));
            let wanted = Verdict {
                replicas,
                able,
                is_limited,
                limited,
            };
            assert_eq!(verdict, wanted, "{current} to {desired} at {when}");
        }
    }

    #[test]
    fn policies_bound_how_much_changes_in_their_periods() {
        let policies = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 60},
            {"type": "Percent", "value": 50, "periodSeconds": 60}
        ]);
        let rules = |select: &str| json!({"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": policies});
        let start = Instant::now();
        // current, desired, selectPolicy: replicas
        let rows = [
            (2, 20, "Max", 6),
            (2, 20, "Min", 3),
            (10, 20, "Max", 15),
            (10, 20, "Min", 14),
            (10, 20, "Disabled", 10),
            (10, 1, "Max", 5),
            (10, 1, "Min", 6),
            (10, 1, "Disabled", 10),
            (3, 1, "Max", 1),
            (10, 9, "Max", 9),
        ];
        for (current, desired, select, replicas) in rows {
            let behavior = behavior(rules(select), rules(select));
            let mut history = History::default();
            let verdict = history.judge(asked(current, desired), Some(&behavior), start);
            assert_eq!(verdict.replicas, replicas, "{current} {desired} {select}");
            assert_eq!(verdict.is_limited, replicas != desired);
        }
        // A recent change counts; after the period it no longer does.
        let behavior = behavior(rules("Max"), rules("Max"));
        let mut history = History::default();
        history.scaled(10, 15, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let judge = |history: &mut History, when| {
            history
                .judge(asked(15, 20), Some(&behavior), at(when))
                .replicas
        };
        assert_eq!(judge(&mut history, 30), 15);
        assert_eq!(judge(&mut history, 61), 20);
    }

    #[test]
    fn windows_of_a_behavior_hold_back_in_both_directions() {
        let rules = json!({"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
        let behavior = behavior(rules.clone(), rules);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::default();
        let mut judge = |current, desired, when| {
            let verdict = history.judge(asked(current, desired), Some(&behavior), at(when));
            (verdict.replicas, verdict.able)
        };
        assert_eq!(judge(5, 5, 0), (5, READY));
        assert_eq!(judge(5, 8, 10), (5, STABLE_UP));
        assert_eq!(judge(5, 8, 61), (8, READY));
        assert_eq!(judge(8, 2, 70), (8, STABLE_DOWN));
        assert_eq!(judge(8, 2, 122), (2, READY));
    }
}
