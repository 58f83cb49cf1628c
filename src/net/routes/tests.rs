//! Which routes are added, removed, and reported as lacking.

use super::*;
use crate::meta::addresses::parse_cidr;

const MARK: Mark = Mark {
    maker: 114,
    metric: 7,
};
const KERNEL: u8 = 2;
const STATIC: u8 = 4;

fn range(text: &str) -> Network {
    parse_cidr(text).expect("a range").1
}

fn route(range_of: &str, via: Via, maker: u8) -> Route {
    let metric = if maker == MARK.maker { MARK.metric } else { 0 };
    Route {
        range: range(range_of),
        via,
        metric,
        maker,
    }
}

fn peer(node: &str, address: [u8; 4], range_of: &str) -> Peer {
    Peer {
        node: node.to_owned(),
        address: address.into(),
        range: range(range_of),
    }
}

fn router(last: u8) -> Via {
    Via::Router([192, 0, 2, last].into(), 2)
}

/// A host at 192.0.2.1 with a router and its own pods.
fn host() -> Vec<Route> {
    vec![
        route("0.0.0.0/0", router(254), STATIC),
        route("192.0.2.0/24", Via::Link(2), KERNEL),
        route("192.0.2.1/32", Via::Here, KERNEL),
        route("10.244.0.0/24", Via::Link(3), KERNEL),
    ]
}

#[test]
fn a_route_leads_to_each_node_by_its_address() {
    let b = || peer("b", [192, 0, 2, 2], "10.244.1.0/24");
    let to_b = route("10.244.1.0/24", router(2), MARK.maker);
    let moved = route("10.244.1.0/24", router(9), MARK.maker);
    let to_c = route("10.244.2.0/24", router(3), MARK.maker);
    let far = [203, 0, 113, 2];
    let not_on_link = Why::NotOnLink(far.into());
    let other_agent = Route { metric: 8, ..to_b };
    type Case = (
        &'static str,
        Vec<Peer>,
        Vec<Route>,
        Vec<Route>,
        Vec<Route>,
        Vec<Why>,
    );
    let cases: Vec<Case> = vec![
        ("a new node", vec![b()], vec![], vec![], vec![to_b], vec![]),
        ("again", vec![b()], vec![to_b], vec![], vec![], vec![]),
        (
            "one is gone",
            vec![b()],
            vec![to_b, to_c],
            vec![to_c],
            vec![],
            vec![],
        ),
        (
            "all are gone",
            vec![],
            vec![to_b, to_c],
            vec![to_b, to_c],
            vec![],
            vec![],
        ),
        (
            "its address changed",
            vec![b()],
            vec![moved],
            vec![],
            vec![to_b],
            vec![],
        ),
        (
            "its range changed",
            vec![peer("b", [192, 0, 2, 3], "10.244.2.0/24")],
            vec![to_b],
            vec![to_b],
            vec![to_c],
            vec![],
        ),
        (
            "it is another agent of this host",
            vec![peer("b", [192, 0, 2, 1], "10.244.1.0/24")],
            vec![route("10.244.1.0/24", Via::Link(4), KERNEL)],
            vec![],
            vec![],
            vec![],
        ),
        (
            "another agent of this host has the same route",
            vec![b()],
            vec![other_agent],
            vec![],
            vec![to_b],
            vec![],
        ),
        (
            "that of another agent stays",
            vec![],
            vec![other_agent],
            vec![],
            vec![],
            vec![],
        ),
        (
            "somebody else leads there by a router",
            vec![b()],
            vec![route("10.244.1.0/24", router(9), STATIC), to_b],
            vec![to_b],
            vec![],
            vec![],
        ),
        (
            "somebody else has the range",
            vec![b()],
            vec![route("10.244.1.0/24", Via::Link(9), KERNEL), to_b],
            vec![to_b],
            vec![],
            vec![Why::Taken(range("10.244.1.0/24"))],
        ),
        (
            "somebody refuses what goes there",
            vec![b()],
            vec![route("10.244.1.0/24", Via::Nowhere, STATIC)],
            vec![],
            vec![],
            vec![Why::Taken(range("10.244.1.0/24"))],
        ),
        (
            "somebody else has a part of the range",
            vec![b()],
            vec![route("10.244.1.128/25", Via::Link(9), KERNEL)],
            vec![],
            vec![to_b],
            vec![Why::Taken(range("10.244.1.128/25"))],
        ),
        (
            "somebody else has more than the range",
            vec![b()],
            vec![route("10.0.0.0/8", Via::Link(9), KERNEL)],
            vec![],
            vec![to_b],
            vec![],
        ),
        (
            "it is behind a router",
            vec![peer("b", far, "10.244.1.0/24")],
            vec![to_b],
            vec![to_b],
            vec![],
            vec![not_on_link],
        ),
        (
            "it is behind a router that somebody leads all ranges to",
            vec![peer("b", far, "10.244.1.0/24")],
            vec![route("10.244.0.0/16", router(253), STATIC)],
            vec![],
            vec![],
            vec![],
        ),
        (
            "nothing leads to it",
            vec![peer("b", [192, 0, 2, 2], "10.244.1.0/24")],
            vec![route("192.0.2.2/32", Via::Nowhere, STATIC)],
            vec![],
            vec![],
            vec![Why::NotOnLink([192, 0, 2, 2].into())],
        ),
    ];
    for (what, peers, more, remove, make, lacks) in cases {
        let routes = [host(), more].concat();
        let found = plan(&peers, &routes, MARK);
        let made: Vec<Route> = found.make.iter().map(|(_, route)| *route).collect();
        let why: Vec<Why> = found.lacks.into_iter().map(|lack| lack.why).collect();
        assert_eq!((found.remove, made, why), (remove, make, lacks), "{what}");
    }
}

#[test]
fn of_two_routes_to_a_network_the_preferred_one_counts() {
    let wireless = Route {
        metric: 600,
        ..route("192.0.2.0/24", Via::Link(8), KERNEL)
    };
    let routes = [vec![wireless], host()].concat();
    let found = plan(&[peer("b", [192, 0, 2, 2], "10.244.1.0/24")], &routes, MARK);
    assert_eq!(found.make[0].1.via, router(2));
}

#[test]
fn ranges_of_which_none_lies_in_another() {
    for (ranges, expected) in [
        (vec![], vec![]),
        (
            vec!["10.244.1.0/24", "10.244.0.0/24"],
            vec!["10.244.0.0/24", "10.244.1.0/24"],
        ),
        (
            vec![
                "10.244.1.0/24",
                "10.0.0.0/24",
                "10.244.0.0/16",
                "10.244.0.0/24",
                "10.245.0.0/24",
            ],
            vec!["10.0.0.0/24", "10.244.0.0/16", "10.245.0.0/24"],
        ),
        (
            vec!["10.244.1.0/24", "10.244.1.0/24"],
            vec!["10.244.1.0/24"],
        ),
    ] {
        let found = apart(ranges.iter().map(|text| range(text)));
        let found: Vec<String> = found.iter().map(Network::to_string).collect();
        assert_eq!(found, expected, "{ranges:?}");
    }
}

#[test]
fn what_is_lacking_says_what_to_do() {
    let of = |why| lack(&peer("b", [192, 0, 2, 2], "10.244.1.0/24"), why).to_string();
    let told = of(Why::NotOnLink([203, 0, 113, 2].into()));
    assert_eq!(
        told,
        "no route to the pods of node b (10.244.1.0/24): its address 203.0.113.2 is not on a network of this host; give it another with --node-ip, or lead the range there by a route or router of your own"
    );
    assert!(of(Why::Overlaps("a".into())).contains("pods of node a"));
}
