use super::*;
use serde_json::json;

struct Node {
    all: Allocations,
    told: BTreeMap<String, watch::Sender<Option<Arc<PodStatus>>>>,
}

fn pod(uid: &str, generation: i64, cpu: &str, priority: i32) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"uid": uid, "generation": generation},
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

impl Node {
    fn new(cpu: &str) -> Self {
        Node {
            all: Allocations::new(&BTreeMap::from([("cpu".into(), cpu.into())])),
            told: BTreeMap::new(),
        }
    }
    fn take(&mut self, pod: &Arc<Pod>) {
        let uid = pod.metadata.uid.clone().expect("one");
        let (told, status) = watch::channel(None);
        self.all.take(&uid, pod, status, Arc::default());
        self.told.insert(uid, told);
    }
    /// What a pod has, and why it does not get more.
    fn ask(&self, pod: &Arc<Pod>) -> (String, Option<String>) {
        let given = self
            .all
            .give(pod.metadata.uid.as_deref().expect("one"), pod);
        let spec = given.pod.spec.as_ref().expect("one");
        let resources = spec.containers[0].resources.as_ref().expect("some");
        let cpu = resources.requests.as_ref().expect("some")["cpu"].0.clone();
        (cpu, given.pending.map(|(pending, _)| pending.message))
    }
}

#[test]
fn who_waits_for_room_gets_it_in_order() {
    let mut node = Node::new("1");
    for uid in ["a", "b", "c"] {
        node.take(&pod(uid, 1, "300m", 0));
    }
    let (a, b) = (pod("a", 2, "500m", 0), pod("b", 2, "500m", 7));
    assert_eq!(
        node.ask(&a),
        ("300m".into(), None),
        "not before all are known"
    );
    node.all.listed();
    let lacks = |used| {
        let text = format!(
            "Node didn't have enough resource: cpu, requested: 500, used: {used}, capacity: 1000"
        );
        ("300m".to_owned(), Some(text))
    };
    assert_eq!(node.ask(&a), lacks(600));
    assert_eq!(node.ask(&b), lacks(600));
    // Shrinking is always granted, and frees resources once the status shows it.
    let c = pod("c", 2, "100m", 0);
    assert_eq!(node.ask(&c), ("100m".into(), None));
    assert_eq!(
        node.ask(&b),
        ("500m".into(), None),
        "the higher priority comes first"
    );
    assert_eq!(node.ask(&a), lacks(600));
    // As before: no resize is requested.
    assert_eq!(node.ask(&pod("a", 3, "300m", 0)), ("300m".into(), None));
    assert_eq!(node.ask(&a), lacks(600));
    let over = PodStatus {
        phase: Some("Succeeded".into()),
        ..PodStatus::default()
    };
    node.told["c"].send_replace(Some(Arc::new(over)));
    node.all.told();
    assert_eq!(node.ask(&a), ("500m".into(), None));
    node.all.remove("b");
}

#[test]
fn pods_that_do_not_fit_are_refused() {
    let mut node = Node::new("1");
    let with_port = |uid: &str, port: u16, address: &str| {
        let pod = json!({
            "metadata": {"uid": uid},
            "spec": {"containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": port, "hostIP": address}
            ]}]},
        });
        Arc::new(serde_json::from_value::<Pod>(pod).expect("a pod"))
    };
    node.take(&pod("a", 1, "600m", 0));
    node.take(&with_port("b", 8080, "127.0.0.1"));
    let large = pod("c", 1, "500m", 0);
    assert_eq!(node.all.refuses(&large), None, "not before all are known");
    node.all.listed();
    let reason = |pod: &Pod| node.all.refuses(pod).map(|refusal| refusal.reason);
    for (pod, refused) in [
        (&large, Some("OutOfcpu")),
        (&pod("c", 1, "400m", 0), None),
        (&with_port("c", 8080, "127.0.0.1"), Some("NodePorts")),
        (&with_port("c", 8080, ""), Some("NodePorts")),
        (&with_port("c", 8080, "192.0.2.1"), None),
        (&with_port("c", 8081, ""), None),
    ] {
        assert_eq!(reason(pod), refused, "{pod:?}");
    }
    let over = PodStatus {
        phase: Some("Succeeded".into()),
        ..PodStatus::default()
    };
    node.told["a"].send_replace(Some(Arc::new(over)));
    assert_eq!(reason(&large), None);
    node.all.remove("b");
    assert_eq!(reason(&with_port("c", 8080, "")), None);
}

#[test]
fn what_an_agent_allocated_that_panicked_counts_no_more() {
    let mut node = Node::new("1");
    node.take(&pod("a", 1, "600m", 0));
    node.all.listed();
    let large = pod("b", 1, "500m", 0);
    assert!(node.all.refuses(&large).is_some());
    node.all.clear();
    let larger = pod("b", 1, "2", 0);
    assert_eq!(node.all.refuses(&larger), None, "not before all are known");
    // The pod was deleted meanwhile.
    node.all.listed();
    assert_eq!(node.all.refuses(&large), None);
}

#[test]
fn pods_are_counted_and_what_they_write_is_bounded() {
    let capacity = [
        ("cpu", "4"),
        ("memory", "1Gi"),
        (PODS, "2"),
        (STORAGE, "10"),
    ];
    let capacity = capacity.map(|(name, amount)| (name.into(), amount.into()));
    let mut node = Node {
        all: Allocations::new(&BTreeMap::from(capacity)),
        told: BTreeMap::new(),
    };
    node.all.listed();
    let writing = |uid: &str, bytes: &str| {
        let requests = json!({"ephemeral-storage": bytes});
        let pod = json!({"metadata": {"uid": uid},
            "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
        Arc::new(serde_json::from_value::<Pod>(pod).expect("a pod"))
    };
    node.take(&writing("a", "6"));
    let told = |pod: &Pod| {
        node.all
            .refuses(pod)
            .map(|refusal| (refusal.reason, refusal.message))
    };
    assert_eq!(told(&writing("b", "4")), None);
    let lacks =
        "Node didn't have enough resource: ephemeral-storage, requested: 5, used: 6, capacity: 10";
    let refused = Some(("OutOfephemeral-storage", lacks.to_owned()));
    assert_eq!(told(&writing("b", "5")), refused);
    node.take(&writing("b", "1"));
    let lacks = "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2";
    let refused = Some(("OutOfpods", lacks.to_owned()));
    let told = |pod: &Pod| {
        node.all
            .refuses(pod)
            .map(|refusal| (refusal.reason, refusal.message))
    };
    assert_eq!(told(&writing("c", "100")), refused);
}

#[test]
fn an_agent_that_starts_again_knows_what_it_gave() {
    let resources =
        |cpu: &str, most: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": most}});
    let given = |allocated: &str, has: &str| {
        let pod = json!({
            "metadata": {"uid": "a", "generation": 2},
            "spec": {"containers": [{"name": "c", "resources": resources("500m", "1")}]},
            "status": {"containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "",
                "allocatedResources": {"cpu": allocated}, "resources": resources(has, has)}]},
        });
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).expect("a pod"));
        let mut node = Node::new("4");
        node.take(&pod);
        let given = node.all.give("a", &pod);
        let spec = given.pod.spec.clone().expect("one");
        serde_json::to_value(&spec.containers[0].resources).expect("a value")
    };
    // Allocated, although it does not have it yet.
    assert_eq!(given("500m", "200m"), resources("500m", "1"));
    assert_eq!(given("200m", "200m"), resources("200m", "200m"));
}
