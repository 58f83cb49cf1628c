use super::*;

#[test]
fn who_is_asked_for_names_is_as_pods_say() {
    let own = "nameserver 192.0.2.53\nsearch example.org svc.cluster.local\noptions timeout:1\n";
    let host = "search example.org svc.cluster.local\nnameserver 192.0.2.53\noptions timeout:1\n";
    let cluster = "search a.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.0.0.1\noptions ndots:5\n";
    let server = IpAddr::from([10, 0, 0, 1]);
    for (what, spec, servers, expected) in [
        ("a pod", serde_json::json!({}), vec![server], cluster),
        ("without a server", serde_json::json!({}), vec![], host),
        (
            "on the host's network",
            serde_json::json!({"hostNetwork": true}),
            vec![server],
            host,
        ),
        (
            "that asks for services there",
            serde_json::json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            vec![server],
            cluster,
        ),
        (
            "the host's",
            serde_json::json!({"dnsPolicy": "Default"}),
            vec![server],
            host,
        ),
        (
            "its own",
            serde_json::json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}}),
            vec![server],
            "nameserver 192.0.2.1\n",
        ),
        (
            "with more",
            serde_json::json!({"dnsConfig": {"nameservers": ["192.0.2.1"], "searches": ["b"], "options": [{"name": "ndots", "value": "2"}]}}),
            vec![server, IpAddr::from([10, 0, 0, 2])],
            "search a.svc.cluster.local svc.cluster.local cluster.local example.org b\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 192.0.2.1\noptions ndots:2\n",
        ),
    ] {
        let mut object = serde_json::json!({"metadata": {"namespace": "a"}, "spec": spec});
        object["spec"]["containers"] = serde_json::json!([]);
        let pod: Pod = serde_json::from_value(object).expect("a pod");
        let made = resolv(&pod, own, &servers, "cluster.local");
        assert_eq!(made.text, expected, "{what}");
        let reasons: Vec<_> = made.warnings.iter().map(|(reason, _)| *reason).collect();
        let without = (what == "without a server").then_some("MissingClusterDNS");
        assert_eq!(reasons, Vec::from_iter(without), "{what}");
    }
}

#[test]
fn resolvers_take_no_more_than_so_much() {
    let pod = |config: serde_json::Value| -> Pod {
        let spec = serde_json::json!({"dnsPolicy": "None", "dnsConfig": config, "containers": []});
        serde_json::from_value(serde_json::json!({"spec": spec})).expect("a pod")
    };
    let servers = [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "192.0.2.4",
    ];
    let made = resolv(
        &pod(serde_json::json!({"nameservers": servers})),
        "",
        &[],
        "c",
    );
    assert_eq!(
        made.text,
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
    );
    let told = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 192.0.2.1 192.0.2.2 192.0.2.3";
    assert_eq!(made.warnings, [("DNSConfigForming", told.to_owned())]);
    let many = |count: usize, length: usize| -> Vec<String> {
        (0..count)
            .map(|number| format!("{number:0length$}"))
            .collect()
    };
    for (mut searches, left) in [
        (many(32, 10), 32),
        (many(33, 10), 32),
        (many(2, 253), 2),
        (many(2, 254), 0),
        (many(10, 250), 8),
    ] {
        let before = searches.len();
        assert_eq!(cut_searches(&mut searches), before != left);
        assert_eq!(searches.len(), left);
    }
}

#[test]
fn the_end_of_a_log_is_what_was_said_last() {
    let line =
        |tag: &str, text: &str| format!("2026-01-01T00:00:00.000000000Z stdout {tag} {text}\n");
    let many: String = (0..100).map(|n| line("F", &n.to_string())).collect();
    let last: String = (20..100).map(|n| format!("{n}\n")).collect();
    for (log, expected) in [
        (String::new(), String::new()),
        (
            line("F", "one two") + &line("P", "end"),
            "one two\nend".into(),
        ),
        (
            line("P", "a ") + &line("P", "b ") + &line("F", "c"),
            "a b c\n".into(),
        ),
        (format!("cut F\n{}", line("F", "whole")), "whole\n".into()),
        (many, last),
        (
            line("P", &"a".repeat(3000)) + &line("P", &"b".repeat(2000)),
            "a".repeat(48) + &"b".repeat(2000),
        ),
    ] {
        let said = String::from_utf8(said_last(log.as_bytes())).expect("text");
        assert_eq!(said, expected, "{log}");
    }
}

#[test]
fn only_the_end_of_a_file_is_read() {
    let above = tempfile::tempdir().expect("a directory");
    std::fs::write(above.path().join("f"), "0123456789").expect("a file");
    for (most, expected) in [(4, "6789"), (10, "0123456789"), (99, "0123456789")] {
        let read = tail(above.path(), Path::new("f"), most).expect("read");
        assert_eq!(read, expected.as_bytes(), "{most}");
    }
    assert!(tail(above.path(), Path::new("none"), 4).is_err());
}
