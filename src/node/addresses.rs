//! The addresses by which others reach a node: those that were given, or the host's own, which may change while the agent
//! runs. Like upstream's nodes, one that has no address for a moment keeps the last one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the host's address is looked at where nothing tells of changes, as often as the node's status.
const LOOK: Duration = super::register::HEARTBEAT;

/// The addresses of a node, as they are now. Clones follow the same host.
#[derive(Clone, Debug)]
pub struct Addresses(watch::Receiver<Arc<[String]>>);

impl Addresses {
    /// Addresses that never change.
    pub fn fixed(addresses: impl IntoIterator<Item = String>) -> Self {
        Addresses(watch::channel(addresses.into_iter().collect()).1)
    }

    /// The address of this host, and what has to follow it.
    pub fn of_host(changes: Changes) -> (Self, Follower) {
        let unknown: Arc<[String]> = [Ipv4Addr::LOCALHOST.to_string()].into();
        let first = next(&unknown, of_default_route()).unwrap_or(unknown);
        let (told, addresses) = watch::channel(first);
        let follower = Follower {
            told,
            changes,
            find: of_default_route,
        };
        (Addresses(addresses), follower)
    }

    /// All of them.
    pub fn all(&self) -> Arc<[String]> {
        self.0.borrow().clone()
    }

    /// The first of them, which the node is known by.
    pub fn first(&self) -> Option<String> {
        self.0.borrow().first().cloned()
    }

    /// Those of IPv4.
    pub fn ipv4(&self) -> Vec<Ipv4Addr> {
        let all = self.0.borrow();
        all.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Waits until they are others than at the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // They are fixed, or nobody follows the host any more.
            std::future::pending::<()>().await;
        }
    }
}

/// The address of the host that packets to the world have: the source address of the default route.
fn of_default_route() -> Option<IpAddr> {
    let world = [
        Ipv4Addr::new(192, 0, 2, 254),
        Ipv4Addr::new(198, 51, 100, 1),
    ];
    world.into_iter().find_map(crate::net::own_address)
}

/// The addresses after `found` was found on the host; None if they stay.
fn next(known: &[String], found: Option<IpAddr>) -> Option<Arc<[String]>> {
    let found = found?.to_string();
    (*known != [found.as_str()]).then(|| [found].into())
}

/// Begins to listen for changes of the host's addresses and routes.
pub type Changes = fn() -> BoxStream<'static, ()>;

/// Tells of no change.
pub fn silent() -> BoxStream<'static, ()> {
    futures::stream::pending().boxed()
}

/// Follows the address of a host.
pub struct Follower {
    told: watch::Sender<Arc<[String]>>,
    changes: Changes,
    find: fn() -> Option<IpAddr>,
}

impl Follower {
    /// Follows it until `ends` is cancelled.
    pub async fn follow(&self, ends: CancellationToken) {
        let mut changes = (self.changes)().fuse();
        loop {
            tokio::select! {
                // Without changes that are told, time alone remains.
                Some(()) = changes.next() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = ends.cancelled() => return,
            }
            self.look();
        }
    }

    fn look(&self) {
        let found = (self.find)();
        self.told.send_if_modified(|known| {
            let Some(now) = next(known, found) else {
                return false;
            };
            tracing::info!(
                before = known.join(","),
                now = now.join(","),
                "the address of this node changed"
            );
            *known = now;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[test]
    fn a_host_without_an_address_keeps_the_last_one() {
        for (known, found, expected) in [
            ("192.0.2.1", Some([192, 0, 2, 1]), None),
            ("192.0.2.1", Some([192, 0, 2, 2]), Some("192.0.2.2")),
            ("192.0.2.1", None, None),
            ("127.0.0.1", Some([192, 0, 2, 2]), Some("192.0.2.2")),
        ] {
            let told = next(&[known.to_owned()], found.map(IpAddr::from));
            assert_eq!(
                told.as_ref().map(|told| told.join(",")).as_deref(),
                expected
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_learns_of_changes() {
        static LAST: AtomicU8 = AtomicU8::new(1);
        let (told, addresses) = watch::channel(["192.0.2.1".to_owned()].into());
        let follower = Follower {
            told,
            changes: silent,
            find: || Some([192, 0, 2, LAST.load(Ordering::Relaxed)].into()),
        };
        let mut addresses = Addresses(addresses);
        let ends = CancellationToken::new();
        let follows = ends.clone();
        let following = tokio::spawn(async move { follower.follow(follows).await });
        LAST.store(2, Ordering::Relaxed);
        addresses.changed().await;
        assert_eq!(addresses.ipv4(), [Ipv4Addr::new(192, 0, 2, 2)]);
        assert_eq!(addresses.first().as_deref(), Some("192.0.2.2"));
        ends.cancel();
        following.await.expect("ended");
        // Nobody follows any more: that is no change.
        let silent = tokio::time::timeout(LOOK * 3, addresses.changed()).await;
        assert!(silent.is_err());
    }
}
