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
        containers: vec![("c".into(), memory << 20)],
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
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. Container c was using 40Mi, request is 10Mi, has larger consumption of memory. "
    );
    let unknown = [(&pods[2].0, pods[2].1.as_ref()), (&pods[0].0, None)];
    assert_eq!(victim(&met, &unknown).map(|(at, _)| at), Some(1));
}

#[test]
fn limits_on_disk_are_kept() {
    let pod = pod(serde_json::json!({"spec": {
        "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "10Mi"}}}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "5Mi"}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}}]}}));
    assert!(limits_disk(&pod));
    let disk = |volume: u64, container: u64| PodDisk {
        volumes: [("v".to_owned(), volume << 20), ("m".to_owned(), 9)].into(),
        containers: [("c".to_owned(), container << 20)].into(),
    };
    for (disk, expected) in [
        (disk(5, 4), None),
        (
            disk(6, 0),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"5Mi\". "),
        ),
        (
            disk(5, 6),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "),
        ),
    ] {
        assert_eq!(exceeds(&pod, &disk).as_deref(), expected);
    }
    assert!(!limits_disk(&Pod::default()));
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
