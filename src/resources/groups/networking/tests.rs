use crate::resources::groups::trial::Trial;
use crate::schema::json;
use crate::value;

/// The errors about an object, except those about metadata.
fn refusals(group: &str, plural: &str, body: &str) -> Vec<String> {
    let told = Trial::of(group, plural).refusals(body);
    told.into_iter()
        .filter(|told| !told.starts_with("metadata"))
        .collect()
}

#[test]
fn kinds_of_the_network_are_judged_in_upstreams_order_and_words() {
    const GROUP: &str = "networking.k8s.io";
    for (group, plural, rest, refused) in [
        (
            GROUP,
            "ingresses",
            r#""spec":{"defaultBackend":{"service":{"name":"s","port":{}}},"rules":[{"host":"192.0.2.1","http":{"paths":[{"path":"a//","pathType":"Prefix","backend":{}}]}}]}"#,
            &[
                "spec.defaultBackend: Required value: port name or number is required",
                r#"spec.rules[0].host: Invalid value: "192.0.2.1": must be a DNS name, not an IP address"#,
                r#"spec.rules[0].http.paths[0].path: Invalid value: "a//": must be an absolute path"#,
                r#"spec.rules[0].http.paths[0].path: Invalid value: "a//": must not contain '//'"#,
                r#"spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required"#,
            ][..],
        ),
        (
            GROUP,
            "networkpolicies",
            r#""spec":{"egress":[{"ports":[{"port":90,"endPort":80,"protocol":"ICMP"}],"to":[{"podSelector":{},"ipBlock":{"cidr":"","except":["10.0.0.0/8"]}}]}]}"#,
            &[
                r#"spec.egress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP""#,
                "spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
                "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer",
                "spec.egress[0].to[0].ipBlock.cidr: Required value",
            ],
        ),
        (
            GROUP,
            "ingressclasses",
            r#""spec":{"controller":"a.b/","parameters":{"scope":"Namespace","name":"n"}}"#,
            &[
                r#"spec.controller: Invalid value: "a.b/": must be a domain-prefixed path (such as "acme.io/foo")"#,
                "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
                "spec.parameters.kind: Required value",
            ],
        ),
        (
            GROUP,
            "servicecidrs",
            r#""spec":{"cidrs":["10.0.0.0/8","11.0.0.0/8"]}"#,
            &[
                r#"spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
            ],
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            r#""addressType":"IPv4","endpoints":[{"addresses":["2001:db8::1"]},{"addresses":[]}],"ports":[{"name":"a"},{"name":"a"}]"#,
            &[
                r#"ports[1].name: Duplicate value: "a""#,
                r#"endpoints[0].addresses: Invalid value: "2001:db8::1": must be an IPv4 address"#,
                "endpoints[1].addresses: Required value",
            ],
        ),
        (
            "",
            "endpoints",
            r#""subsets":[{"notReadyAddresses":[{"ip":"127.0.0.1"}],"ports":[{"port":80},{"port":0,"name":"b"}]}]"#,
            &[
                r#"subsets[0].notReadyAddresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
    ] {
        let body = format!(r#"{{"metadata":{{"name":"a"}},{rest}}}"#);
        assert_eq!(refusals(group, plural, &body), refused, "{plural}");
    }
}

#[test]
fn a_range_may_only_be_joined_by_one_of_the_other_version() {
    let trial = Trial::of("networking.k8s.io", "servicecidrs");
    let (old, _) = trial.create(r#"{"metadata":{"name":"a"},"spec":{"cidrs":["10.0.0.0/16"]}}"#);
    for (ranges, refused) in [
        (value!(["10.0.0.0/16", "fd00::/112"]), &[][..]),
        (
            value!(["10.1.0.0/16"]),
            &[r#"spec.cidrs[0]: Invalid value: "10.1.0.0/16": field is immutable"#],
        ),
        (
            value!([]),
            &["spec.cidrs: Invalid value: null: field is immutable"],
        ),
    ] {
        let (_, told) = trial.update("", &old, |new| new.set("spec", value!({"cidrs": ranges})));
        let told: Vec<&String> = told
            .iter()
            .filter(|told| told.starts_with("spec"))
            .collect();
        assert_eq!(told, refused);
    }
}

#[test]
fn the_generation_of_a_slice_rises_with_contents_and_labels() {
    let trial = Trial::of("discovery.k8s.io", "endpointslices");
    let (old, _) = trial.create(r#"{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"deprecatedTopology":{"a":"b"}}]}"#);
    assert_eq!(
        json::to_string(old.at("endpoints")),
        r#"[{"addresses":["10.0.0.1"],"conditions":{}}]"#
    );
    for (change, generation) in [("labels", 2), ("annotations", 1)] {
        let (new, _) = trial.update("", &old, |new| {
            new.get_mut("metadata")
                .unwrap()
                .set(change, value!({"x": "y"}));
        });
        assert_eq!(new.at("metadata").int("generation"), generation, "{change}");
    }
}
