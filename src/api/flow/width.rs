//! How many seats a request takes: what it costs the server, guessed before it is done. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/request (width.go, list_work_estimator.go, mutating_work_estimator.go).
//!
//! As upstream's: a list, and a watch that begins with what there is, take a seat for each 100 kB that are held in memory
//! for them, by the number of objects and their average size, at most ten; a write takes one, and where ten or more
//! watch what it changes, keeps seats for a while after it is answered. No request takes more than a level's share lets
//! it. Unlike upstream's: all lists count as those that a cache answers, since all are answered from memory; sizes are
//! those of the first few objects as they are written in JSON.

use std::time::Duration;

use super::request::{Work, work};
use crate::api::query::Query;
use crate::api::request_info::Info;
use crate::resources::cluster::Cluster;

/// The most seats of one request.
pub const MOST: usize = 10;
/// What one seat holds in memory, in bytes.
const SEAT: usize = 100_000;
/// What is held of a list that is sent while it is made.
const HELD: usize = 1_000_000;
/// How many objects of a list tell the size of all.
const LOOKED_AT: usize = 8;
/// How many watches keep one seat.
const WATCHES: usize = 10;
/// How long telling them takes.
const TELLING: Duration = Duration::from_millis(5);
/// How long a request is thought to take before it is known.
pub const SERVICE: Duration = Duration::from_millis(3);

/// The seats of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Those it has until it is answered.
    pub first: usize,
    /// Those it has then.
    pub last: usize,
    /// For how long.
    pub lingers: Duration,
}

impl Width {
    /// One seat until it is answered.
    pub const ONE: Width = Width::of(1);

    const fn of(seats: usize) -> Width {
        Width {
            first: seats,
            last: 0,
            lingers: Duration::ZERO,
        }
    }

    /// A list, or a watch that begins as one, of so many objects of this average size.
    pub fn list(objects: usize, size: usize, most: usize) -> Width {
        let held = objects.saturating_mul(size).min(HELD);
        Width::of(held.div_ceil(SEAT).clamp(1, most.clamp(1, MOST)))
    }

    /// A write that is told to so many watches.
    pub fn write(watches: usize, most: usize) -> Width {
        if watches < WATCHES {
            return Width::ONE;
        }
        let told = watches.div_ceil(WATCHES);
        let last = told.min(most.clamp(1, MOST));
        Width {
            first: 1,
            last,
            lingers: TELLING.mul_f64(told as f64 / last as f64),
        }
    }

    /// The seats that are kept for all of it.
    pub fn most(&self) -> usize {
        self.first.max(self.last)
    }

    /// All of its work.
    pub fn work(&self) -> Work {
        work(self.first, SERVICE) + work(self.last, self.lingers)
    }

    /// Takes no more seats in the end than there are, for longer instead.
    pub fn fit(&mut self, limit: usize) {
        if self.last > limit && limit > 0 {
            self.lingers = self.lingers.mul_f64(self.last as f64 / limit as f64);
            self.last = limit;
        }
    }
}

/// The seats of a request that may take `most`; `watches` says how many watch what it changes.
pub fn estimate(
    cluster: &Cluster,
    info: &Info,
    query: &Query,
    watches: impl FnOnce() -> usize,
    most: usize,
) -> Width {
    match info.verb.as_str() {
        "watch" if !begins_with_all(query) => Width::ONE,
        "list" | "watch" => {
            let registry = cluster.registry();
            let Some(resource) = registry.get(&info.group, &info.resource) else {
                return Width::ONE;
            };
            let world = cluster.store.world();
            let some = world.range(&resource.prefix, &resource.prefix, "");
            let sizes = some.take(LOOKED_AT).map(|entry| entry.record.body.len());
            let (seen, sum) = sizes.fold((0, 0), |(seen, sum), size| (seen + 1, sum + size));
            let limit = query.int("limit").ok().flatten();
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
            let objects = match info.name.is_empty() {
                true => world.count(&resource.prefix),
                false => 1,
            };
            Width::list(objects.min(limit), sum / seen.max(1), most)
        }
        // Making a token changes nothing that is watched.
        "create" if info.resource == "serviceaccounts" && info.subresource == "token" => Width::ONE,
        "create" | "update" | "patch" | "delete" => Width::write(watches(), most),
        _ => Width::ONE,
    }
}

/// Whether a watch begins with all that there is.
fn begins_with_all(query: &Query) -> bool {
    let since = query.get("resourceVersion").unwrap_or_default();
    query.bool("sendInitialEvents").unwrap_or(false) || matches!(since, "" | "0")
}

/// The most seats that one request of a queuing level may take, by the level's own seats and the size of hands.
pub fn most_of(nominal: usize, hand: usize) -> usize {
    (nominal * 15)
        .div_ceil(100)
        .min(nominal / hand.max(1))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_seats_by_what_is_held_in_memory() {
        for (objects, size, most, seats) in [
            (0, 1_000, 10, 1),
            (100, 1_000, 10, 1),
            (101, 1_000, 10, 2),
            (500, 1_000, 10, 5),
            (500, 1_000, 3, 3),
            (1_000_000, 1_500_000, 100, 10),
            (500, 1_000, 0, 1),
        ] {
            let width = Width::list(objects, size, most);
            assert_eq!(width, Width::of(seats), "{objects} of {size}, {most}");
        }
    }

    #[test]
    fn a_write_that_many_watch_lingers() {
        let millis = Duration::from_millis;
        for (watches, most, last, lingers) in [
            (0, 10, 0, 0),
            (9, 10, 0, 0),
            (10, 10, 1, 5),
            (11, 10, 2, 5),
            (100, 10, 10, 5),
            (1_000, 10, 10, 50),
            (100, 2, 2, 25),
        ] {
            let width = Width::write(watches, most);
            assert_eq!(
                (width.first, width.last, width.lingers),
                (1, last, millis(lingers))
            );
        }
        let mut wide = Width::write(100, 10);
        let before = wide.work();
        wide.fit(5);
        assert_eq!(
            (wide.last, wide.lingers, wide.work()),
            (5, millis(10), before)
        );
    }

    #[test]
    fn a_watch_costs_what_it_begins_with() {
        for (query, all) in [
            ("watch=1", true),
            ("watch=1&resourceVersion=0", true),
            ("watch=1&resourceVersion=7", false),
            ("watch=1&resourceVersion=7&sendInitialEvents=true", true),
            ("watch=1&resourceVersion=7&sendInitialEvents=false", false),
        ] {
            assert_eq!(begins_with_all(&Query::parse(query)), all, "{query}");
        }
    }

    #[test]
    fn no_request_takes_more_than_a_part_of_its_level() {
        for (nominal, hand, most) in [
            (49, 6, 8),
            (98, 6, 15),
            (245, 6, 37),
            (25, 4, 4),
            (1, 8, 1),
            (0, 8, 1),
        ] {
            assert_eq!(most_of(nominal, hand), most, "{nominal} {hand}");
        }
    }
}
