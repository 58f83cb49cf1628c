//! Without priority and fairness: a limit for concurrent read-only requests and one for concurrent mutating requests.
//! Follows k8s.io/apiserver/pkg/server/filters/maxinflight.go.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::request_info::Info;
use crate::auth::{MASTERS, User};

/// The limits.
pub struct InFlight {
    /// `None` is unlimited.
    reading: Option<Arc<Semaphore>>,
    changing: Option<Arc<Semaphore>>,
}

/// A request's permit; `None` if the request is not limited.
pub type Place = Option<OwnedSemaphorePermit>;

impl InFlight {
    /// Limits for read-only and for mutating requests; 0 is unlimited.
    pub fn new(reading: usize, changing: usize) -> Self {
        let places = |limit: usize| {
            (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
        };
        InFlight {
            reading: places(reading),
            changing: places(changing),
        }
    }

    /// Admits a request; `None` if the limit is reached, which does not apply to administrators.
    pub fn enter(&self, user: &User, info: &Info) -> Option<Place> {
        let places = match info.reads() {
            true => &self.reading,
            false => &self.changing,
        };
        let Some(places) = places.clone().filter(|_| !info.is_long_running()) else {
            return Some(None);
        };
        match places.try_acquire_owned() {
            Ok(place) => Some(Some(place)),
            Err(_) => user.in_group(MASTERS).then_some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::api::query::Query;

    #[test]
    fn so_many_read_and_so_many_write() {
        let info = |method: &Method, path: &str| {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            Info::of(method, path, &Query::parse(query))
        };
        let places = InFlight::new(2, 1);
        let (jane, admin) = (User::new("jane", &[]), User::new("admin", &[MASTERS]));
        let (read, write) = (
            info(&Method::GET, "/api/v1/pods"),
            info(&Method::POST, "/api/v1/pods"),
        );
        let first = places.enter(&jane, &read).expect("a place");
        let second = places.enter(&admin, &read).expect("a place");
        assert!(first.is_some() && second.is_some());
        assert!(places.enter(&jane, &read).is_none());
        // Administrators and long-running requests are admitted nevertheless.
        assert!(
            places
                .enter(&admin, &read)
                .is_some_and(|place| place.is_none())
        );
        let watch = info(&Method::GET, "/api/v1/pods?watch=1");
        assert!(
            places
                .enter(&jane, &watch)
                .is_some_and(|place| place.is_none())
        );
        let writes = places.enter(&jane, &write).expect("a place");
        assert!(writes.is_some() && places.enter(&jane, &write).is_none());
        drop(first);
        assert!(
            places
                .enter(&jane, &read)
                .is_some_and(|place| place.is_some())
        );
        let any = InFlight::new(0, 1);
        assert!(any.enter(&jane, &read).is_some_and(|place| place.is_none()));
    }
}
