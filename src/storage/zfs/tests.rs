use std::path::Path;

use super::names::*;
use super::*;

#[test]
fn names_of_base_datasets_are_checked_with_the_flag() {
    let config = |pool: &str| StoragePoolConfig::derive(pool, None, None, None).expect("derived");
    for (pool, reason) in [
        ("tank", None),
        ("rpool/reddwarf", None),
        ("/tank", Some("it is not the name of a dataset")),
        ("tank/a b", Some("it is not the name of a dataset")),
        ("tank/a:b", Some("it is not the name of a dataset")),
        ("tank/$(x)", Some("it is not the name of a dataset")),
        ("0tank", Some("begins with a letter")),
    ] {
        let found = check(&config(pool)).map_err(|error| error.to_string());
        match (found, reason) {
            (Ok(()), None) => {}
            (Err(text), Some(reason)) => assert!(text.contains(reason), "{text}"),
            (found, _) => panic!("{pool}: {found:?}"),
        }
    }
    let long = format!("tank/{}/{}", "a".repeat(100), "b".repeat(60));
    let text = check(&config(&long)).expect_err("too long").to_string();
    assert!(text.contains("too long"), "{text}");
}

#[test]
fn commands_are_what_zfs_takes_and_rows_what_it_prints() {
    let names = Names(StoragePoolConfig::derive("tank/rd", None, None, None).expect("fine"));
    let ([first], [data, seal]) = make_home(&names, "u1", Some(1 << 30));
    let root = make_root(
        &names,
        "u1/web-0",
        Some("sha256:0123456789012345678901234567890123456789ffff"),
        Path::new("/tank/rd/zones/pods/u1/c/3"),
    );
    assert_eq!(
        [first, data, seal, root].map(|command| command.to_string()),
        [
            "zfs create -o reddwarf:is=home -o quota=1073741824 tank/rd/zones/pods/u1",
            "zfs create -o reddwarf:is=data -o readonly=off tank/rd/zones/pods/u1/rw",
            "zfs set readonly=on tank/rd/zones/pods/u1",
            "zfs clone -o reddwarf:is=root -o readonly=off -o devices=off -o mountpoint=/tank/rd/zones/pods/u1/c/3 tank/rd/images/layer-0123456789012345678901234567890123456789@ready tank/rd/zones/pods/u1/web-0",
        ]
    );
    assert_eq!(
        rows(
            "tank/a\t/tank/a\tyes\t-\toff\t0\t-\toff\t0\ton\ntank/b\tlegacy\t-\ttank/a@ready\ton\t1024\troot\ton\t2048\tnoauto\nnoise\n"
        ),
        [
            Row {
                name: "tank/a".into(),
                mountpoint: Some("/tank/a".into()),
                mounted: true,
                origin: None,
                readonly: false,
                refquota: None,
                mark: None,
                zoned: false,
                quota: None,
                mounts_itself: true,
            },
            Row {
                name: "tank/b".into(),
                mountpoint: None,
                mounted: false,
                origin: Some("tank/a@ready".into()),
                readonly: true,
                refquota: Some(1024),
                mark: Some("root".into()),
                zoned: true,
                quota: Some(2048),
                mounts_itself: false,
            },
        ]
    );
}

#[test]
fn what_keeps_a_volume_from_being_removed_is_found() {
    for (listed, expected) in [
        ("p/v\t-\t-\np/v@a\t-\t\n", None),
        // A clone below: it goes with the volume.
        ("p/v\t-\t-\np/v@a\t-\tp/v/c\np/v/c\tp/v@a\t-\n", None),
        // The volume is a copy of another.
        ("p/v\tp/w@a\t-\np/v@b\t-\t\n", None),
        // Copies elsewhere, that of the latest snapshot first.
        (
            "p/v\t-\t-\np/v@a\t-\tp/w\np/v@b\t-\tp/vv,p/x\n",
            Some(("p/vv", vec![])),
        ),
        // A parent was made a clone of its child.
        (
            "p/v\tp/v/c@a\t-\np/v@b\t-\t\np/v/c\t-\t-\np/v/c@a\t-\tp/v\n",
            Some(("p/v", vec![])),
        ),
        // ... and has new snapshots of the old names.
        (
            "p/v\tp/v/c@a\t-\np/v@a\t-\t\np/v@b\t-\t\np/v/c\t-\t-\np/v/c@a\t-\tp/v\n",
            Some(("p/v", vec!["p/v@a"])),
        ),
        // Through a third.
        (
            "p/v/x\tp/v/y/z@s\t-\np/v/x@a\t-\tp/v/y\np/v/y\tp/v/x@a\t-\np/v/y/z\t-\t-\np/v/y/z@s\t-\tp/v/x\n",
            Some(("p/v/x", vec![])),
        ),
    ] {
        let expected = expected.map(|(clone, clashes): (&str, Vec<&str>)| Knot {
            clone: clone.into(),
            clashes: clashes.into_iter().map(str::to_owned).collect(),
            leaf: None,
        });
        assert_eq!(knot("p/v", listed), expected, "{listed}");
    }
}

#[test]
fn what_is_made_of_a_snapshot_in_the_way_goes_first() {
    for (listed, leaf) in [
        (
            "p/v\tp/v/c@a\t-\np/v@a\t-\tp/v/d\np/v/c\t-\t-\np/v/c@a\t-\tp/v\np/v/d\tp/v@a\t-\n",
            Some("p/v/d"),
        ),
        // ... and another of that.
        (
            "p/v\tp/v/c@a\t-\np/v@a\t-\tp/v/d\np/v/c\t-\t-\np/v/c@a\t-\tp/v\np/v/d\tp/v@a\t-\np/v/d@b\t-\tp/v/e\np/v/e\tp/v/d@b\t-\n",
            Some("p/v/e"),
        ),
        // Not what holds the one that the volume is made of.
        (
            "p/v\tp/v/d/c@a\t-\np/v@a\t-\tp/v/d\np/v/d\tp/v@a\t-\np/v/d/c\t-\t-\np/v/d/c@a\t-\tp/v\n",
            None,
        ),
    ] {
        let found = knot("p/v", listed).expect("a knot");
        assert_eq!((&*found.clone, found.clashes.len()), ("p/v", 0), "{listed}");
        assert_eq!(found.leaf.as_deref(), leaf, "{listed}");
    }
}

#[test]
fn a_hold_has_any_text_for_a_tag() {
    let listed =
        "p/v@a\tx\tSat Nov 28\np/v@a\t-r a\tb\tSat Nov 28\np/v@a\ttwo\nlines\tSat Nov 28\n";
    assert_eq!(tags("p/v@a", listed), ["x", "-r a\tb", "two\nlines"]);
    assert_eq!(
        held("p/v@a\t2\np/v@b\t0\np/v/c@d\t1\n").collect::<Vec<_>>(),
        ["p/v@a", "p/v/c@d"]
    );
}

struct Bench {
    machine: crate::fakehost::Machine,
    engine: ZfsStorageEngine,
    root: tempfile::TempDir,
}

fn bench(reserve: bool) -> Bench {
    use crate::fakehost::{Layout, Machine};
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().canonicalize().expect("there");
    let layout = Layout {
        mountpoint: Some(path.join("tank").display().to_string()),
        ..Layout::default()
    };
    let machine = Machine::create(&path, &layout).expect("a host");
    let tools = crate::illumos::fake::FakeTools::new(machine.clone());
    let config = StoragePoolConfig::derive("tank/rd", None, None, None).expect("fine");
    let engine = ZfsStorageEngine::new(tools, config, reserve).expect("fine");
    Bench {
        machine,
        engine,
        root,
    }
}

impl Bench {
    fn zfs(&self, line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let reply = self.machine.run("zfs", &words, b"");
        assert_eq!(
            reply.code,
            0,
            "{line}: {}",
            String::from_utf8_lossy(&reply.stderr)
        );
        String::from_utf8_lossy(&reply.stdout).into_owned()
    }
    async fn layer(&self, parent: Option<&str>, chain: &str, file: &str) {
        let layer = self.engine.begin_layer(parent, chain).await.expect("begun");
        std::fs::write(layer.path.join(file), file).expect("written");
        self.engine.seal_layer(chain).await.expect("sealed");
    }
}

#[tokio::test]
async fn layers_are_clones_of_those_below_and_roots_of_the_topmost() {
    let bench = bench(false);
    let engine = &bench.engine;
    for _ in 0..2 {
        engine.prepare().await.expect("prepared");
    }
    bench.layer(None, "sha256:aa", "a").await;
    // An incomplete one is started again.
    let unfinished = engine
        .begin_layer(Some("sha256:aa"), "sha256:bb")
        .await
        .expect("begun");
    std::fs::write(unfinished.path.join("rest"), "").expect("written");
    bench.layer(Some("sha256:aa"), "sha256:bb", "b").await;
    assert_eq!(engine.layers().await.expect("listed"), ["aa", "bb"]);
    let chains = ["sha256:aa".to_owned(), "sha256:bb".to_owned()];
    let data = engine.make_home("u1", Some(1 << 30)).await.expect("made");
    std::fs::write(data.join("mine"), "").expect("writable");
    // One whose removal was interrupted is created again.
    let writable = "tank/rd/zones/pods/u1/rw";
    bench.zfs(&format!("destroy {writable}"));
    let again = engine.make_home("u1", Some(1 << 30)).await.expect("made");
    assert_eq!(again, data);
    let there = bench.zfs(&format!("list -H -o name {writable}"));
    assert_eq!(there.trim(), writable);
    std::fs::write(data.join("mine"), "").expect("writable");
    let Root::Directory(root) = engine.make_root("u1/web-0", &chains).await.expect("made") else {
        panic!("a directory");
    };
    let names = |path: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .expect("read")
            .map(|entry| {
                entry
                    .expect("read")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&root), ["a", "b"]);
    std::fs::write(root.join("c"), "").expect("writable");
    let again = engine.make_root("u1/web-0", &chains).await.expect("there");
    assert_eq!(again, Root::Directory(root.clone()));
    let Root::Directory(other) = engine.make_root("u1/web-1", &chains).await.expect("made") else {
        panic!("a directory");
    };
    assert_eq!(names(&other), ["a", "b"], "what another wrote is its own");
    assert_eq!(
        engine.roots().await.expect("listed"),
        ["u1/web-0", "u1/web-1"]
    );
    assert_eq!(engine.homes().await.expect("listed"), ["u1"]);
    assert_eq!(
        bench.zfs("get -H -o value readonly,quota tank/rd/zones/pods/u1"),
        "on\n1G\n",
        "nobody in a zone can put a link where a root will be mounted"
    );
    let used = engine
        .remove_layer("sha256:bb")
        .await
        .expect_err("roots are made of it");
    assert!(used.to_string().contains("others are made of it"), "{used}");
    for _ in 0..2 {
        engine.remove_root("u1/web-0").await.expect("removed");
        engine.remove_home("u1").await.expect("removed");
    }
    assert!(engine.roots().await.expect("listed").is_empty());
    for chain in ["sha256:bb", "sha256:aa"] {
        for _ in 0..2 {
            engine.remove_layer(chain).await.expect("removed");
        }
    }
    let left = bench.zfs("list -H -o name -r tank");
    assert_eq!(
        left.lines().collect::<Vec<_>>(),
        [
            "tank",
            "tank/rd",
            "tank/rd/images",
            "tank/rd/volumes",
            "tank/rd/zones",
            "tank/rd/zones/pods"
        ]
    );
    drop(bench.root);
}

#[tokio::test]
async fn volumes_grow_are_copied_and_outlive_what_they_were_copied_from() {
    let bench = bench(true);
    let engine = &bench.engine;
    engine.prepare().await.expect("prepared");
    let one = engine
        .make_volume("pvc-1", Some(1 << 20), None)
        .await
        .expect("made");
    std::fs::write(one.path.join("x"), "x").expect("written");
    let grown = engine.resize_volume("pvc-1", 2 << 20).await.expect("grown");
    assert_eq!(grown.quota, Some(2 << 20));
    engine
        .snapshot_volume("pvc-1", "monday")
        .await
        .expect("taken");
    let two = engine
        .make_volume("pvc-2", Some(2 << 20), Some("pvc-1"))
        .await
        .expect("copied");
    let three = engine
        .make_volume("pvc-3", Some(2 << 20), Some("pvc-1@monday"))
        .await
        .expect("copied");
    engine
        .remove_snapshot("pvc-1", "monday")
        .await
        .expect_err("a volume is made of it");
    engine.remove_volume("pvc-1").await.expect("removed");
    engine
        .remove_volume("pvc-1")
        .await
        .expect("removed already");
    for volume in [&two, &three] {
        assert_eq!(
            std::fs::read_to_string(volume.path.join("x")).expect("there"),
            "x"
        );
    }
    let names = |volumes: Vec<Volume>| -> Vec<String> {
        volumes.into_iter().map(|volume| volume.name).collect()
    };
    assert_eq!(
        names(engine.volumes().await.expect("listed")),
        ["pvc-2", "pvc-3"]
    );
    engine.remove_volume("pvc-3").await.expect("removed");
    engine.remove_volume("pvc-2").await.expect("removed");
    assert!(engine.volumes().await.expect("listed").is_empty());
}

impl Bench {
    /// What root does in a zone that has `dataset`; then the zone is halted.
    fn in_zone(&self, dataset: &str, lines: &[&str]) {
        crate::fakehost::with_zone(&self.machine, dataset);
        for line in lines {
            let words: Vec<String> = format!("in z zfs {line}")
                .split(' ')
                .map(str::to_owned)
                .collect();
            let reply = self.machine.run("ctl", &words, b"");
            assert_eq!(
                reply.code,
                0,
                "{line}: {}",
                String::from_utf8_lossy(&reply.stderr)
            );
        }
        let halted = self.machine.change(|host, _| host.zones.clear());
        halted.expect("changed");
    }
}

#[tokio::test]
async fn a_delegated_volume_has_a_size_and_goes_whatever_was_done_in_it() {
    let bench = bench(true);
    let engine = &bench.engine;
    engine.prepare().await.expect("prepared");
    let limits = "get -Hp -o value quota,reservation tank/rd/volumes/pvc-1";
    for _ in 0..2 {
        let data = engine.delegate_volume("pvc-1", Some(1 << 30)).await;
        assert_eq!(data.expect("delegated"), "tank/rd/volumes/pvc-1/data");
    }
    assert_eq!(bench.zfs(limits), "1073741824\n1073741824\n");
    engine.resize_volume("pvc-1", 2 << 30).await.expect("grown");
    assert_eq!(bench.zfs(limits), "2147483648\n2147483648\n");
    bench.in_zone(
        "tank/rd/volumes/pvc-1/data",
        &[
            "set refquota=none tank/rd/volumes/pvc-1/data",
            "set reddwarf:is=other tank/rd/volumes/pvc-1/data",
            "set canmount=off tank/rd/volumes/pvc-1/data",
            "snapshot tank/rd/volumes/pvc-1/data@a",
            "clone tank/rd/volumes/pvc-1/data@a tank/rd/volumes/pvc-1/data/c",
            "promote tank/rd/volumes/pvc-1/data/c",
            "snapshot tank/rd/volumes/pvc-1/data@a",
            "clone tank/rd/volumes/pvc-1/data@a tank/rd/volumes/pvc-1/data/d",
            "hold -- -x tank/rd/volumes/pvc-1/data@a",
            "hold keep tank/rd/volumes/pvc-1/data/c@a",
        ],
    );
    assert_eq!(bench.zfs(limits), "2147483648\n2147483648\n");
    let error = engine.make_volume("pvc-1", None, None).await;
    let error = error.expect_err("a zone's").to_string();
    assert!(error.contains("delegated"), "{error}");
    // A copy would lack what is in the zone's dataset.
    for source in ["pvc-1", "pvc-1@monday"] {
        let copied = engine.make_volume("pvc-2", None, Some(source)).await;
        let error = copied.expect_err("a zone's").to_string();
        assert!(error.contains("cannot be copied"), "{source}: {error}");
    }
    assert!(engine.volumes().await.expect("listed").is_empty());
    engine.remove_volume("pvc-1").await.expect("removed");
    engine.remove_volume("pvc-1").await.expect("gone already");
    assert_eq!(
        bench.zfs("list -H -r -o name tank/rd/volumes"),
        "tank/rd/volumes\n"
    );
}

#[tokio::test]
async fn a_volume_that_was_delegated_whole_stays_so_and_gets_a_limit() {
    let bench = bench(false);
    let engine = &bench.engine;
    engine.prepare().await.expect("prepared");
    let dataset = "tank/rd/volumes/pvc-1";
    bench.zfs(&format!(
        "create -o reddwarf:is=volume -o refquota=1M -o mountpoint=none {dataset}"
    ));
    for zoned in [false, true] {
        let given = engine.delegate_volume("pvc-1", Some(1 << 30)).await;
        assert_eq!(given.expect("delegated"), dataset, "{zoned}");
        assert_eq!(
            bench.zfs(&format!("get -Hp -o value quota {dataset}")),
            "1073741824\n"
        );
        let hold = format!("hold x {dataset}@a");
        let snapshot = format!("snapshot {dataset}@a");
        match zoned {
            true => bench.in_zone(dataset, &[&snapshot, &hold]),
            false => bench.in_zone(dataset, &[]),
        }
    }
    engine.resize_volume("pvc-1", 2 << 30).await.expect("grown");
    assert_eq!(
        bench.zfs(&format!("get -Hp -o value quota {dataset}")),
        "2147483648\n"
    );
    engine.remove_volume("pvc-1").await.expect("removed");
    // What is a directory stays one, and an administrator's hold counts.
    let plain = engine.make_volume("pvc-2", None, None).await.expect("made");
    let error = engine
        .delegate_volume("pvc-2", None)
        .await
        .expect_err("used");
    assert!(error.to_string().contains("directory"), "{error}");
    assert!(plain.path.exists());
    bench.zfs("create tank/rd/volumes/theirs");
    let error = engine
        .delegate_volume("theirs", None)
        .await
        .expect_err("not ours");
    assert!(error.to_string().contains("not ours"), "{error}");
}

#[tokio::test]
async fn what_is_not_ours_or_cannot_be_is_refused_with_the_remedy() {
    let bench = bench(false);
    let engine = &bench.engine;
    engine.prepare().await.expect("prepared");
    bench.zfs("create tank/rd/volumes/pvc-1");
    bench.zfs("create tank/rd/zones/pods/u1");
    for error in [
        engine.make_volume("pvc-1", None, None).await.map(drop),
        engine.remove_volume("pvc-1").await,
        engine.make_home("u1", None).await.map(drop),
        engine.remove_home("u1").await,
    ] {
        let error = error.expect_err("not ours").to_string();
        assert!(error.contains("not ours"), "{error}");
    }
    bench.zfs("list tank/rd/volumes/pvc-1 tank/rd/zones/pods/u1");
    for name in ["../x", "a/b", "", "a b", "$(x)"] {
        engine
            .make_volume(name, None, None)
            .await
            .expect_err("no name");
    }
    let health = |health| {
        let change = bench.machine.change(|host, _| {
            host.pools.get_mut("tank").expect("there").health = health;
        });
        change.expect("changed");
    };
    use crate::fakehost::Health;
    for (state, part) in [
        (Health::Suspended, "zpool status -x"),
        (Health::ReadOnly, "zpool import"),
    ] {
        health(state);
        let error = engine
            .make_volume("pvc-2", None, None)
            .await
            .expect_err("refused");
        assert!(error.to_string().contains(part), "{error}");
        health(Health::Online);
    }
    bench
        .machine
        .change(|host, _| host.pools.get_mut("tank").expect("there").taken = 64 << 30)
        .expect("changed");
    let full = engine
        .make_volume("pvc-2", None, None)
        .await
        .expect_err("full");
    assert!(full.to_string().contains("free space"), "{full}");
}

/// A pool in a file, if ZFS is available; it is destroyed when this is dropped.
struct FilePool {
    tools: std::path::PathBuf,
    name: String,
    _directory: tempfile::TempDir,
}

impl FilePool {
    /// # Errors
    /// Why it cannot be created here.
    fn new() -> Result<Self, String> {
        let tools = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
        let tools = tools
            .into_iter()
            .find(|tools| tools.join("zpool").exists() && tools.join("zfs").exists())
            .ok_or("there is no zpool and zfs on this host")?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (file, top) = (directory.path().join("disk"), directory.path().join("top"));
        let disk = std::fs::File::create(&file).and_then(|disk| disk.set_len(512 << 20));
        disk.map_err(|error| error.to_string())?;
        let name = format!("reddwarf-test-{}", std::process::id());
        let output = std::process::Command::new(tools.join("zpool"))
            .args(["create", "-m"])
            .arg(top)
            .arg(&name)
            .arg(file)
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(FilePool {
                tools,
                name,
                _directory: directory,
            }),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for FilePool {
    fn drop(&mut self) {
        let _ = std::process::Command::new(self.tools.join("zpool"))
            .args(["destroy", "-f", &self.name])
            .status();
    }
}

/// Runs with real ZFS if available: on the dataset in `REDDWARF_TEST_POOL`, or on a pool in a file.
#[tokio::test]
async fn a_real_pool_answers_alike() {
    let named = std::env::var("REDDWARF_TEST_POOL").ok();
    let file = match &named {
        Some(_) => None,
        None => match FilePool::new() {
            Ok(file) => Some(file),
            Err(why) => {
                println!("skipped, without real ZFS: {why}");
                return;
            }
        },
    };
    let pool = match (&named, &file) {
        (Some(named), _) => named.clone(),
        (None, Some(file)) => file.name.clone(),
        (None, None) => return,
    };
    let directory = tempfile::tempdir().expect("a directory");
    let path = file
        .as_ref()
        .map_or("/usr/sbin".into(), |file| file.tools.clone());
    let tools = crate::illumos::HostTools::new(Some(&path), directory.path()).expect("made");
    let config = StoragePoolConfig::derive(&pool, None, None, None).expect("a name");
    let engine = ZfsStorageEngine::new(Arc::new(tools), config, true).expect("a name");
    engine.prepare().await.expect("prepared");
    let layer = engine.begin_layer(None, "sha256:aa").await.expect("begun");
    std::fs::write(layer.path.join("a"), "a").expect("written");
    engine.seal_layer("sha256:aa").await.expect("sealed");
    let chains = ["sha256:aa".to_owned()];
    let Root::Directory(root) = engine.make_root("u1/web-0", &chains).await.expect("made") else {
        panic!("a directory");
    };
    assert_eq!(
        std::fs::read_to_string(root.join("a")).expect("cloned"),
        "a"
    );
    let link = std::os::unix::fs::symlink("/", root.join("../../0x"));
    assert!(link.is_err(), "where roots are mounted nobody makes links");
    engine
        .make_volume("pvc-1", Some(64 << 20), None)
        .await
        .expect("made");
    engine
        .make_volume("pvc-2", Some(64 << 20), Some("pvc-1"))
        .await
        .expect("copied");
    engine.remove_volume("pvc-1").await.expect("removed");
    engine.remove_volume("pvc-2").await.expect("removed");
    engine.remove_home("u1").await.expect("removed");
    engine.remove_layer("sha256:aa").await.expect("removed");
}
