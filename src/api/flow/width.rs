//! The width of a request: an estimate of its cost in seats. Follows k8s.io/apiserver/pkg/util/flowcontrol/request
//! (width.go, list_work_estimator.go, mutating_work_estimator.go).
//!
//! As upstream: a list, or a watch that begins with the existing objects, takes a seat per 100 kB held in memory for
//! it, estimated from the number of objects and their average size, at most ten; a write takes one, and keeps seats for
//! some time after it is answered if ten or more watches see the change. The priority level may limit the width
//! further. Unlike upstream: all lists count as served from the cache, since all are served from memory; the average
//! size is that of the JSON of the first few objects.

use std::time::Duration;

use super::request::{Work, work};
use crate::api::query::Query;
use crate::api::request_info::Info;
use crate::resources::cluster::Cluster;

/// The most seats of one request.
pub const MOST: usize = 10;
/// The memory that one seat stands for, in bytes.
const SEAT: usize = 100_000;
/// The memory held for a list, which is sent while it is encoded.
const HELD: usize = 1_000_000;
/// How many objects are sampled for the average size.
const LOOKED_AT: usize = 8;
/// How many watches take one seat.
const WATCHES: usize = 10;
/// How long it takes to send them a change.
const TELLING: Duration = Duration::from_millis(5);
/// The assumed service time of a request before it has been executed.
pub const SERVICE: Duration = Duration::from_millis(3);

/// The width of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Its seats until it is answered.
    pub first: usize,
    /// Its seats after that.
    pub last: usize,
    /// For how long it keeps those.
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

    /// A list, or a watch that begins with one, of so many objects of this average size.
    pub fn list(objects: usize, size: usize, most: usize) -> Width {
        let held = objects.saturating_mul(size).min(HELD);
        Width::of(held.div_ceil(SEAT).clamp(1, most.clamp(1, MOST)))
    }

    /// A write that so many watches see.
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

    /// The seats to reserve for the whole request.
    pub fn most(&self) -> usize {
        self.first.max(self.last)
    }

    /// Its total work.
    pub fn work(&self) -> Work {
        work(self.first, SERVICE) + work(self.last, self.lingers)
    }

    /// Limits the final seats to `limit`, and extends their time accordingly.
    pub fn fit(&mut self, limit: usize) {
        if self.last > limit && limit > 0 {
            self.lingers = self.lingers.mul_f64(self.last as f64 / limit as f64);
            self.last = limit;
        }
    }
}

/// The width of a request, at most `most`; `watches` returns how many watches see the change.
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
        // Creating a token changes no watched object.
        "create" if info.resource == "serviceaccounts" && info.subresource == "token" => Width::ONE,
        "create" | "update" | "patch" | "delete" => Width::write(watches(), most),
        _ => Width::ONE,
    }
}

/// Whether a watch begins with the existing objects.
fn begins_with_all(query: &Query) -> bool {
    let since = query.get("resourceVersion").unwrap_or_default();
    query.bool("sendInitialEvents").unwrap_or(false) || matches!(since, "" | "0")
}

/// The most seats of one request in a queuing level, by its nominal limit and hand size.
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
