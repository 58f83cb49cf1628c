//! Limits the number of requests from the network that are handled at once, in total and for each user. Further
//! requests wait, with their body unread, and are rejected after a timeout. Replaces upstream's
//! `--max-requests-inflight` and flow control, whose objects are served but not evaluated: nobody can exhaust the
//! memory, or lock others out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests handled at once: upstream's 400 read and 200 write requests.
const ALL: usize = 600;
/// Requests of one user.
const OF_ONE: usize = 200;
/// How long a request waits: a quarter of its minute, as upstream.
const PATIENCE: Duration = Duration::from_secs(15);

/// Marks a request as coming from the network, from this address if the system reports it. Requests from within this
/// process are not limited, because one may wait for another.
#[derive(Clone, Copy)]
pub struct Remote(pub Option<SocketAddr>);

/// The slots for requests.
pub struct InFlight {
    all: Arc<Semaphore>,
    one: usize,
    users: Arc<Mutex<HashMap<Arc<str>, Arc<Semaphore>>>>,
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight::of(ALL, OF_ONE)
    }
}

/// A request's slot, released when it is dropped.
pub struct Place {
    user: Arc<str>,
    places: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    users: Arc<Mutex<HashMap<Arc<str>, Arc<Semaphore>>>>,
}

impl InFlight {
    fn of(all: usize, one: usize) -> Self {
        InFlight {
            all: Arc::new(Semaphore::new(all)),
            one,
            users: Arc::default(),
        }
    }

    /// Waits for a slot for a request of `user`; None after the timeout.
    pub async fn enter(&self, user: &str) -> Option<Place> {
        let user: Arc<str> = user.into();
        let own = {
            let mut users = self.users.lock();
            let own = users.entry(user.clone());
            own.or_insert_with(|| Arc::new(Semaphore::new(self.one)))
                .clone()
        };
        let mut place = Place {
            user,
            places: None,
            users: self.users.clone(),
        };
        let all = self.all.clone();
        let places = tokio::time::timeout(PATIENCE, async {
            // The user's own slot first: users with too many requests must not occupy shared slots while they wait.
            let own = own.acquire_owned().await.ok()?;
            Some((own, all.acquire_owned().await.ok()?))
        });
        place.places = places.await.ok()?;
        place.places.is_some().then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places = None;
        let mut users = self.users.lock();
        // Semaphores are only cloned under this lock: one that only the map holds is unused.
        let idle = users.get(&self.user);
        if idle.is_some_and(|own| Arc::strong_count(own) == 1) {
            users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn users_wait_for_their_own_and_are_forgotten_when_they_leave() {
        let places = InFlight::of(3, 2);
        let first = places.enter("jane").await.expect("a place");
        let second = places.enter("jane").await.expect("a place");
        // Her third request times out, without taking slots from others.
        assert!(places.enter("jane").await.is_none());
        let other = places.enter("joe").await.expect("a place");
        assert!(places.enter("jim").await.is_none());
        drop(first);
        let third = places.enter("jane").await.expect("a place");
        assert_eq!(places.users.lock().len(), 2);
        drop((second, third, other));
        assert!(places.users.lock().is_empty());
        assert_eq!(places.all.available_permits(), 3);
    }
}
