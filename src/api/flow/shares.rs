//! The concurrency limit of each priority level: its shares of the server's seats, plus what it borrows from levels
//! that do not need theirs at the moment. Pure functions. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go (finishQueueSetReconfigsLocked, updateBorrowingLocked) and
//! the contract of conc_alloc.go.

use crate::schema::Value;

/// The shares of a PriorityLevelConfiguration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// `nominalConcurrencyShares`
    pub shares: i64,
    /// `lendablePercent`
    pub lendable: i64,
    /// `borrowingLimitPercent`; `None` is unlimited.
    pub borrowing: Option<i64>,
}

impl Shares {
    /// Parses the `spec` of a level.
    pub fn of(spec: &Value) -> Shares {
        let settings = spec.get("limited").unwrap_or_else(|| spec.at("exempt"));
        Shares {
            shares: settings.int("nominalConcurrencyShares"),
            lendable: settings.int("lendablePercent"),
            borrowing: settings.at("borrowingLimitPercent").as_int(),
        }
    }
}

/// The bounds of a level's concurrency limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Its nominal limit, from its shares.
    pub nominal: usize,
    /// The seats that it never lends.
    pub least: usize,
    /// The upper limit.
    pub most: usize,
}

impl Bounds {
    /// The bounds of a level with these shares, given the server's `total` seats and the `sum` of all shares.
    pub fn of(shares: Shares, total: usize, sum: i64) -> Bounds {
        // Avoid a division by zero.
        let part = total as f64 * shares.shares as f64 / sum.max(1) as f64;
        let nominal = whole(part.ceil());
        let percent = |of: i64| whole((nominal as f64 * of as f64 / 100.0).round());
        Bounds {
            nominal,
            least: nominal.saturating_sub(percent(shares.lendable)),
            most: nominal + shares.borrowing.map_or(total, percent),
        }
    }
}

/// Converts to a number of seats; negative values become 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(seats: f64) -> usize {
    seats.max(0.0) as usize
}

/// A level's input to the distribution of seats.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Whether its requests never wait; it takes what it needs.
    pub exempt: bool,
    /// The bounds of its limit.
    pub bounds: Bounds,
    /// The highest recent demand.
    pub peak: usize,
    /// The smoothed demand.
    pub demand: f64,
    /// Its current limit.
    pub current: usize,
}

impl Claim {
    /// Its minimum for now: the recent demand as far as its nominal limit covers it.
    fn least(&self) -> usize {
        match self.exempt {
            true => self.bounds.least.max(self.peak),
            false => self.bounds.least.max(self.bounds.nominal.min(self.peak)),
        }
    }

    fn wanted(&self) -> Wanted {
        let least = self.least() as f64;
        Wanted {
            least,
            most: self.bounds.most as f64,
            target: self.demand.max(least),
        }
    }
}

/// The new limit of each level.
pub fn shared_out(claims: &[Claim]) -> Vec<usize> {
    let sum: usize = claims.iter().map(|claim| claim.bounds.nominal).sum();
    let limited = || claims.iter().filter(|claim| !claim.exempt);
    let exempt = claims.iter().filter(|claim| claim.exempt);
    let taken: usize = exempt.map(Claim::least).sum();
    let rest = sum.saturating_sub(taken);
    let least: usize = limited().map(|claim| claim.bounds.least).sum();
    let wanted: usize = limited().map(Claim::least).sum();
    let keep = |claim: &Claim| claim.least();
    if rest <= least {
        let of = |claim: &Claim| match claim.exempt {
            true => keep(claim),
            false => claim.bounds.least,
        };
        return claims.iter().map(of).collect();
    }
    if rest <= wanted {
        // Everyone gets the same fraction of the difference between lower bound and current minimum.
        let part = (rest - least) as f64 / (wanted - least) as f64;
        let of = |claim: &Claim| {
            let more = claim.least() - claim.bounds.least;
            match claim.exempt {
                true => keep(claim),
                false => claim.bounds.least + whole((more as f64 * part).round()),
            }
        };
        return claims.iter().map(of).collect();
    }
    let items: Vec<Wanted> = limited().map(Claim::wanted).collect();
    let mut fair = allocate(sum as f64, &items).map(Vec::into_iter);
    let mut next = || fair.as_mut().and_then(Iterator::next);
    let of = |claim: &Claim| match claim.exempt {
        true => keep(claim),
        false => next().map_or(claim.current, |seats| whole(seats.round())),
    };
    claims.iter().map(of).collect()
}

/// One party's bounds and target in a distribution.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    least: f64,
    most: f64,
    target: f64,
}

/// The smallest target.
const LEAST_TARGET: f64 = 0.001;

impl Wanted {
    fn target(&self) -> f64 {
        self.target.max(LEAST_TARGET)
    }

    /// The party's part if everyone gets `fair` times the target, within the bounds.
    fn at(&self, fair: f64) -> f64 {
        (fair * self.target()).min(self.most).max(self.least)
    }
}

/// Distributes `sum` so that everyone gets the same multiple of the target, within the bounds. `None` if the bounds do
/// not allow exactly this sum.
fn allocate(sum: f64, items: &[Wanted]) -> Option<Vec<f64>> {
    let total = |fair: f64| items.iter().map(|item| item.at(fair)).sum::<f64>();
    // Between two consecutive bounds, the sum is linear in the multiple.
    let bounds = items.iter().flat_map(|item| {
        let target = item.target();
        [item.least / target, item.most / target]
    });
    let mut bounds: Vec<f64> = bounds.collect();
    bounds.sort_by(f64::total_cmp);
    let (first, last) = (*bounds.first()?, *bounds.last()?);
    const SLACK: f64 = 1e-7;
    if total(first) - sum > SLACK || sum - total(last) > SLACK {
        return None;
    }
    let after = bounds.iter().position(|bound| total(*bound) >= sum);
    let fair = match after {
        // Only rounding errors can lead here.
        None => last,
        Some(0) => first,
        Some(after) => {
            let (low, high) = (bounds[after - 1], bounds[after]);
            let (from, to) = (total(low), total(high));
            low + (high - low) * (sum - from) / (to - from)
        }
    };
    Some(items.iter().map(|item| item.at(fair)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::bootstrap;

    #[test]
    fn seats_follow_shares_as_upstream_tells_them() {
        // Name, nominal_limit_seats, lower_limit_seats, upper_limit_seats and current_limit_seats of a server that only
        // an administrator uses, one request at a time.
        let told = [
            ("catch-all", 13, 13, 613, 30),
            ("exempt", 0, 0, 600, 1),
            ("global-default", 49, 24, 649, 56),
            ("leader-election", 25, 25, 625, 58),
            ("node-high", 98, 73, 698, 170),
            ("system", 74, 50, 674, 117),
            ("workload-high", 98, 49, 698, 114),
            ("workload-low", 245, 24, 845, 56),
        ];
        let objects = bootstrap::objects().iter().map(|made| &made.object);
        let levels = objects.filter(|object| object.str("kind") == "PriorityLevelConfiguration");
        let levels: Vec<_> = levels
            .map(|object| {
                let name = object.at("metadata").str("name");
                (name, Shares::of(object.at("spec")))
            })
            .collect();
        let sum = levels.iter().map(|(_, shares)| shares.shares).sum();
        let claims: Vec<Claim> = levels
            .iter()
            .map(|(name, shares)| Claim {
                exempt: *name == "exempt",
                bounds: Bounds::of(*shares, 600, sum),
                peak: usize::from(*name == "exempt"),
                demand: 0.0,
                current: 0,
            })
            .collect();
        let current = shared_out(&claims);
        for (at, (name, _)) in levels.iter().enumerate() {
            let bounds = &claims[at].bounds;
            let found = (
                *name,
                bounds.nominal,
                bounds.least,
                bounds.most,
                current[at],
            );
            assert_eq!(found, told[at]);
        }
    }

    #[test]
    fn a_level_that_needs_more_has_what_others_lend() {
        let claim = |nominal, least, most, peak, demand: f64| Claim {
            exempt: false,
            bounds: Bounds {
                nominal,
                least,
                most,
            },
            peak,
            demand,
            current: nominal,
        };
        let exempt = |peak| Claim {
            exempt: true,
            ..claim(0, 0, 100, peak, 0.0)
        };
        for (claims, seats) in [
            // Without any demand, everything is distributed all the same.
            (
                vec![claim(50, 50, 150, 0, 0.0), claim(50, 50, 150, 0, 0.0)],
                vec![50, 50],
            ),
            // One has high demand, and borrows what the other may lend,
            (
                vec![claim(50, 25, 150, 150, 150.0), claim(50, 10, 150, 0, 0.0)],
                vec![90, 10],
            ),
            // except what the other needs,
            (
                vec![claim(50, 25, 150, 150, 150.0), claim(50, 10, 150, 30, 30.0)],
                vec![70, 30],
            ),
            // and no more than it may borrow.
            (
                vec![claim(50, 25, 60, 150, 150.0), claim(50, 10, 150, 0, 0.0)],
                vec![60, 40],
            ),
            // The exempt level takes from all others, down to their lower bounds.
            (
                vec![
                    claim(50, 25, 150, 50, 50.0),
                    claim(50, 25, 150, 50, 50.0),
                    exempt(30),
                ],
                vec![35, 35, 30],
            ),
            (
                vec![
                    claim(50, 25, 150, 50, 50.0),
                    claim(50, 25, 150, 50, 50.0),
                    exempt(90),
                ],
                vec![25, 25, 90],
            ),
        ] {
            assert_eq!(shared_out(&claims), seats, "{claims:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shared_out_is_all_there_is_and_within_bounds(
            items in prop::collection::vec((0.0..50.0_f64, 0.0..50.0_f64, 0.0..50.0_f64), 1..8),
            part in 0.0..=1.0_f64,
        ) {
            let items: Vec<Wanted> = items.into_iter().map(|(least, more, target)| Wanted {
                least,
                most: least + more,
                target: least + target,
            }).collect();
            let low: f64 = items.iter().map(|item| item.least).sum();
            let high: f64 = items.iter().map(|item| item.most).sum();
            let sum = low + (high - low) * part;
            let shared = allocate(sum, &items).expect("bounds that can be met");
            prop_assert!((shared.iter().sum::<f64>() - sum).abs() < 1e-6);
            // Parties that are not at a bound get the same multiple of their targets.
            let mut free = items.iter().zip(&shared).filter(|(item, seats)| {
                **seats > item.least + 1e-6 && **seats < item.most - 1e-6
            }).map(|(item, seats)| seats / item.target());
            if let Some(first) = free.next() {
                prop_assert!(free.all(|other| (other - first).abs() < 1e-6));
            }
            for (item, seats) in items.iter().zip(&shared) {
                prop_assert!(*seats >= item.least - 1e-9 && *seats <= item.most + 1e-9);
            }
            prop_assert!(allocate(high + 1.0, &items).is_none());
        }
    }
}
