use super::*;

fn host(memory: u64, disk: u64, pids: u64) -> HostUsage {
    let of = |capacity, available| Amount {
        capacity,
        available,
    };
    HostUsage {
        at: Timestamp::UNIX_EPOCH,
        cpu: 0,
        memory: of(4 << 30, memory),
        disk: of(1000 << 20, disk),
        inodes: of(100, 50),
        pids: of(1000, pids),
    }
}

fn pod(json: serde_json::Value) -> Pod {
    serde_json::from_value(json).expect("a pod")
}

#[test]
fn thresholds_are_read_and_met() {
    let thresholds = Thresholds::default();
    let text = thresholds.to_string();
    assert_eq!(
        text,
        "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%"
    );
    assert_eq!(text.parse(), Ok(thresholds.clone()));
    for bad in [
        "memory.available",
        "x<1",
        "memory.available<y",
        "nodefs.available<101%",
    ] {
        assert!(bad.parse::<Thresholds>().is_err(), "{bad}");
    }
    let signals = |host: &HostUsage| -> Vec<Signal> {
        thresholds.met(host).iter().map(|met| met.signal).collect()
    };
    assert_eq!(signals(&host(1 << 30, 500 << 20, 1)), []);
    assert_eq!(signals(&host(99 << 20, 500 << 20, 1)), [Signal::Memory]);
    assert_eq!(signals(&host(1 << 30, 120 << 20, 1)), [Signal::ImageDisk]);
    assert_eq!(
        signals(&host(1, 1, 1)),
        [Signal::Memory, Signal::Disk, Signal::ImageDisk]
    );
    let pids: Thresholds = "pid.available<10".parse().expect("thresholds");
    assert_eq!(pids.met(&host(1, 1, 9))[0].signal, Signal::Pids);
    // These values mean no threshold.
    let none: Thresholds = "memory.available<100%,nodefs.available<0%"
        .parse()
        .expect("thresholds");
    assert_eq!(none.met(&host(1, 1, 1)), []);
    // A signal that cannot be measured meets no threshold.
    let unmeasured = HostUsage {
        memory: Amount::default(),
        disk: Amount::default(),
        inodes: Amount::default(),
        pids: Amount::default(),
        ..host(0, 0, 0)
    };
    let all: Thresholds = "memory.available<1Ti,nodefs.available<99%,pid.available<9"
        .parse()
        .expect("thresholds");
    assert_eq!(all.met(&unmeasured), []);
    let mut last = BTreeMap::new();
    let at = |second| Timestamp::from_second(second).expect("a time");
    let met = thresholds.met(&host(1, 500 << 20, 1));
    for (met, second, expected) in [
        (&met[..], 0, &["MemoryPressure"][..]),
        (&[], 299, &["MemoryPressure"]),
        (&[], 300, &[]),
    ] {
        assert_eq!(conditions(met, &mut last, at(second)), expected, "{second}");
    }
}

#[test]
fn who_exceeds_its_request_goes_first_and_is_told_why() {
    let of = |name: &str, priority: i64, request: &str| {
        pod(
            serde_json::json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [
            {"name": "c", "resources": {"requests": {"memory": request}}}]}}),
        )
    };
    let used = |memory: u64| PodUse {
        memory: memory << 20,
        containers: [("c".into(), memory << 20)].into(),
        ..PodUse::default()
    };
    let pods = [
        (of("within", 0, "100Mi"), Some(used(90))),
        (of("over", 0, "10Mi"), Some(used(30))),
        (of("more", 0, "10Mi"), Some(used(40))),
        (of("important", 10, "1Mi"), Some(used(500))),
        (of("critical", 2_000_001_000, "0"), Some(used(900))),
    ];
    let met = Thresholds::default().met(&host(50 << 20, 500 << 20, 1));
    let mut left: Vec<(&Pod, Option<&PodUse>)> = pods
        .iter()
        .map(|(pod, used)| (pod, used.as_ref()))
        .collect();
    let mut went = Vec::new();
    let mut told = Vec::new();
    while let Some((at, message)) = victim(&met, &left) {
        let (pod, _) = left.remove(at);
        went.push(pod.metadata.name.as_deref().unwrap_or_default());
        told.push(message);
    }
    assert_eq!(went, ["more", "over", "important", "within"]);
    assert_eq!(
        told[0],
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 40Mi, request is 10Mi, has larger consumption of memory. "
    );
    // For processes, lower priority goes first, whatever the usage.
    let pids: Thresholds = "pid.available<10".parse().expect("thresholds");
    let met = pids.met(&host(1, 1, 9));
    let used = |pids| {
        Some(PodUse {
            pids,
            ..PodUse::default()
        })
    };
    let (low, high) = (&pods[0].0, &pods[3].0);
    for (uses, goes) in [
        ([(low, used(1)), (high, None)], 0),
        ([(low, used(1)), (low, None)], 1),
        ([(low, used(1)), (low, used(2))], 1),
    ] {
        let uses: Vec<_> = uses
            .iter()
            .map(|(pod, used)| (*pod, used.as_ref()))
            .collect();
        let (at, message) = victim(&met, &uses).expect("one goes");
        assert_eq!(at, goes);
        assert_eq!(
            message,
            "The node was low on resource: pids. Threshold quantity: 10, available: 9. "
        );
    }
    let met = Thresholds::default().met(&host(50 << 20, 500 << 20, 1));
    let unknown = [(&pods[2].0, pods[2].1.as_ref()), (&pods[0].0, None)];
    assert_eq!(victim(&met, &unknown).map(|(at, _)| at), Some(1));
}

#[test]
fn limits_on_disk_are_kept() {
    let pod = pod(serde_json::json!({"spec": {
        "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "10Mi"}}}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "5Mi"}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}}]}}));
    assert!(limits_disk(&pod));
    let disk = |volume: u64, container: u64, files: u64| PodDisk {
        volumes: [("v".to_owned(), volume << 20), ("m".to_owned(), 9)].into(),
        containers: [("c".to_owned(), container << 20)].into(),
        files: files << 20,
    };
    for (disk, expected) in [
        (disk(5, 4, 0), None),
        (
            disk(5, 4, 2),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "),
        ),
        (
            disk(6, 0, 0),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"5Mi\". "),
        ),
        (
            disk(5, 6, 0),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "),
        ),
    ] {
        assert_eq!(exceeds(&pod, &disk).as_deref(), expected);
    }
    assert!(!limits_disk(&Pod::default()));
    // The limit of one container is the pod's; an init container counts if it has more.
    let of = |init: &str| {
        self::pod(serde_json::json!({"spec": {
            "initContainers": [{"name": "i", "resources": {"limits": {"ephemeral-storage": init}}}],
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "5M"}}}, {"name": "d"}]}}))
    };
    let disk = |c: u64, d: u64| PodDisk {
        containers: [("c".to_owned(), c), ("d".to_owned(), d)].into(),
        ..PodDisk::default()
    };
    for (init, disk, expected) in [
        ("1", disk(5_000_000, 0), None),
        (
            "1",
            disk(0, 5_000_001),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 5M. "),
        ),
        ("7M", disk(0, 5_000_001), None),
        (
            "7M",
            disk(5_000_001, 0),
            Some("Container c exceeded its local ephemeral storage limit \"5M\". "),
        ),
    ] {
        assert_eq!(exceeds(&of(init), &disk).as_deref(), expected, "{init}");
    }
}

#[test]
fn a_node_under_pressure_takes_few() {
    let of = |class: &str, priority: i64, tolerations: serde_json::Value| {
        pod(
            serde_json::json!({"spec": {"priority": priority, "containers": [], "tolerations": tolerations}, "status": {"qosClass": class}}),
        )
    };
    let none = serde_json::json!([]);
    let tolerates =
        serde_json::json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]);
    for (conditions, pod, taken) in [
        (&[][..], of("BestEffort", 0, none.clone()), true),
        (
            &["MemoryPressure"],
            of("BestEffort", 0, none.clone()),
            false,
        ),
        (&["MemoryPressure"], of("BestEffort", 0, tolerates), true),
        (
            &["MemoryPressure"],
            of(
                "BestEffort",
                0,
                serde_json::json!([{"key": "node.kubernetes.io/memory-pressure", "value": "x"}]),
            ),
            false,
        ),
        (
            &["MemoryPressure"],
            of("BestEffort", 0, serde_json::json!([{"operator": "Exists"}])),
            true,
        ),
        (&["MemoryPressure"], of("Burstable", 0, none.clone()), true),
        (
            &["DiskPressure", "MemoryPressure"],
            of("Burstable", 0, none.clone()),
            false,
        ),
        (
            &["DiskPressure"],
            of("BestEffort", 2_000_000_000, none),
            true,
        ),
    ] {
        let told = refuses(conditions, &pod);
        assert_eq!(told.is_none(), taken, "{conditions:?} {told:?}");
    }
    let refused = refuses(&["DiskPressure"], &Pod::default());
    assert_eq!(
        refused.as_deref(),
        Some("The node had condition: [DiskPressure]. ")
    );
}

#[test]
fn pods_may_use_what_is_not_kept_free() {
    let capacity = BTreeMap::from(
        [
            ("cpu", "4"),
            ("memory", "1Gi"),
            ("ephemeral-storage", "1000"),
        ]
        .map(|(name, amount)| (name.to_owned(), amount.to_owned())),
    );
    for (thresholds, memory, disk) in [
        (Thresholds::default(), "924Mi", "900"),
        (
            "memory.available<50%".parse().expect("sound"),
            "512Mi",
            "1000",
        ),
        (
            "memory.available<2Gi,pid.available<5"
                .parse()
                .expect("sound"),
            "0",
            "1000",
        ),
        ("".parse().expect("sound"), "1Gi", "1000"),
    ] {
        let left = thresholds.leave(&capacity);
        let found = ["cpu", "memory", "ephemeral-storage"].map(|name| left[name].as_str());
        assert_eq!(found, ["4", memory, disk], "{thresholds}");
    }
}
