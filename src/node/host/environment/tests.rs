use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::downward::quoted;
use super::file::parse_env;
use super::services::{service_variables, services};
use super::*;
use crate::client::informer::Key;
use crate::node::services::Service;

#[test]
fn references_expand_as_in_upstream() {
    let known = |name: &str| (name == "A").then(|| "1".to_owned());
    for (given, expected) in [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("$A-$", "$A-$"),
        ("x$(A)y$(A)", "x1y1"),
        ("$()", "$()"),
    ] {
        assert_eq!(expand(given, &known), expected, "{given}");
    }
}

#[test]
fn services_are_told_by_variables() {
    let spec: ServiceSpec = serde_json::from_value(serde_json::json!({
        "clusterIP": "10.0.0.1", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
    }))
    .expect("a service");
    let variables: Vec<String> = service_variables("my-db", &spec)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        variables,
        [
            "MY_DB_SERVICE_HOST=10.0.0.1",
            "MY_DB_SERVICE_PORT=5432",
            "MY_DB_SERVICE_PORT_SQL=5432",
            "MY_DB_PORT=tcp://10.0.0.1:5432",
            "MY_DB_PORT_5432_TCP=tcp://10.0.0.1:5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_ADDR=10.0.0.1",
        ]
    );
}

#[test]
fn pods_are_told_of_their_namespace_and_of_the_api() {
    let service = |address: Option<&str>| {
        let spec = ServiceSpec {
            cluster_ip: address.map(str::to_owned),
            ..ServiceSpec::default()
        };
        Arc::new(Service {
            spec,
            ..Service::default()
        })
    };
    let own = |name: &str, address| (Key::new("n", name), service(address));
    let all = vec![
        own("db", Some("10.0.0.1")),
        own("headless", Some("None")),
        own("alias", None),
        own("kubernetes", Some("10.0.0.2")),
    ];
    let api = Some(service(Some("10.0.0.9")));
    let told = |own, api| -> Vec<(String, String)> {
        let told = services(own, api).into_iter();
        told.map(|(name, one)| (name, one.spec.cluster_ip.clone().unwrap_or_default()))
            .collect()
    };
    let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    let api_alone = [pair("kubernetes", "10.0.0.9")];
    assert_eq!(told(Vec::new(), api.clone()), api_alone);
    let both = [pair("db", "10.0.0.1"), pair("kubernetes", "10.0.0.2")];
    assert_eq!(told(all, api), both);
    assert_eq!(told(Vec::new(), None), []);
}

#[test]
fn files_of_variables_are_read_as_in_upstream() {
    let text = "# what\n\n  A='1' # one\nB='two\nlines'\nC= 'none'\nD=''\n";
    for (text, key, expected) in [
        (text, "A", Ok("1")),
        (text, "B", Ok("two\nlines")),
        (text, "C", Ok("")),
        (text, "D", Ok("")),
        (text, "E", Ok("")),
        ("A='1'\r\n", "A", Ok("1")),
        ("A='1'\nbad", "A", Ok("1")),
        ("A", "A", Err("at line 1: missing '='")),
        ("\n='1'", "A", Err("at line 2: empty variable name")),
        (
            "A ='1'",
            "A",
            Err("at line 1: whitespace before '=' is not allowed"),
        ),
        (
            "A=1",
            "A",
            Err("at line 1: value must be enclosed in single quotes"),
        ),
        (
            "A='1' 2",
            "A",
            Err("at line 1: unexpected content after closing quote"),
        ),
        (
            "A='1\n2",
            "A",
            Err("starting at line 1: unclosed single quote"),
        ),
    ] {
        let expected = expected.map(str::to_owned);
        let expected =
            expected.map_err(|what| format!("invalid environment variable format {what}"));
        assert_eq!(parse_env(text, key), expected, "{text:?} {key}");
    }
}

#[test]
fn texts_are_quoted_as_go_does() {
    for (given, expected) in [
        ("a'b\"c\\", r#""a'b\"c\\""#),
        ("\x07\x08\t\n\x0b\x0c\r", r#""\a\b\t\n\v\f\r""#),
        ("\0\x1f\x7f", r#""\x00\x1f\x7f""#),
        (
            "\u{80}\u{a0}\u{200b}\u{e0001}",
            r#""\u0080\u00a0\u200b\U000e0001""#,
        ),
        ("\u{e9}e\u{301}\u{1f600}", "\"\u{e9}e\u{301}\u{1f600}\""),
    ] {
        assert_eq!(quoted(given), expected);
    }
}
