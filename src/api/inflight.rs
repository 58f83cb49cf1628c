//! How many requests from the network are answered at once, in all and of each user: what is more waits, with its body
//! unread, and is refused when it waited for too long. Stands for upstream's `--max-requests-inflight` and for its flow
//! control, of which the objects are served and this is the effect: nobody can fill the memory, or keep others out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests answered at once: upstream's 400 that read and 200 that write.
const ALL: usize = 600;
/// Those of one user.
const OF_ONE: usize = 200;
/// How long one waits at most: upstream's quarter of a request's minute.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request came from the network, from this address where the system tells it, and not from within this process, where
/// one may wait for another.
#[derive(Clone, Copy)]
pub struct Remote(pub Option<SocketAddr>);

/// The places for requests.
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

/// A request's place, given back when it is dropped.
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

    /// Waits for a place for a request of `user`; none if there was none for too long.
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
            // One's own first: who has too many under way takes no place of others while waiting.
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
        // Who enters takes the semaphore under this lock: one that only the map has is nobody's.
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
        // Her third waits in vain, and takes nothing from others meanwhile.
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
