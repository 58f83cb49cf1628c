//! The contract that every runtime must fulfil, tested with the simulated one.

use std::collections::BTreeMap;

use super::simulated::{BEHAVIOUR, Simulated};
use super::*;

pub(crate) fn zone(name: &str) -> ZoneSpec {
    ZoneSpec {
        labels: BTreeMap::from([("owner".into(), name.into())]),
        hostname: name.into(),
        ..ZoneSpec::new(
            ZoneName::new(name).expect("a legal name"),
            ZoneNetwork::Host,
        )
    }
}

pub(crate) fn process(name: &str, generation: u32, behaviour: &str) -> ProcessSpec {
    ProcessSpec {
        id: ProcessId {
            name: name.into(),
            generation,
        },
        labels: BTreeMap::from([(BEHAVIOUR.into(), behaviour.into())]),
        beside: None,
        root: Root::Directory("/".into()),
        command: vec!["true".into()],
        environment: Vec::new(),
        directory: "/".into(),
        mounts: Vec::new(),
        rights: Rights::default(),
        limits: Limits::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
        log: "/dev/null".into(),
    }
}

#[test]
fn zone_names_are_what_zonecfg_takes() {
    for (name, legal) in [
        ("rd-0a1b2c", true),
        ("1", true),
        ("global", false),
        ("SUNWx", false),
        ("-a", false),
        ("a/b", false),
        ("", false),
    ] {
        assert_eq!(ZoneName::new(name).is_some(), legal, "{name:?}");
    }
    assert!(ZoneName::new(&"a".repeat(63)).is_some());
    assert!(ZoneName::new(&"a".repeat(64)).is_none());
}

#[tokio::test]
async fn a_zone_lives_and_every_step_may_be_repeated() {
    let host = Simulated::default();
    let spec = zone("z1");
    let name = &spec.name;
    let web = process("web", 0, "");
    assert!(host.boot(name).await.expect_err("no zone").is_not_found());
    for _ in 0..2 {
        host.create(&spec).await.expect("create");
    }
    assert!(
        matches!(host.start(name, &web).await, Err(ZoneError::State { .. })),
        "not booted yet"
    );
    for _ in 0..2 {
        host.boot(name).await.expect("boot");
    }
    let boot = host.get(name).await.expect("get").expect("there").boot;
    for _ in 0..2 {
        host.start(name, &web).await.expect("start");
    }
    let seen = host.get(name).await.expect("get").expect("there");
    assert_eq!(seen.processes.len(), 1);
    assert_eq!(seen.boot, boot, "a second boot of a running zone is none");
    assert!(matches!(
        host.forget(name, &web.id).await,
        Err(ZoneError::State { .. })
    ));
    assert!(matches!(
        host.delete(name).await,
        Err(ZoneError::State { .. })
    ));
    host.signal(name, &web.id, Signal::TERM)
        .await
        .expect("signal");
    let seen = host.get(name).await.expect("get").expect("there");
    assert_eq!(
        seen.processes[0]
            .ended
            .as_ref()
            .map(|end| (end.code, end.signal)),
        Some((143, 15))
    );
    host.forget(name, &web.id).await.expect("forget");
    host.reboot(name);
    assert_ne!(
        host.get(name).await.expect("get").expect("there").boot,
        boot
    );
    for _ in 0..2 {
        host.halt(name).await.expect("halt");
        host.delete(name).await.expect("delete");
    }
    assert!(host.list().await.expect("list").is_empty());
}

#[tokio::test]
async fn faults_strike_once_and_before_or_after_the_work() {
    let host = Simulated::default();
    let spec = zone("z1");
    host.fail("create", "disk full");
    let error = host.create(&spec).await.expect_err("told to fail");
    assert_eq!(error.to_string(), "cannot create zone z1: disk full");
    assert!(host.list().await.expect("list").is_empty());
    host.fail_after("create", "interrupted");
    host.create(&spec).await.expect_err("told to fail");
    assert_eq!(
        host.list().await.expect("list").len(),
        1,
        "the work was done"
    );
    host.create(&spec).await.expect("adopted");
    let stalled = host.stall("boot");
    let booting = tokio::spawn({
        let host = host.clone();
        let name = spec.name.clone();
        async move { host.boot(&name).await }
    });
    stalled.notify_one();
    booting.await.expect("no panic").expect("boot");
}

#[tokio::test(start_paused = true)]
async fn processes_end_as_their_behaviour_says() {
    let host = Simulated::default();
    let spec = zone("z1");
    host.create(&spec).await.expect("create");
    host.boot(&spec.name).await.expect("boot");
    let mut changes = host.changes();
    let job = process("job", 0, "exit 3 after 60000");
    host.start(&spec.name, &job).await.expect("start");
    let ending = loop {
        changes.recv().await.expect("a change");
        let zone = host.get(&spec.name).await.expect("get").expect("there");
        if let Some(ending) = zone.processes[0].ended.clone() {
            break ending;
        }
    };
    assert_eq!(ending.code, 3);
    let stubborn = process("web", 0, "stubborn");
    host.start(&spec.name, &stubborn).await.expect("start");
    host.signal(&spec.name, &stubborn.id, Signal::TERM)
        .await
        .expect("signal");
    let state = |zone: Zone| zone.processes[1].ended.clone().map(|end| end.code);
    assert_eq!(
        state(host.get(&spec.name).await.expect("get").expect("there")),
        None
    );
    host.signal(&spec.name, &stubborn.id, Signal::KILL)
        .await
        .expect("signal");
    assert_eq!(
        state(host.get(&spec.name).await.expect("get").expect("there")),
        Some(137)
    );
}

#[test]
fn images_name_their_signals() {
    for (name, number) in [
        ("SIGQUIT", Some((3, 3))),
        ("quit", Some((3, 3))),
        ("SIGWINCH", Some((28, 20))),
        ("USR1", Some((10, 16))),
        ("SIGBUS", Some((7, 10))),
        // What a system lacks is asked for as by default.
        ("SIGSTKFLT", Some((16, 15))),
        ("SIGEMT", Some((15, 7))),
        // A number is one of the image's own system.
        ("15", Some((15, 15))),
        ("28", Some((28, 28))),
        ("0", None),
        ("64", None),
        ("SIGRTMIN+3", None),
        ("SIG", None),
        ("", None),
    ] {
        let on = |signal: Signal| (signal.on(System::Linux).0, signal.on(System::Illumos).0);
        assert_eq!(Signal::named(name).map(on), number, "{name}");
    }
}
