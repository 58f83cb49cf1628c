use crate::fakehost::{Layout, Machine, Reply};

/// A host for a test.
pub struct Bench {
    pub machine: Machine,
    _root: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::create(root.path(), &Layout::default()).unwrap();
        Bench {
            machine,
            _root: root,
        }
    }
    pub fn run(&self, line: &str) -> Reply {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.machine.run(&words[0], &words[1..], b"")
    }
    /// Runs commands that must succeed.
    pub fn do_all(&self, lines: &[&str]) {
        for line in lines {
            let reply = self.run(line);
            assert_eq!(
                reply.code,
                0,
                "{line}: {}",
                String::from_utf8_lossy(&reply.stderr)
            );
        }
    }
    /// Runs a command; returns its exit status and both outputs.
    pub fn ask(&self, line: &str) -> (i32, String) {
        let reply = self.run(line);
        let text = [reply.stdout, reply.stderr].concat();
        (reply.code, String::from_utf8(text).unwrap())
    }
}

#[test]
fn file_systems_are_made_cloned_and_destroyed_as_zfs_has_it() {
    let bench = Bench::new();
    bench.do_all(&[
        "zfs create -o mountpoint=/tank/zones tank/zones",
        "zfs create -p tank/a/b/c",
        "zfs create -p tank/a/b/c",
        "zfs create tank/img",
        "zfs snapshot tank/img@ready",
        "zfs clone tank/img@ready tank/zones/x",
        "zfs hold keep tank/img@ready",
    ]);
    for (line, code, text) in [
        (
            "zfs create tank/img",
            1,
            "cannot create 'tank/img': dataset already exists\n",
        ),
        (
            "zfs create tank/n/o",
            1,
            "cannot create 'tank/n/o': parent does not exist\n",
        ),
        (
            "zfs create no/x",
            1,
            "cannot create 'no/x': no such pool 'no'\n",
        ),
        (
            "zfs create tank/a%b",
            1,
            "cannot create 'tank/a%b': invalid character '%' in name\n",
        ),
        (
            "zfs create -o used=1 tank/q",
            1,
            "cannot create 'tank/q': 'used' is readonly\n",
        ),
        (
            "zfs create -o quota=x tank/q",
            1,
            "cannot create 'tank/q': bad numeric value 'x'\n",
        ),
        (
            "zfs destroy tank/nope",
            1,
            "cannot open 'tank/nope': dataset does not exist\n",
        ),
        (
            "zfs destroy tank/a",
            1,
            "cannot destroy 'tank/a': filesystem has children\nuse '-r' to destroy the following datasets:\ntank/a/b\ntank/a/b/c\n",
        ),
        (
            "zfs destroy -r tank/img",
            1,
            "cannot destroy 'tank/img': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\ntank/zones/x\n",
        ),
        (
            "zfs destroy tank/img@ready",
            1,
            "cannot destroy 'tank/img@ready': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\ntank/zones/x\n",
        ),
        (
            "zfs list -Ho name,origin,mountpoint tank/zones/x",
            0,
            "tank/zones/x\ttank/img@ready\t/tank/zones/x\n",
        ),
        (
            "zfs get -Hp -o value clones tank/img@ready",
            0,
            "tank/zones/x\n",
        ),
        (
            "zfs get -H -o value,source mounted,quota tank/zones/x",
            0,
            "yes\t-\nnone\tdefault\n",
        ),
        ("zfs destroy tank/zones/x", 0, ""),
        (
            "zfs destroy tank/img@ready",
            1,
            "cannot destroy 'tank/img@ready': dataset is busy\n",
        ),
        ("zfs destroy -d tank/img@ready", 0, ""),
        ("zfs release keep tank/img@ready", 0, ""),
        ("zfs list -H -t snapshot", 0, ""),
        (
            "zfs destroy tank/img@ready",
            1,
            "could not find any snapshots to destroy; check snapshot names.\n",
        ),
        ("zfs destroy -r tank/a", 0, ""),
        ("zfs list -Ho name", 0, "tank\ntank/img\ntank/zones\n"),
    ] {
        assert_eq!(bench.ask(line), (code, text.to_owned()), "{line}");
    }
}

#[test]
fn a_clone_has_the_files_and_its_own_changes() {
    let bench = Bench::new();
    let disk = bench.machine.disk().clone();
    bench.do_all(&["zfs create tank/img"]);
    std::fs::create_dir(disk.real("/tank/img/root")).unwrap();
    std::fs::write(disk.real("/tank/img/root/a"), "one").unwrap();
    bench.do_all(&[
        "zfs snapshot tank/img@ready",
        "zfs clone tank/img@ready tank/c",
    ]);
    std::fs::write(disk.real("/tank/c/root/a"), "two").unwrap();
    bench.do_all(&[
        "zfs clone tank/img@ready tank/d",
        "zfs rename tank/d tank/e",
    ]);
    let read = |path| std::fs::read_to_string(disk.real(path)).unwrap();
    assert_eq!(
        [
            read("/tank/img/root/a"),
            read("/tank/c/root/a"),
            read("/tank/e/root/a")
        ],
        ["one", "two", "one"]
    );
    assert!(!disk.exists("/tank/d"));
    bench.do_all(&[
        "zfs destroy tank/c",
        "zfs unmount tank/e",
        "zfs set mountpoint=/other tank/e",
        "zfs mount tank/e",
    ]);
    assert!(!disk.exists("/tank/c"));
    assert_eq!(read("/other/root/a"), "one");
}

#[test]
fn mounts_are_refused_and_busy_as_on_illumos() {
    let bench = Bench::new();
    let disk = bench.machine.disk().clone();
    std::fs::create_dir_all(disk.real("/full/x")).unwrap();
    bench.do_all(&[
        "zfs create tank/p",
        "zfs create tank/p/c",
        "zfs create -o zoned=on -o mountpoint=/data tank/z",
    ]);
    for (line, code, text) in [
        (
            "zfs create -o mountpoint=/full tank/m",
            1,
            "cannot mount '/full': directory is not empty\nfilesystem successfully created, but not mounted\n",
        ),
        ("zfs list -Ho name,mounted tank/m", 0, "tank/m\tno\n"),
        (
            "zfs unmount tank/p",
            1,
            "cannot unmount '/tank/p': Device busy\n",
        ),
        (
            "zfs mount tank/p",
            1,
            "cannot mount 'tank/p': filesystem already mounted\n",
        ),
        (
            "zfs mount tank/z",
            1,
            "cannot mount 'tank/z': dataset is exported to a local zone\n",
        ),
        ("zfs set mountpoint=/q tank/p", 0, ""),
        (
            "zfs list -Hro mountpoint,mounted tank/p",
            0,
            "/q\tyes\n/q/c\tyes\n",
        ),
        ("zfs set canmount=off tank/p/c", 0, ""),
        (
            "zfs mount tank/p/c",
            1,
            "cannot mount 'tank/p/c': 'canmount' property is set to 'off'\n",
        ),
        ("zfs set mountpoint=none tank/p", 0, ""),
        (
            "zfs mount tank/p",
            1,
            "cannot mount 'tank/p': no mountpoint set\n",
        ),
        (
            "zfs unmount tank/p",
            1,
            "cannot unmount 'tank/p': not currently mounted\n",
        ),
    ] {
        assert_eq!(bench.ask(line), (code, text.to_owned()), "{line}");
    }
    bench
        .machine
        .change(|host, _| host.datasets.get_mut("tank").unwrap().held_open = true)
        .unwrap();
    bench.do_all(&["zfs create tank/h"]);
    bench
        .machine
        .change(|host, _| host.datasets.get_mut("tank/h").unwrap().held_open = true)
        .unwrap();
    assert_eq!(
        bench.ask("zfs destroy tank/h"),
        (1, "cannot unmount '/tank/h': Device busy\n".to_owned())
    );
    bench.do_all(&["zfs destroy -f tank/h"]);
}

#[test]
fn limits_and_the_state_of_the_pool_decide() {
    let bench = Bench::new();
    bench.do_all(&[
        "zfs create -o quota=1G tank/v",
        "zfs snapshot tank/v@s",
        "zfs set reddwarf:pod=u tank/v",
    ]);
    bench
        .machine
        .change(|host, _| host.datasets.get_mut("tank/v").unwrap().filled = 512 << 20)
        .unwrap();
    let small =
        "cannot set property for 'tank/v': size is less than current used or reserved space\n";
    for (line, code, text) in [
        ("zfs set quota=100M tank/v", 1, small),
        ("zfs set refquota=100M tank/v", 1, small),
        (
            "zfs set refreservation=100G tank/v",
            1,
            "cannot set property for 'tank/v': size is greater than available space\n",
        ),
        ("zfs set refquota=600M tank/v", 0, ""),
        ("zfs set quota=0 tank/v", 0, ""),
        ("zfs set quota=none tank/v", 0, ""),
        ("zfs get -Hp -o value quota tank/v", 0, "0\n"),
        (
            "zfs get -Hp -o name,value -s local -r reddwarf:pod tank",
            0,
            "tank/v\tu\n",
        ),
        (
            "zfs get -H -o value,source reddwarf:pod tank/v@s",
            0,
            "u\tinherited from tank/v\n",
        ),
        (
            "zfs inherit quota tank/v",
            1,
            "'quota' property cannot be inherited\nuse 'zfs set quota=none' to clear\nuse 'zfs inherit -S quota' to revert to received value\n",
        ),
    ] {
        assert_eq!(bench.ask(line), (code, text.to_owned()), "{line}");
    }
    let health = |health| {
        bench
            .machine
            .change(|host, _| host.pools.get_mut("tank").unwrap().health = health)
            .unwrap();
    };
    health(crate::fakehost::Health::Suspended);
    assert_eq!(
        bench.ask("zfs create tank/w"),
        (
            1,
            "cannot create 'tank/w': pool I/O is currently suspended\n".to_owned()
        )
    );
    assert_eq!(
        bench.ask("zpool list -Ho name,health"),
        (0, "tank\tUNAVAIL\n".to_owned())
    );
    health(crate::fakehost::Health::ReadOnly);
    assert_eq!(
        bench.ask("zfs destroy -r tank/v"),
        (
            1,
            "cannot destroy 'tank/v@s': pool is read-only\n".to_owned()
        )
    );
    health(crate::fakehost::Health::Online);
    bench
        .machine
        .change(|host, _| host.pools.get_mut("tank").unwrap().taken = 64 << 30)
        .unwrap();
    assert_eq!(
        bench.ask("zfs create tank/w"),
        (1, "cannot create 'tank/w': out of space\n".to_owned())
    );
    assert_eq!(
        bench.ask("zpool list nope"),
        (1, "cannot open 'nope': no such pool\n".to_owned())
    );
    assert_eq!(bench.run("zfs list -o nope").code, 2);
    assert_eq!(bench.run("zfs create -u tank/x").code, 2);
}

/// A running zone `z` with the dataset `tank/v/data`.
pub fn with_zone(machine: &Machine, dataset: &str) {
    use crate::fakehost::{KernelZone, ZoneStatus};
    let change = machine.change(|host, _| {
        let own = host.datasets.get_mut(dataset).expect("there");
        own.properties.insert("zoned".into(), "on".into());
        let zone = KernelZone {
            id: 1,
            status: ZoneStatus::Running,
            brand: "reddwarf".into(),
            path: "/tank/z".into(),
            booted: 0,
            links: Vec::new(),
            mounts: Vec::new(),
            rctls: Default::default(),
            datasets: vec![dataset.to_owned()],
            mounted: Default::default(),
            dead: None,
            init: None,
            stuck: None,
            cpu: (0, 0),
            memory: (0, 0),
        };
        host.zones.insert("z".into(), zone);
    });
    change.expect("changed");
}

#[test]
fn a_zone_changes_what_is_its_own_except_for_what_holds_it() {
    let bench = Bench::new();
    bench.do_all(&[
        "zfs create -o quota=1G -o mountpoint=none tank/v",
        "zfs create -o quota=1G tank/v/data",
        "zfs create tank/other",
    ]);
    with_zone(&bench.machine, "tank/v/data");
    let denied = |what: &str| format!("cannot {what}: permission denied\n");
    for (line, code, text) in [
        ("list -H -o name", 0, "tank\ntank/v\ntank/v/data\n".into()),
        (
            "list -H -o name tank/other",
            1,
            "cannot open 'tank/other': dataset does not exist\n".into(),
        ),
        // What was delegated, and what is above it.
        (
            "set quota=none tank/v/data",
            1,
            denied("set property for 'tank/v/data'"),
        ),
        (
            "set zoned=off tank/v/data",
            1,
            denied("set property for 'tank/v/data'"),
        ),
        (
            "set refquota=1M tank/v",
            1,
            denied("set property for 'tank/v'"),
        ),
        ("snapshot tank/v@x", 1, denied("create snapshot 'tank/v@x'")),
        ("create tank/v/x", 1, denied("create 'tank/v/x'")),
        ("destroy -r tank/v", 1, denied("destroy 'tank/v'")),
        // All else of it.
        ("set refquota=none tank/v/data", 0, String::new()),
        ("set reddwarf:is=other tank/v/data", 0, String::new()),
        ("set mountpoint=/rd/d/0 tank/v/data", 0, String::new()),
        ("create tank/v/data/a", 0, String::new()),
        ("set quota=1M tank/v/data/a", 0, String::new()),
        ("set quota=none tank/v/data/a", 0, String::new()),
        (
            "list -H -r -o name,mounted,mountpoint tank/v/data",
            0,
            "tank/v/data\tyes\t/rd/d/0\ntank/v/data/a\tyes\t/rd/d/0/a\n".into(),
        ),
        // canmount=off is obeyed without a word.
        ("set canmount=off tank/v/data", 0, String::new()),
        ("set mountpoint=/rd/d/1 tank/v/data", 0, String::new()),
        ("list -H -o mounted tank/v/data", 0, "no\n".into()),
        ("set canmount=on tank/v/data", 0, String::new()),
        ("list -H -o mounted tank/v/data", 0, "no\n".into()),
        // Another path does not mount what was not mounted at the former one, unless there was none.
        ("set mountpoint=/rd/d/2 tank/v/data", 0, String::new()),
        ("list -H -o mounted tank/v/data", 0, "no\n".into()),
        ("mount tank/v/data", 0, String::new()),
        ("list -H -o mounted tank/v/data", 0, "yes\n".into()),
        ("set mountpoint=none tank/v/data", 0, String::new()),
        ("list -H -o mounted tank/v/data", 0, "no\n".into()),
        ("set mountpoint=/rd/d/1 tank/v/data", 0, String::new()),
        ("list -H -o mounted tank/v/data", 0, "yes\n".into()),
        ("snapshot tank/v/data@s", 0, String::new()),
        ("hold x tank/v/data@s", 0, String::new()),
    ] {
        assert_eq!(
            bench.ask(&format!("ctl in z zfs {line}")),
            (code, text),
            "{line}"
        );
    }
    // The global zone changes and removes nothing that a zone has.
    for (line, text) in [
        (
            "zfs rename tank/v/data tank/w",
            "cannot rename 'tank/v/data': dataset is used in a non-global zone\n",
        ),
        (
            "zfs destroy -r tank/v",
            "cannot destroy 'tank/v/data/a': dataset is busy\n",
        ),
    ] {
        assert_eq!(bench.ask(line), (1, text.to_owned()), "{line}");
    }
    let change = bench.machine.change(|host, _| host.zones.clear());
    change.expect("changed");
    // A hold of the zone's stays.
    let (code, text) = bench.ask("zfs destroy -r tank/v");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.ends_with("'tank/v/data@s': dataset is busy\n"),
        "{text}"
    );
}

#[test]
fn what_was_made_a_clone_of_its_own_child_is_not_destroyed() {
    let bench = Bench::new();
    bench.do_all(&[
        "zfs create tank/v",
        "zfs snapshot tank/v@a",
        "zfs clone tank/v@a tank/v/c",
        // Nothing forbids a child to take over what its parent has (`dsl_dataset_promote_check`).
        "zfs promote tank/v/c",
    ]);
    let cycle = "cannot determine dependent datasets: recursive dependency at 'tank/v'\n";
    assert_eq!(bench.ask("zfs destroy -r tank/v"), (1, cycle.to_owned()));
    bench.do_all(&["zfs snapshot tank/v@a"]);
    let clash = "cannot promote 'tank/v': conflicting snapshot 'a' from parent 'tank/v/c@a'\n";
    assert_eq!(bench.ask("zfs promote tank/v"), (1, clash.to_owned()));
    bench.do_all(&[
        "zfs destroy tank/v@a",
        "zfs promote tank/v",
        "zfs destroy -r tank/v",
    ]);
}
