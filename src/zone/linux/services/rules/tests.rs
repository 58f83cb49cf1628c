//! The rules of services, as commands of nft(8).

use super::*;
use crate::net::services::endpoints_of;

fn web(endpoints: &[&str]) -> ServicePort {
    ServicePort::web([10, 96, 0, 5], endpoints)
}

fn rules(port: &ServicePort) -> Rules {
    Rules::of(std::slice::from_ref(port), &[])
}

#[test]
fn only_what_changed_is_told() {
    let (one, two) = (
        web(&["10.0.0.1:8080"]),
        web(&["10.0.0.1:8080", "10.0.0.2:8080"]),
    );
    let (none, other) = (
        web(&[]),
        ServicePort {
            port: 81,
            ..one.clone()
        },
    );
    let nothing = Rules::default();
    let chain = "add chain ip t s/default/web/tcp/-\nflush chain ip t s/default/web/tcp/-\n";
    let choose = |count, places| {
        format!(
            "add rule ip t s/default/web/tcp/- meta l4proto tcp dnat ip to numgen random mod {count} map {{ {places} }}\n"
        )
    };
    let (all, first) = (
        "0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080",
        "0 : 10.0.0.1 . 8080",
    );
    let selves = |verb: &str, of: &str| format!("{verb} element ip t selves {{ {of} }}\n");
    let address = |verb: &str| format!("{verb} element ip t cluster_ips {{ 10.96.0.5 }}\n");
    let own = "10.0.0.1 . 10.0.0.1 . tcp . 8080";
    let second = "10.0.0.2 . 10.0.0.2 . tcp . 8080";
    let open = "element ip t services { 10.96.0.5 . tcp . 80 : goto s/default/web/tcp/- }\n";
    let closed = "element ip t closed { 10.96.0.5 . tcp . 80 : goto rejecting }\n";
    let empty = "flush chain ip t s/default/web/tcp/-\n";
    let gone = &["s/default/web/tcp/-"][..];
    for (before, after, expected, after_that) in [
        (
            nothing.clone(),
            rules(&one),
            format!(
                "{chain}{}{}{}add {open}",
                choose(1, first),
                address("add"),
                selves("add", own)
            ),
            &[][..],
        ),
        (rules(&one), rules(&one), String::new(), &[]),
        (
            rules(&one),
            rules(&two),
            format!("{chain}{}{}", choose(2, all), selves("add", second)),
            &[],
        ),
        (
            rules(&one),
            rules(&none),
            format!("add {closed}{}delete {open}{empty}", selves("delete", own)),
            gone,
        ),
        (
            rules(&none),
            rules(&one),
            format!(
                "{chain}{}delete {closed}{}add {open}",
                choose(1, first),
                selves("add", own)
            ),
            &[],
        ),
        (
            rules(&one),
            rules(&other),
            format!("delete {open}add {}", open.replace(". 80", ". 81")),
            &[],
        ),
        (
            rules(&one),
            nothing,
            format!(
                "{}{}delete {open}{empty}",
                address("delete"),
                selves("delete", own)
            ),
            gone,
        ),
    ] {
        assert_eq!(after.since(&before, "t"), expected);
        let left: Vec<_> = before.gone_in(&after).map(|(_, name)| name).collect();
        assert_eq!(left, after_that);
    }
}

fn lists(rules: &Rules, map: &str) -> Vec<String> {
    let elements = rules.elements.get(map).into_iter().flatten();
    elements
        .map(|(key, verdict)| format!("{key}{verdict}"))
        .collect()
}

#[test]
fn traffic_of_the_world_is_judged_first() {
    let port = ServicePort {
        node_port: Some(30080),
        external_ips: vec![[192, 0, 2, 6].into()],
        balancer_ips: vec![[192, 0, 2, 7].into()],
        source_ranges: vec!["198.51.100.0/24".to_owned()],
        ..web(&["10.0.0.1:8080"])
    };
    let open = rules(&port);
    assert_eq!(
        open.chains["x/default/web/tcp/-"],
        [
            "meta mark set meta mark | 0x4000",
            "goto s/default/web/tcp/-"
        ]
    );
    let guarded = |rules: &Rules| {
        assert_eq!(
            rules.chains["f/default/web/tcp/-"],
            ["ip saddr 198.51.100.0/24 return", "drop"]
        );
        assert_eq!(
            lists(rules, "guarded"),
            ["192.0.2.7 . tcp . 80 : goto f/default/web/tcp/-"]
        );
    };
    guarded(&open);
    assert_eq!(
        lists(&open, "nodeports"),
        ["tcp . 30080 : goto x/default/web/tcp/-"]
    );
    assert_eq!(
        lists(&open, "services"),
        [
            "10.96.0.5 . tcp . 80 : goto s/default/web/tcp/-",
            "192.0.2.6 . tcp . 80 : goto x/default/web/tcp/-",
            "192.0.2.7 . tcp . 80 : goto x/default/web/tcp/-"
        ]
    );
    let short = [
        "ip saddr @pods goto s/default/web/tcp/-",
        "fib saddr type local meta mark set meta mark | 0x4000 goto s/default/web/tcp/-",
    ];
    // Endpoints are on another node only: clients on this node reach them, external ones must use that node.
    // `internalTrafficPolicy: Local` makes no difference for this.
    for inside in [Policy::Cluster, Policy::Local] {
        let elsewhere = rules(&ServicePort {
            local: Vec::new(),
            inside,
            outside: Policy::Local,
            ..port.clone()
        });
        assert_eq!(elsewhere.chains["x/default/web/tcp/-"], short, "{inside:?}");
        assert_eq!(
            lists(&elsewhere, "closed_nodeports"),
            ["tcp . 30080 : goto dropping"]
        );
        let at_home = "10.96.0.5 . tcp . 80 : goto dropping".to_owned();
        assert_eq!(
            lists(&elsewhere, "closed").contains(&at_home),
            inside == Policy::Local
        );
    }
    let both = rules(&ServicePort {
        cluster: endpoints_of(&["10.0.0.1:8080", "10.0.1.1:8080"]),
        outside: Policy::Local,
        ..port.clone()
    });
    assert_eq!(
        both.chains["x/default/web/tcp/-"],
        [short[0], short[1], "goto l/default/web/tcp/-"]
    );
    let nowhere = rules(&ServicePort {
        cluster: Vec::new(),
        local: Vec::new(),
        ..port
    });
    assert_eq!(
        nowhere.chains.keys().collect::<Vec<_>>(),
        ["f/default/web/tcp/-"]
    );
    assert_eq!(
        lists(&nowhere, "closed_nodeports"),
        ["tcp . 30080 : goto rejecting"]
    );
    guarded(&nowhere);
}

#[test]
fn only_endpoints_of_this_node_come_back_to_themselves() {
    for (what, local, expected) in [
        (
            "of this node",
            &["10.0.0.1:8080"][..],
            &["10.0.0.1 . 10.0.0.1 . tcp . 8080"][..],
        ),
        ("of another", &[], &[]),
        // It would match all connections between the host's programs.
        ("the loopback", &["127.0.0.1:6443"], &[]),
    ] {
        let port = ServicePort {
            local: endpoints_of(local),
            ..web(&["10.0.0.1:8080", "127.0.0.1:6443"])
        };
        assert_eq!(lists(&rules(&port), "selves"), expected, "{what}");
    }
}

#[test]
fn nobody_takes_an_address_of_the_cluster() {
    let taking = |name: &str, address: [u8; 4]| ServicePort {
        name: format!("{name}/tcp/-"),
        cluster_ips: vec![[10, 96, 0, 9].into()],
        external_ips: vec![address.into()],
        ..web(&["10.0.0.66:8080"])
    };
    for (what, ports, map, expected) in [
        (
            "where it leads",
            [taking("a/a", [10, 96, 0, 5]), web(&["10.0.0.1:8080"])],
            "services",
            "10.96.0.5 . tcp . 80 : goto s/default/web/tcp/-",
        ),
        (
            "where it leads nowhere",
            [taking("a/a", [10, 96, 0, 5]), web(&[])],
            "closed",
            "10.96.0.5 . tcp . 80 : goto rejecting",
        ),
        (
            "of two that say so, the first by name has it",
            [taking("a/a", [192, 0, 2, 5]), taking("b/b", [192, 0, 2, 5])],
            "services",
            "192.0.2.5 . tcp . 80 : goto x/a/a/tcp/-",
        ),
    ] {
        let rules = Rules::of(&ports, &[]);
        let address = expected.split(" : ").next().expect("a key");
        for name in ["services", "closed"] {
            let of = lists(&rules, name);
            let of: Vec<_> = of.iter().filter(|one| one.starts_with(address)).collect();
            let wanted = if name == map { vec![expected] } else { vec![] };
            assert_eq!(of, wanted, "{what}: {name}");
        }
    }
}

#[test]
fn clients_stay_with_their_endpoints() {
    let port = ServicePort {
        affinity: Some(Duration::from_secs(60)),
        ..web(&["10.0.0.1:8080", "10.0.0.2:8080"])
    };
    let rules = rules(&port);
    let place = "default/web/tcp/-/10.0.0.1/8080/60";
    assert_eq!(
        rules.sets[&format!("a/{place}")],
        "type ipv4_addr; size 65536; flags dynamic,timeout; timeout 60s;"
    );
    assert_eq!(
        rules.chains[&format!("e/{place}")],
        [
            format!("update @a/{place} {{ ip saddr }}"),
            "meta l4proto tcp dnat ip to 10.0.0.1:8080".to_owned()
        ]
    );
    let choice = &rules.chains["s/default/web/tcp/-"];
    assert_eq!(choice.len(), 3);
    assert_eq!(choice[0], format!("ip saddr @a/{place} goto e/{place}"));
    assert!(
        choice[2].starts_with("numgen random mod 2 vmap { 0 : goto e/"),
        "{}",
        choice[2]
    );
}
