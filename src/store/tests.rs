//! Tests both engines against a plain model, and the durable one over restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::engine::Accepted;
use super::writer::{Forget, Log};
use super::{Change, Expect, Interest, Record, Revision, Store, StoreError};

const PREFIX: &str = "/registry/things/";

fn key(name: u8) -> Arc<str> {
    format!("{PREFIX}ns/{name}").into()
}

fn change(name: u8, expect: Expect, body: Option<u8>) -> Change {
    let record = |body: u8| Record {
        body: vec![body].into(),
        labels: [("l".into(), "v".into())].into(),
        ..Record::default()
    };
    Change {
        resource: PREFIX.into(),
        key: key(name),
        expect,
        put: body.map(record),
        ttl: None,
    }
}

fn everything() -> Interest {
    Interest {
        resource: PREFIX.into(),
        keys: PREFIX.into(),
        exact: false,
        field: None,
    }
}

/// The expected content at each revision.
#[derive(Default)]
struct Model {
    now: BTreeMap<Arc<str>, (Revision, u8)>,
    at: BTreeMap<Revision, BTreeMap<Arc<str>, (Revision, u8)>>,
    events: Vec<(Revision, Arc<str>, Option<u8>)>,
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8),
    Stale(u8),
    /// Two keys in one commit, which fails if the second is stale.
    Both(u8, u8, u8, bool),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..6u8, any::<u8>()).prop_map(|(name, body)| Op::Put(name, body)),
        2 => (0..6u8).prop_map(Op::Delete),
        1 => (0..6u8).prop_map(Op::Stale),
        2 => (0..6u8, 0..6u8, any::<u8>(), any::<bool>())
            .prop_map(|(a, b, body, stale)| Op::Both(a, b, body, stale)),
        1 => Just(Op::Reopen),
    ]
}

async fn run(ops: Vec<Op>, dir: Option<&std::path::Path>) {
    let open = || dir.map_or_else(super::memory, |dir| super::open(dir).unwrap());
    let mut store: Arc<dyn Store> = open();
    let mut model = Model::default();
    model.at.insert(store.world().rev(), BTreeMap::new());
    let begin = store.world().rev();
    for op in ops {
        match op {
            Op::Put(name, body) => {
                let expect = model
                    .now
                    .get(&key(name))
                    .map_or(Expect::Absent, |(rev, _)| Expect::Revision(*rev));
                let done = store
                    .commit(vec![change(name, expect, Some(body))])
                    .await
                    .unwrap();
                model.now.insert(key(name), (done.rev, body));
                model.at.insert(done.rev, model.now.clone());
                model.events.push((done.rev, key(name), Some(body)));
            }
            Op::Delete(name) => {
                let Some((rev, _)) = model.now.remove(&key(name)) else {
                    continue;
                };
                let done = store
                    .commit(vec![change(name, Expect::Revision(rev), None)])
                    .await
                    .unwrap();
                model.at.insert(done.rev, model.now.clone());
                model.events.push((done.rev, key(name), None));
            }
            Op::Stale(name) => {
                let before = store.world().rev();
                let refused = store
                    .commit(vec![change(name, Expect::Revision(1_000_000), Some(0))])
                    .await;
                assert!(matches!(refused, Err(StoreError::Conflict { .. })));
                assert_eq!(store.world().rev(), before);
            }
            Op::Both(a, b, body, stale) => {
                if a == b {
                    continue;
                }
                let expect = |name| {
                    let known = model.now.get(&key(name));
                    known.map_or(Expect::Absent, |(rev, _)| Expect::Revision(*rev))
                };
                let second = if stale {
                    Expect::Revision(1_000_000)
                } else {
                    expect(b)
                };
                let changes = vec![
                    change(a, expect(a), Some(body)),
                    change(b, second, Some(body)),
                ];
                let before = store.world().rev();
                let done = store.commit(changes).await;
                if stale {
                    assert!(matches!(done, Err(StoreError::Conflict { .. })));
                    assert_eq!(store.world().rev(), before);
                    continue;
                }
                let done = done.unwrap();
                let revs: Vec<_> = done.entries.iter().map(|entry| entry.rev).collect();
                assert_eq!(revs, [done.rev - 1, done.rev], "a revision for each change");
                for (name, rev) in [(a, done.rev - 1), (b, done.rev)] {
                    model.now.insert(key(name), (rev, body));
                    model.at.insert(rev, model.now.clone());
                    model.events.push((rev, key(name), Some(body)));
                }
            }
            Op::Reopen => {
                if let Some(dir) = dir {
                    store.close().await;
                    drop(store);
                    store = open_again(dir);
                }
            }
        }
    }
    for (rev, want) in &model.at {
        let range = store
            .range_at(&PREFIX.into(), PREFIX, "", 0, *rev)
            .await
            .unwrap();
        let got: BTreeMap<_, _> = range
            .entries
            .iter()
            .map(|entry| (entry.key.clone(), (entry.rev, entry.record.body[0])))
            .collect();
        assert_eq!(&got, want, "at {rev}");
    }
    for after in model.at.keys().copied().chain([begin]) {
        let mut cursor = store.clone().watch(everything(), after).unwrap();
        let batch = cursor.next(usize::MAX).await.unwrap();
        let got: Vec<_> = batch
            .events
            .iter()
            .map(|event| {
                (
                    event.rev,
                    event
                        .new
                        .as_ref()
                        .or(event.old.as_ref())
                        .unwrap()
                        .key
                        .clone(),
                    event.new.as_ref().map(|new| new.record.body[0]),
                )
            })
            .collect();
        let want: Vec<_> = model
            .events
            .iter()
            .filter(|(rev, _, _)| *rev > after)
            .cloned()
            .collect();
        assert_eq!(got, want, "after {after}");
    }
    store.close().await;
}

/// The writer thread releases the file a moment after `close` answers.
fn open_again(dir: &std::path::Path) -> Arc<dyn Store> {
    for _ in 0..10_000 {
        match super::open(dir) {
            Ok(store) => return store,
            Err(super::OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the file is still held")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_in_memory_agrees_with_the_model(ops in prop::collection::vec(op(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(ops, None));
    }

    #[test]
    fn the_durable_engine_agrees_with_the_model_over_restarts(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(ops, Some(dir.path())));
    }
}

#[tokio::test]
async fn compacted_history_is_refused_and_what_is_live_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(dir.path()).unwrap();
    let first = store
        .commit(vec![change(1, Expect::Absent, Some(1))])
        .await
        .unwrap()
        .rev;
    let second = store
        .commit(vec![change(1, Expect::Revision(first), Some(2))])
        .await
        .unwrap()
        .rev;
    store.compact(second).await.unwrap();
    assert!(matches!(
        store.range_at(&PREFIX.into(), PREFIX, "", 0, first).await,
        Err(StoreError::Compacted { .. })
    ));
    assert!(matches!(
        store.clone().watch(everything(), first).map(drop),
        Err(StoreError::Compacted { .. })
    ));
    store.close().await;
    drop(store);
    let store = open_again(dir.path());
    assert_eq!(store.head(&key(1)).unwrap().record.body[..], [2]);
    assert!(matches!(
        store.clone().watch(everything(), first).map(drop),
        Err(StoreError::Compacted { .. })
    ));
}

#[tokio::test]
async fn a_watch_is_woken_by_what_concerns_it_alone_and_outlives_the_history_of_others() {
    use futures::FutureExt as _;
    let store = super::memory();
    let on = |node: &str| Interest {
        field: Some(("node".into(), node.into())),
        ..everything()
    };
    let interests = [
        everything(),
        on("a"),
        on("b"),
        Interest {
            keys: key(1),
            exact: true,
            ..everything()
        },
        Interest {
            resource: "".into(),
            keys: "".into(),
            ..everything()
        },
        Interest {
            resource: "/registry/others/".into(),
            keys: "/registry/others/".into(),
            ..everything()
        },
    ];
    let begun = store.world().rev();
    let mut cursors: Vec<_> = interests
        .map(|interest| store.clone().watch(interest, begun).unwrap())
        .into();
    // The object's name, its node, and the watches that must see the change.
    for (name, node, woken) in [
        (1, "a", [true, true, false, true, true, false]),
        (2, "a", [true, true, false, false, true, false]),
        // It moves from one to the other.
        (2, "b", [true, true, true, false, true, false]),
        (3, "c", [true, false, false, false, true, false]),
    ] {
        let expect = match store.head(&key(name)) {
            Some(entry) => Expect::Revision(entry.rev),
            None => Expect::Absent,
        };
        let mut put = change(name, expect, Some(1));
        if let Some(record) = &mut put.put {
            record.fields = [("node".into(), node.into())].into();
        }
        let rev = store.commit(vec![put]).await.unwrap().rev;
        for (cursor, woken) in cursors.iter_mut().zip(woken) {
            assert_eq!(
                cursor.changed().now_or_never().is_some(),
                woken,
                "{name} {node}"
            );
            let batch = cursor.next(10).await.unwrap();
            let told: Vec<Revision> = batch.events.iter().map(|event| event.rev).collect();
            assert_eq!(
                told,
                if woken { vec![rev] } else { vec![] },
                "{name} {node}"
            );
            assert_eq!(batch.rev, rev);
        }
    }
    let rev = store
        .commit(vec![change(4, Expect::Absent, Some(1))])
        .await
        .unwrap()
        .rev;
    store.compact(rev).await.unwrap();
    // A cursor that did not read fails if it missed a compacted change, but not if none matched.
    assert!(matches!(
        cursors[0].next(10).await,
        Err(StoreError::Compacted { .. })
    ));
    let batch = cursors[1].next(10).await.unwrap();
    assert!(batch.events.is_empty() && batch.rev == rev);
    // A late cursor finds what happened in between.
    let late = store.clone().watch(everything(), rev).unwrap();
    drop(cursors);
    drop(late);
    let again = store
        .commit(vec![change(5, Expect::Absent, Some(1))])
        .await
        .unwrap()
        .rev;
    let mut late = store.clone().watch(everything(), rev).unwrap();
    assert!(late.changed().now_or_never().is_some());
    assert_eq!(late.next(10).await.unwrap().events[0].rev, again);
}

#[tokio::test]
async fn a_watch_that_is_slow_hears_of_everything_once_and_in_order() {
    let store = super::memory();
    let of_one = || Interest {
        keys: key(1),
        exact: true,
        ..everything()
    };
    let begun = store.world().rev();
    for pieces in [7, 100, 1000] {
        let mut cursor = store.clone().watch(of_one(), begun).unwrap();
        // More than are queued for a cursor, with other changes between them.
        let mut expected = Vec::new();
        for name in [1, 2].into_iter().cycle().take(1200) {
            let expect = match store.head(&key(name)) {
                Some(entry) => Expect::Revision(entry.rev),
                None => Expect::Absent,
            };
            let put = vec![change(name, expect, Some(1))];
            let rev = store.commit(put).await.unwrap().rev;
            expected.extend((name == 1).then_some(rev));
        }
        let before = expected[0];
        let mut told = Vec::new();
        loop {
            let batch = cursor.next(pieces).await.unwrap();
            told.extend(batch.events.iter().map(|event| event.rev));
            if !batch.more {
                assert_eq!(batch.rev, store.world().rev());
                break;
            }
        }
        told.retain(|rev| *rev >= before);
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn a_second_process_and_a_foreign_file_are_told_apart_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(dir.path()).unwrap();
    assert!(matches!(
        super::open(dir.path()),
        Err(super::OpenError::InUse { .. })
    ));
    store.close().await;
    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("store.redb");
    std::fs::write(&path, b"not a store, whatever its name says").unwrap();
    let error = super::open(other.path()).map(drop).unwrap_err();
    assert!(matches!(error, super::OpenError::Damaged { .. }), "{error}");
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"not a store, whatever its name says"
    );
}

#[tokio::test]
async fn a_file_gives_back_what_its_store_does_not_use() {
    let dir = tempfile::tempdir().unwrap();
    assert!(super::compact(dir.path()).is_err(), "no store exists");
    let store = super::open(dir.path()).unwrap();
    let mut rev = 0;
    for name in 0..200u8 {
        let mut large = change(name, Expect::Absent, Some(name));
        large.put.as_mut().unwrap().body = vec![name; 64 << 10].into();
        rev = store.commit(vec![large]).await.unwrap().rev;
    }
    // Live rows are scattered over the file: redb only returns free space at its end by itself.
    for name in (0..200u8).filter(|name| name % 20 != 19) {
        let there = store.head(&key(name)).unwrap().rev;
        let gone = change(name, Expect::Revision(there), None);
        rev = store.commit(vec![gone]).await.unwrap().rev;
    }
    store.compact(rev).await.unwrap();
    store.close().await;
    drop(store);
    open_again(dir.path()).close().await;
    let (before, after) = loop {
        match super::compact(dir.path()) {
            Err(super::OpenError::InUse { .. }) => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert!(after < before / 2, "{before} to {after}");
    let store = open_again(dir.path());
    for name in (0..200u8).filter(|name| name % 20 == 19) {
        let body = &store.head(&key(name)).unwrap().record.body;
        assert!(body.len() == 64 << 10 && body.iter().all(|byte| *byte == name));
    }
    assert_eq!(store.world().rev, rev);
    store.close().await;
}

#[tokio::test]
async fn a_store_that_was_being_made_when_the_power_went_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb.new"), b"half of one").unwrap();
    let store = super::open(dir.path()).unwrap();
    store.close().await;
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["store.redb"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_of_one_key_lose_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(dir.path()).unwrap();
    store
        .commit(vec![change(1, Expect::Absent, Some(0))])
        .await
        .unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < 5 {
                    let head = store.head(&key(1)).unwrap();
                    let next = change(1, Expect::Revision(head.rev), Some(head.record.body[0] + 1));
                    match store.commit(vec![next]).await {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let world = store.world();
    assert_eq!(world.get(PREFIX, &key(1)).unwrap().record.body[0], 40);
    store.close().await;
}

/// A log on a disk that is temporarily full.
struct Full(Arc<std::sync::atomic::AtomicBool>);

impl Log for Full {
    fn write(&mut self, _: &[Accepted], _: Option<&Forget>) -> Result<(), StoreError> {
        if self.0.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::Engine {
                attempted: "write",
                cause: "no space left on device".to_owned(),
            });
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_a_full_disk_refused_was_never_there() {
    let full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let log = Box::new(Full(full.clone()));
    let engine = super::engine::Beginning::new(1, 0).engine(1, true);
    engine.write_to(log).unwrap();
    let store: Arc<dyn Store> = engine;
    let put = |name| store.commit(vec![change(name, Expect::Absent, Some(1))]);
    put(1).await.unwrap();
    assert!(store.health().is_ok());
    full.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(put(2).await, Err(StoreError::Engine { .. })));
    assert!(matches!(store.health(), Err(StoreError::Engine { .. })));
    assert!(store.head(&key(2)).is_none());
    full.store(false, std::sync::atomic::Ordering::SeqCst);
    put(2).await.unwrap();
    assert!(store.health().is_ok());
    assert!(store.head(&key(1)).is_some());
    store.close().await;
    assert!(matches!(store.health(), Err(StoreError::Closed)));
}

/// A log that is slow, and then reports the result.
struct Slow(std::sync::mpsc::Receiver<Result<(), StoreError>>);

impl Log for Slow {
    fn write(&mut self, _: &[Accepted], _: Option<&Forget>) -> Result<(), StoreError> {
        self.0.recv().unwrap_or(Ok(()))
    }
}

#[tokio::test]
async fn what_another_is_about_to_write_is_not_told_before_it_is_written() {
    use futures::FutureExt as _;
    let (ends, ending) = std::sync::mpsc::channel();
    let engine = super::engine::Beginning::new(1, 0).engine(1, true);
    engine.write_to(Box::new(Slow(ending))).unwrap();
    let store: Arc<dyn Store> = engine;
    for ended in [
        Ok(()),
        Err(StoreError::Engine {
            attempted: "write",
            cause: "no space left on device".to_owned(),
        }),
    ] {
        let good = ended.is_ok();
        let name = u8::from(good);
        let mut put = store.commit(vec![change(name, Expect::Absent, Some(1))]);
        assert!((&mut put).now_or_never().is_none());
        let head = store.head(&key(name)).unwrap();
        let mut settled = store.settled(head.rev);
        assert!((&mut settled).now_or_never().is_none());
        ends.send(ended).unwrap();
        assert_eq!(put.await.is_ok(), good);
        assert_eq!(settled.await.is_ok(), good);
        assert_eq!(store.head(&key(name)).is_some(), good);
    }
    // What is durable needs no waiting.
    let head = store.head(&key(1)).unwrap();
    store.settled(head.rev).now_or_never().unwrap().unwrap();
    store.close().await;
}
