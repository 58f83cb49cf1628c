//! Which endpoints the ports of services lead to.

use serde_json::json;

use super::*;

fn keyed<T: kube::Resource + serde::de::DeserializeOwned>(
    object: serde_json::Value,
) -> (Key, Arc<T>) {
    let object: T = serde_json::from_value(object).expect("an object");
    let key = Key::new("default", &object.name_any());
    (key, Arc::new(object))
}

fn service(spec: serde_json::Value) -> (Key, Arc<Service>) {
    keyed(json!({"metadata": {"name": "web"}, "spec": spec}))
}

fn slice(endpoints: serde_json::Value) -> (Key, Arc<EndpointSlice>) {
    keyed(json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }))
}

fn here() -> Here {
    Here {
        node: "n1".to_owned(),
        addresses: vec![[192, 0, 2, 1].into()],
        api_server: None,
    }
}

fn planned(spec: serde_json::Value, endpoints: serde_json::Value) -> Vec<ServicePort> {
    let here = here();
    plan(&[service(spec)], &[slice(endpoints)], &here, None)
}

fn at(texts: &[&str]) -> Vec<SocketAddrV4> {
    let texts = texts.iter();
    texts.map(|text| text.parse().expect("a place")).collect()
}

#[test]
fn a_port_leads_to_the_endpoints_that_take_traffic() {
    let end = |ip: &str, node: &str, ready: bool, terminating: bool| {
        json!({"addresses": [ip], "nodeName": node,
            "conditions": {"ready": ready, "serving": true, "terminating": terminating}})
    };
    let (here, there) = (
        end("10.0.0.1", "n1", true, false),
        end("10.0.1.1", "n2", true, false),
    );
    let ending = end("10.0.0.2", "n1", false, true);
    let waiting = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false}});
    for (policy, endpoints, expected, others) in [
        (
            "Cluster",
            json!([here, there, ending]),
            at(&["10.0.0.1:8080", "10.0.1.1:8080"]),
            false,
        ),
        ("Local", json!([here, there]), at(&["10.0.0.1:8080"]), true),
        ("Local", json!([there]), at(&[]), true),
        ("Local", json!([]), at(&[]), false),
        (
            "Cluster",
            json!([ending, waiting]),
            at(&["10.0.0.2:8080"]),
            false,
        ),
        (
            "Local",
            json!([there, ending]),
            at(&["10.0.0.2:8080"]),
            true,
        ),
        // An address that another pod has by now.
        (
            "Cluster",
            json!([end("10.0.0.1", "n1", false, true), here]),
            at(&["10.0.0.1:8080"]),
            false,
        ),
        (
            "Cluster",
            json!([waiting, end("10.0.0.3", "n1", false, true)]),
            at(&[]),
            false,
        ),
        ("Cluster", json!([waiting]), at(&[]), false),
        // The same pod in two slices, or twice in one, is one endpoint.
        (
            "Cluster",
            json!([here, here]),
            at(&["10.0.0.1:8080"]),
            false,
        ),
    ] {
        let spec = json!({"clusterIPs": ["10.96.0.5"], "internalTrafficPolicy": policy,
            "ports": [{"port": 80, "targetPort": 8080}]});
        let ports = planned(spec, endpoints.clone());
        assert_eq!(ports.len(), 1);
        let inside = ports[0].endpoints(ports[0].inside);
        assert_eq!(inside, expected, "{policy} {endpoints}");
        let elsewhere = ports[0].cluster.iter().any(|at| !inside.contains(at));
        assert_eq!(elsewhere, others, "{policy} {endpoints}");
        assert_eq!(ports[0].name, "default/web/tcp/-");
    }
    // Clients of a terminating endpoint stay there as long as it serves.
    let spec = json!({"clusterIPs": ["10.96.0.5"], "internalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let ports = planned(spec, json!([here, there, ending, waiting]));
    // Without conditions an endpoint counts as serving, also while it terminates.
    let serving = at(&[
        "10.0.0.1:8080",
        "10.0.0.2:8080",
        "10.0.0.3:8080",
        "10.0.1.1:8080",
    ]);
    assert_eq!(ports[0].serving, serving);
}

/// The cases of upstream's TestCategorizeEndpoints.
#[test]
fn traffic_stays_near_where_hints_say_so() {
    // Zone hints, then node hints; ready, serving, terminating, and whether it is on this node.
    type Told = (&'static [&'static str], &'static [&'static str], [bool; 4]);
    const READY: [bool; 4] = [true, true, false, false];
    const HERE: [bool; 4] = [true, true, false, true];
    const UNREADY: [bool; 4] = [false, false, false, false];
    const ENDING: [bool; 4] = [false, true, true, false];
    const ENDING_HERE: [bool; 4] = [false, true, true, true];
    let (a, b, c) = (&["a"][..], &["b"][..], &["c"][..]);
    let (n1, n2, none) = (&["n1"][..], &["n2"][..], &[][..]);
    type Numbers = &'static [usize];
    type Case = (
        &'static str,
        Option<&'static str>,
        Vec<Told>,
        Numbers,
        Numbers,
    );
    let cases: Vec<Case> = vec![
        (
            "endpoints of this zone",
            Some("a"),
            vec![
                (a, none, READY),
                (b, none, READY),
                (c, none, READY),
                (a, none, READY),
            ],
            &[0, 3],
            &[],
        ),
        (
            "those of this node are not chosen by zone",
            Some("a"),
            vec![
                (a, none, HERE),
                (b, none, HERE),
                (c, none, READY),
                (a, none, READY),
            ],
            &[0, 3],
            &[0, 1],
        ),
        (
            "the node has no zone",
            None,
            vec![(a, none, READY)],
            &[0],
            &[],
        ),
        ("an empty one", Some(""), vec![(a, none, READY)], &[0], &[]),
        (
            "none is for this zone",
            Some("b"),
            vec![(a, none, READY)],
            &[0],
            &[],
        ),
        (
            "one that is not ready",
            Some("a"),
            vec![
                (a, none, READY),
                (b, none, READY),
                (c, none, READY),
                (a, none, UNREADY),
            ],
            &[0],
            &[],
        ),
        (
            "only those that are not ready are for this zone",
            Some("a"),
            vec![(a, none, UNREADY), (b, none, READY), (c, none, READY)],
            &[1, 2],
            &[],
        ),
        (
            "one has no hint",
            Some("a"),
            vec![
                (a, none, READY),
                (none, none, READY),
                (c, none, READY),
                (a, none, READY),
            ],
            &[0, 1, 2, 3],
            &[],
        ),
        (
            "one that is not ready has none",
            Some("a"),
            vec![(a, none, READY), (none, none, UNREADY), (c, none, READY)],
            &[0],
            &[],
        ),
        (
            "several zones each",
            Some("c"),
            vec![
                (&["a", "b", "c"], none, READY),
                (&["b", "c"], none, READY),
                (b, none, READY),
                (c, none, READY),
            ],
            &[0, 1, 3],
            &[],
        ),
        (
            "for this node",
            Some("a"),
            vec![(a, n1, READY), (a, n2, READY)],
            &[0],
            &[],
        ),
        (
            "none is for this node, some for its zone",
            Some("a"),
            vec![(a, n2, READY), (b, &["n3"], READY)],
            &[0],
            &[],
        ),
        (
            "one has no hint for nodes",
            Some("a"),
            vec![(a, n1, READY), (b, none, READY)],
            &[0],
            &[],
        ),
        (
            "neither is for here",
            Some("c"),
            vec![(a, n2, READY), (b, n2, READY)],
            &[0, 1],
            &[],
        ),
        (
            "those that end, where none is ready, wherever they are",
            Some("a"),
            vec![(a, n1, ENDING), (b, n2, ENDING_HERE)],
            &[0, 1],
            &[1],
        ),
        ("nothing", Some("a"), vec![], &[], &[]),
    ];
    for (what, zone, told, cluster, local) in cases {
        let endpoints: Vec<_> = told
            .iter()
            .enumerate()
            .map(|(i, (zones, nodes, [ready, serving, terminating, here]))| {
                let named = |names: &[&str]| -> Vec<_> {
                    names.iter().map(|name| json!({"name": name})).collect()
                };
                json!({
                    "addresses": [format!("10.0.0.{i}")],
                    "nodeName": if *here { "n1" } else { "n9" },
                    "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                    "hints": {"forZones": named(zones), "forNodes": named(nodes)},
                })
            })
            .collect();
        let spec = json!({"clusterIPs": ["10.96.0.5"], "ports": [{"port": 80}]});
        let ports = plan(&[service(spec)], &[slice(json!(endpoints))], &here(), zone);
        let of = |numbers: &[usize]| {
            let texts: Vec<_> = numbers.iter().map(|i| format!("10.0.0.{i}:8080")).collect();
            at(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        assert_eq!(ports[0].cluster, of(cluster), "{what}");
        assert_eq!(ports[0].local, of(local), "{what}");
    }
}

#[test]
fn load_balancers_ask_for_ready_endpoints_of_this_node() {
    let at = |address: &str, node: &str, ready: bool| json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready}});
    let slice = slice(json!([
        at("10.0.0.1", "n1", true),
        at("10.0.0.1", "n1", true),
        at("10.0.0.2", "n1", false),
        at("10.0.0.3", "n2", true),
    ]));
    for (what, kind, policy, port, expected) in [
        ("asked", "LoadBalancer", "Local", 30100, Some(1)),
        ("no port", "LoadBalancer", "Local", 0, None),
        ("any node will do", "LoadBalancer", "Cluster", 30100, None),
        ("no load balancer", "NodePort", "Local", 30100, None),
    ] {
        let spec = json!({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port,
            "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80}]});
        let found = asked(&[service(spec)], std::slice::from_ref(&slice), &here());
        let local = found.first().map(|asked| asked.local);
        assert_eq!(local, expected, "{what}");
    }
}

#[test]
fn a_host_asks_by_its_balancers_address_where_it_may_ask_at_all() {
    for (range, expected) in [
        ("192.0.2.0/24", vec!["192.0.2.0/24", "203.0.113.8/32"]),
        ("198.51.100.0/24", vec!["198.51.100.0/24"]),
    ] {
        let spec = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"],
            "loadBalancerSourceRanges": [range], "ports": [{"port": 80}]});
        let service = keyed::<Service>(json!({"metadata": {"name": "web"}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}}}));
        let ports = plan(&[service], &[], &here(), None);
        assert_eq!(ports[0].source_ranges, expected);
    }
}

#[test]
fn services_of_others_and_without_an_address_are_left_out() {
    let ports = json!([{"port": 80}]);
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
        json!({"type": "ExternalName", "externalName": "example.com", "ports": ports}),
        json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"], "ports": ports}),
        json!({"clusterIPs": ["10.96.0.5"], "ports": []}),
    ] {
        assert_eq!(planned(spec.clone(), json!([])), [], "{spec}");
    }
    let foreign = keyed::<Service>(json!({
        "metadata": {"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": "x"}},
        "spec": {"clusterIPs": ["10.96.0.5"], "ports": ports},
    }));
    let here = here();
    assert_eq!(plan(&[foreign], &[], &here, None), []);
}

#[test]
fn a_service_is_had_by_all_its_addresses() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"],
        "externalIPs": ["192.0.2.7"], "loadBalancerSourceRanges": [" 198.51.100.7/24", "::/0"],
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "nodePort": 30080}, {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 0}],
    });
    let service = keyed::<Service>(json!({"metadata": {"name": "web"}, "spec": spec,
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.8", "ipMode": "VIP"}, {"ip": "192.0.2.9", "ipMode": "Proxy"}, {"hostname": "h"}]}}}));
    let slice = slice(json!([{"addresses": ["10.0.0.1"]}]));
    let here = here();
    let ports = plan(&[service], &[slice], &here, None);
    let [web, dns] = &ports[..] else {
        panic!("{ports:?}")
    };
    assert_eq!(web.cluster_ips, [Ipv4Addr::new(10, 96, 0, 5)]);
    assert_eq!(web.external_ips, [Ipv4Addr::new(192, 0, 2, 7)]);
    assert_eq!(web.balancer_ips, [Ipv4Addr::new(192, 0, 2, 8)]);
    assert_eq!(web.source_ranges, ["198.51.100.0/24"]);
    assert_eq!((web.node_port, dns.node_port), (Some(30080), None));
    assert_eq!(web.affinity, Some(Duration::from_secs(60)));
    assert_eq!((web.inside, web.outside), (Policy::Cluster, Policy::Local));
    assert_eq!(web.local, []);
    assert_eq!(web.cluster, at(&["10.0.0.1:8080"]));
    assert_eq!(dns.name, "default/web/udp/dns");
    assert_eq!(dns.cluster, [], "the slice has no port of its name");
}

#[test]
fn the_api_server_of_this_process_is_found_without_endpoints() {
    let kubernetes = keyed::<Service>(json!({"metadata": {"name": "kubernetes"},
        "spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"name": "https", "port": 443}]}}));
    let here = Here {
        api_server: "127.0.0.1:6443".parse().ok(),
        ..here()
    };
    let ports = plan(std::slice::from_ref(&kubernetes), &[], &here, None);
    assert_eq!(ports[0].cluster, at(&["127.0.0.1:6443"]));
    let told = keyed::<EndpointSlice>(json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}],
        "ports": [{"name": "https", "port": 6443}],
    }));
    let ports = plan(&[kubernetes], &[told], &here, None);
    assert_eq!(ports[0].cluster, at(&["192.0.2.1:6443"]));
}
