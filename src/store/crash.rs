//! Tests the durable engine on a disk whose power fails at each write and sync, and on one that is temporarily full.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Builder, StorageBackend};

use super::{
    Change, Expect, Interest, OpenError, Record, Revision, Store, StoreError, redb as file,
};

const PREFIX: &str = "/registry/things/";
/// The unit, in bytes, that a disk writes completely or not at all.
const SECTOR: usize = 512;

/// A disk that keeps what is not synced yet apart.
#[derive(Debug, Default)]
struct Disk {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What remains after a power failure.
    safe: Vec<u8>,
    /// Writes since the last sync.
    unsafe_since: Vec<Done>,
    /// The number of writes, changes of length and syncs so far.
    steps: usize,
    /// The step at which the power fails.
    cut: Option<usize>,
    /// The disk is full: writes fail.
    full: bool,
    /// Writes panic, as redb does when it finds damage.
    broken: bool,
}

#[derive(Clone, Debug)]
enum Done {
    Wrote(usize, Vec<u8>),
    Sized(usize),
}

fn apply(image: &mut Vec<u8>, done: &Done) {
    match done {
        Done::Sized(len) => image.resize(*len, 0),
        Done::Wrote(at, data) => {
            if image.len() < at + data.len() {
                image.resize(at + data.len(), 0);
            }
            image[*at..at + data.len()].copy_from_slice(data);
        }
    }
}

/// What remains of unsynced writes.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// All of them are lost.
    Everything,
    /// Some of the writes, some of them partly, chosen by the seed.
    Some(u64),
    /// None is lost.
    Nothing,
}

impl Disk {
    /// Does one step, if there is still power.
    fn step(&mut self) -> io::Result<()> {
        if self.cut.is_some_and(|cut| self.steps >= cut) {
            return Err(io::Error::other("no power"));
        }
        self.steps += 1;
        Ok(())
    }

    fn change(&mut self, done: Done) -> io::Result<()> {
        assert!(!self.broken, "a page that makes no sense");
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.step()?;
        apply(&mut self.seen, &done);
        self.unsafe_since.push(done);
        Ok(())
    }

    /// The disk after the power returns.
    fn after(&self, loss: Loss) -> Disk {
        let mut image = self.safe.clone();
        let mut random = match loss {
            Loss::Some(seed) => seed,
            Loss::Everything | Loss::Nothing => 0,
        };
        let mut below = |end: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % end
        };
        for done in &self.unsafe_since {
            match (loss, done) {
                (Loss::Everything, _) => {}
                (Loss::Nothing, _) => apply(&mut image, done),
                (Loss::Some(_), Done::Sized(_)) => {
                    if below(2) == 0 {
                        apply(&mut image, done);
                    }
                }
                (Loss::Some(_), Done::Wrote(at, data)) => match below(3) {
                    0 => {}
                    1 => apply(&mut image, done),
                    _ => {
                        // Sectors are written in any order.
                        for (number, sector) in data.chunks(SECTOR).enumerate() {
                            if below(2) == 0 {
                                let part = Done::Wrote(at + number * SECTOR, sector.to_vec());
                                apply(&mut image, &part);
                            }
                        }
                    }
                },
            }
        }
        Disk {
            seen: image.clone(),
            safe: image,
            ..Disk::default()
        }
    }
}

/// The disk as a backend for redb.
#[derive(Clone, Debug)]
struct Backend(Arc<Mutex<Disk>>);

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let disk = self.0.lock();
        let at = place(offset);
        let found = disk.seen.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.lock().change(Done::Sized(place(len)))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut disk = self.0.lock();
        disk.step()?;
        disk.safe = disk.seen.clone();
        disk.unsafe_since.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0
            .lock()
            .change(Done::Wrote(place(offset), data.to_vec()))
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a small disk")
}

/// A disk with an empty store.
fn new_disk() -> Disk {
    let disk = Arc::new(Mutex::new(Disk::default()));
    let database = Builder::new().create_with_backend(Backend(disk.clone()));
    file::prepared(database.expect("a database"));
    let disk = disk.lock();
    disk.after(Loss::Everything)
}

fn open(disk: &Arc<Mutex<Disk>>) -> Result<Arc<dyn Store>, OpenError> {
    let disk = disk.clone();
    file::restore(Path::new("store.redb"), move || {
        Builder::new()
            .set_cache_size(1 << 20)
            .create_with_backend(Backend(disk.clone()))
    })
}

fn key(number: usize) -> Arc<str> {
    format!("{PREFIX}{number}").into()
}

fn change(number: usize, body: Option<usize>, expect: Expect) -> Change {
    let record = |body: usize| Record {
        // Several pages, so that a write can be torn.
        body: format!("{body:04}").repeat(700).into(),
        ..Record::default()
    };
    Change {
        resource: PREFIX.into(),
        key: key(number),
        expect,
        put: body.map(record),
        ttl: None,
    }
}

/// The content of the store: the number in each object by key.
type Content = BTreeMap<Arc<str>, (Revision, usize)>;

/// The requests to a store and their results.
#[derive(Default)]
struct Asked {
    /// The content after each commit by its revision, whether it was acknowledged or not.
    after: BTreeMap<Revision, Content>,
    /// The newest acknowledged revision.
    acknowledged: Revision,
}

/// Rounds of commits with one or two changes, some in parallel, and a compaction in between.
async fn work(store: &Arc<dyn Store>) -> Asked {
    let mut asked = Asked {
        acknowledged: store.world().rev(),
        ..Asked::default()
    };
    let mut now = Content::new();
    let mut rev = store.world().rev();
    asked.after.insert(rev, now.clone());
    for round in 0..4 {
        let mut commits = Vec::new();
        for part in 0..3 {
            let keys = [(round + part) % 4, 4 + part];
            let mut changes = Vec::new();
            for &number in &keys[..1 + (round + part) % 2] {
                let before = now.get(&key(number)).copied();
                let expect = before.map_or(Expect::Absent, |(rev, _)| Expect::Revision(rev));
                let body = (before.is_none() || round % 3 != 2).then_some(round * 10 + part);
                changes.push(change(number, body, expect));
                rev += 1;
                match body {
                    Some(body) => now.insert(key(number), (rev, body)),
                    None => now.remove(&key(number)),
                };
            }
            asked.after.insert(rev, now.clone());
            commits.push(store.commit(changes));
        }
        for done in futures::future::join_all(commits).await {
            match done {
                Ok(done) => asked.acknowledged = asked.acknowledged.max(done.rev),
                // Everything later was based on it.
                Err(StoreError::Engine { .. }) => return asked,
                Err(error) => panic!("{error}"),
            }
        }
        if round == 1 {
            let _ = store.compact(asked.acknowledged).await;
        }
    }
    asked
}

fn content(store: &Arc<dyn Store>) -> Content {
    let world = store.world();
    let entries = world.range(PREFIX, PREFIX, "");
    entries.map(held).collect()
}

fn held(entry: &Arc<super::Entry>) -> (Arc<str>, (Revision, usize)) {
    let body = std::str::from_utf8(&entry.record.body[..4]).expect("a number");
    let body = body.parse().expect("a number");
    (entry.key.clone(), (entry.rev, body))
}

/// Compares a store opened after a power failure with the requests to the one before.
async fn judge(store: &Arc<dyn Store>, asked: &Asked, when: &str) {
    let rev = store.world().rev();
    assert!(
        rev >= asked.acknowledged,
        "{when}: back at {rev}, {} was acknowledged",
        asked.acknowledged
    );
    let want = asked.after.get(&rev);
    assert_eq!(
        Some(&content(store)),
        want,
        "{when}: at {rev}, half a commit"
    );
    // History leads from each kept revision to the present.
    for (at, want) in asked.after.range(..=rev) {
        match store.range_at(&PREFIX.into(), PREFIX, "", 0, *at).await {
            Ok(range) => assert_eq!(
                &range.entries.iter().map(held).collect::<Content>(),
                want,
                "{when}: at {at}"
            ),
            Err(StoreError::Compacted { .. }) => continue,
            Err(error) => panic!("{when}: {error}"),
        }
        let interest = Interest {
            resource: PREFIX.into(),
            keys: PREFIX.into(),
            exact: false,
            field: None,
        };
        let mut cursor = store.clone().watch(interest, *at).expect("kept history");
        let batch = cursor.next(usize::MAX).await.expect("kept history");
        let mut now = want.clone();
        for event in batch.events {
            match (&event.new, &event.old) {
                (Some(new), _) => now.extend([held(new)]),
                (None, Some(old)) => {
                    now.remove(&old.key);
                }
                (None, None) => panic!("{when}: an event of nothing"),
            }
        }
        assert_eq!(&now, &asked.after[&rev], "{when}: events after {at}");
    }
    let done = store
        .commit(vec![change(99, Some(1), Expect::Absent)])
        .await
        .unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(done.rev, rev + 1, "{when}: revisions go on");
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_acknowledged_and_leaves_no_half_commit() {
    let mut cut = 0;
    loop {
        let disk = Arc::new(Mutex::new(Disk {
            cut: Some(cut),
            ..new_disk()
        }));
        let asked = match open(&disk) {
            Ok(store) => run(async {
                let asked = work(&store).await;
                store.close().await;
                asked
            }),
            // The power failed before it was open.
            Err(_) => Asked {
                after: [(1, Content::new())].into(),
                acknowledged: 1,
            },
        };
        let over = disk.lock().steps < cut;
        for loss in [
            Loss::Everything,
            Loss::Some(cut as u64),
            Loss::Some(!cut as u64),
            Loss::Nothing,
        ] {
            let when = format!("cut at step {cut}, lost {loss:?}");
            let disk = Arc::new(Mutex::new(disk.lock().after(loss)));
            let store = open(&disk).unwrap_or_else(|error| panic!("{when}: {error}"));
            run(async {
                judge(&store, &asked, &when).await;
                store.close().await;
            });
        }
        if over {
            break;
        }
        cut += 1;
    }
    assert!(cut > 50, "only {cut} steps were cut");
}

#[test]
fn a_disk_that_was_full_takes_writes_again_and_keeps_no_refused_one() {
    let disk = Arc::new(Mutex::new(new_disk()));
    let store = open(&disk).expect("a store");
    run(async {
        let put = |number| store.commit(vec![change(number, Some(number), Expect::Absent)]);
        put(1).await.expect("room");
        disk.lock().full = true;
        for _ in 0..3 {
            assert!(matches!(put(2).await, Err(StoreError::Engine { .. })));
        }
        assert!(store.health().is_err());
        disk.lock().full = false;
        let done = put(3).await.expect("room again");
        assert!(store.health().is_ok());
        let want = [1, 3].map(key);
        assert_eq!(content(&store).into_keys().collect::<Vec<_>>(), want);
        store.close().await;
        // The disk holds what was reported, whether or not it was closed in order.
        let again = Arc::new(Mutex::new(disk.lock().after(Loss::Everything)));
        let again = open(&again).expect("a store");
        assert_eq!(content(&again).into_keys().collect::<Vec<_>>(), want);
        assert_eq!(again.world().rev(), done.rev);
        again.close().await;
    });
}

#[test]
fn what_was_not_forgotten_goes_before_what_is_forgotten_later() {
    let disk = Arc::new(Mutex::new(new_disk()));
    let store = open(&disk).expect("a store");
    run(async {
        let commit = |body, expect| store.commit(vec![change(1, body, expect)]);
        let made = commit(Some(1), Expect::Absent).await.expect("room").rev;
        let changed = commit(Some(2), Expect::Revision(made)).await.expect("room");
        disk.lock().full = true;
        store.compact(changed.rev).await.expect("a wish");
        // The second follows the failed removal: both were tried.
        let refused = store.commit(vec![change(2, Some(1), Expect::Absent)]).await;
        assert!(matches!(refused, Err(StoreError::Engine { .. })));
        disk.lock().full = false;
        let gone = commit(None, Expect::Revision(changed.rev)).await;
        let gone = gone.expect("room again").rev;
        store.compact(gone).await.expect("a wish");
        store.close().await;
        let again = Arc::new(Mutex::new(disk.lock().after(Loss::Nothing)));
        let again = open(&again).expect("a store");
        assert!(content(&again).is_empty(), "what was deleted is back");
        again.close().await;
    });
}

#[test]
fn a_database_that_breaks_fails_who_waits_and_is_opened_again() {
    let disk = Arc::new(Mutex::new(new_disk()));
    let store = open(&disk).expect("a store");
    run(async {
        let put = |number| store.commit(vec![change(number, Some(number), Expect::Absent)]);
        put(1).await.expect("a disk");
        disk.lock().broken = true;
        assert!(matches!(put(2).await, Err(StoreError::Engine { .. })));
        assert!(store.health().is_err());
        disk.lock().broken = false;
        put(3).await.expect("a disk again");
        assert!(store.health().is_ok());
        let want = [1, 3].map(key);
        assert_eq!(content(&store).into_keys().collect::<Vec<_>>(), want);
        store.close().await;
    });
}
