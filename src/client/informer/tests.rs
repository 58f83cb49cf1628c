//! Caches that are filled by hand.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{FutureExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::time::Instant;

use super::*;

crate::slim!(
    /// A test object.
    Thing of ConfigMap {}
);

fn thing(name: &str, version: u64) -> Thing {
    let mut thing = Thing::default();
    thing.metadata.name = Some(name.to_owned());
    thing.metadata.resource_version = Some(version.to_string());
    thing
}

/// Applies events to a cache.
async fn tell(cache: &Informer<Thing>, events: Vec<Event<Thing>>) {
    cache.follow(stream::iter(events.into_iter().map(Ok))).await;
}

fn counts(cache: &Informer<Thing>) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    cache.subscribe(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    count
}

#[tokio::test]
async fn what_breaks_at_a_change_ends_its_own_run_and_nobody_elses() {
    let cache = Informer::<Thing>::by_hand();
    let (one, other) = (CancellationToken::new(), CancellationToken::new());
    let of_run = |run: &CancellationToken| Informer {
        run: Some(run.clone()),
        ..cache.clone()
    };
    of_run(&one).subscribe(|change| assert_ne!(change.key.name, "odd"));
    let beside = counts(&of_run(&one));
    let others = counts(&of_run(&other));
    let of_none = counts(&cache);
    tell(&cache, vec![Event::Applied(thing("even", 1))]).await;
    assert!(!one.is_cancelled());
    tell(&cache, vec![Event::Applied(thing("odd", 2))]).await;
    assert!(one.is_cancelled() && !other.is_cancelled());
    tell(&cache, vec![Event::Applied(thing("even", 3))]).await;
    assert_eq!(beside.load(Ordering::Relaxed), 1, "its run is over");
    assert_eq!(others.load(Ordering::Relaxed), 3);
    assert_eq!(of_none.load(Ordering::Relaxed), 3);
    other.cancel();
    let again = counts(&of_run(&CancellationToken::new()));
    assert_eq!(again.load(Ordering::Relaxed), 2, "what is there");
    let told = cache.shared.handlers.lock().len();
    assert_eq!(told, 2, "handlers of runs that are over are dropped");
    assert_eq!(Arc::strong_count(&others), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_waited_for_until_the_cache_shows_it() {
    let cache = Informer::<Thing>::by_hand();
    tell(&cache, vec![Event::Applied(thing("a", 5))]).await;
    cache.reach(Some("5")).await;
    cache.reach(None).await;
    let begun = Instant::now();
    let shows = async {
        tokio::time::sleep(PATIENCE * 10).await;
        tell(&cache, vec![Event::Applied(thing("a", 7))]).await;
    };
    tokio::join!(cache.reach(Some("7")), shows);
    assert!(begun.elapsed() >= PATIENCE * 10);
}

#[tokio::test(start_paused = true)]
async fn lists_and_bookmarks_show_writes_of_which_nothing_is_left() {
    for shows in [
        vec![
            Event::Listing,
            Event::Listed(thing("a", 2)),
            Event::Complete("9".to_owned()),
        ],
        vec![Event::UpTo("9".to_owned())],
    ] {
        let cache = Informer::<Thing>::by_hand();
        let waits = cache.reach(Some("9"));
        let shown = async { tokio::join!(waits, tell(&cache, shows)) };
        // The clock is paused: this only passes when nothing else can make progress.
        let shown = tokio::time::timeout(PATIENCE * 100, shown).await;
        shown.expect("the cache shows the write");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_when_a_run_or_all_end() {
    let (ends, run) = (CancellationToken::new(), CancellationToken::new());
    let whole = Informer::<Thing>::new(ends.clone());
    let cache = Informer {
        run: Some(run.clone()),
        ..whole.clone()
    };
    let cancelled = async {
        tokio::join!(cache.reach(Some("1")), cache.synced(), async {
            run.cancel();
        });
        tokio::join!(whole.reach(Some("1")), whole.synced(), async {
            ends.cancel();
        });
    };
    let cancelled = tokio::time::timeout(PATIENCE * 100, cancelled).await;
    cancelled.expect("what waits goes on");
}

#[test]
fn a_change_alters_what_is_not_the_same_before_and_after() {
    let labelled = |name: &str, label: &str| {
        let mut thing = thing(name, 1);
        thing.labels_mut().insert("a".to_owned(), label.to_owned());
        Arc::new(thing)
    };
    let (old, new) = (labelled("x", "1"), labelled("x", "2"));
    let key = Key::new("", "x");
    let alters = |old, new, of: fn(&Thing) -> Option<&String>| {
        let change = Change {
            key: &key,
            old,
            new,
        };
        change.alters(of)
    };
    let name: fn(&Thing) -> Option<&String> = |thing| thing.metadata.name.as_ref();
    let label: fn(&Thing) -> Option<&String> = |thing| thing.labels().get("a");
    assert!(!alters(Some(&old), Some(&new), name));
    assert!(alters(Some(&old), Some(&new), label));
    assert!(alters(None, Some(&new), name) && alters(Some(&old), None, name));
}

crate::slim!(
    /// Anything else.
    Other of k8s_openapi::api::core::v1::Secret {}
);

#[tokio::test(start_paused = true)]
async fn a_run_begins_when_all_caches_that_it_asked_for_are_complete() {
    let transport = crate::client::Transport::new(|_, _| std::future::pending());
    let client = transport.client(crate::auth::User::new("test", &[]), "test");
    let ends = CancellationToken::new();
    let run = ends.child_token();
    let context = crate::client::Context {
        informers: Informers::new(client.clone(), ends.clone()).for_run(run.clone()),
        events: crate::client::events::start(ends.clone()),
        settings: Arc::default(),
        ends: run.clone(),
        client,
    };
    context.synced().await;
    let things = context.informers.of::<Thing>();
    let queue = Arc::new(Queue::new());
    things.enqueue(&queue, |change| Some(change.key.name.clone()));
    assert_eq!(context.synced().now_or_never(), None, "one is empty");
    let complete = || vec![Event::Listing, Event::Complete("9".to_owned())];
    let (seen, others) = (Mutex::new(Vec::new()), context.informers.of::<Other>());
    let work = context.work(&queue, 1, async |name: CompactString| {
        seen.lock().push(name);
        run.cancel();
        Ok::<_, std::convert::Infallible>(crate::client::queue::Next::Done)
    });
    let fill = async {
        tell(&things, vec![Event::Applied(thing("a", 1))]).await;
        let mut listed = complete();
        listed.insert(1, Event::Listed(thing("a", 1)));
        tell(&things, listed).await;
        tokio::time::sleep(PATIENCE).await;
        assert!(seen.lock().is_empty(), "the other one is not complete");
        others
            .follow(stream::iter(
                [Event::Listing, Event::Complete("9".to_owned())].map(Ok),
            ))
            .await;
    };
    let both = tokio::time::timeout(PATIENCE * 100, async { tokio::join!(work, fill) });
    both.await.expect("the work is done");
    assert_eq!(*seen.lock(), ["a"]);
    things.shared.synced.send_replace(false);
    context.synced().await;
}
