//! Good and bad names.

use super::*;

#[test]
fn good_names_have_nothing_wrong() {
    for name in ["a", "0", "a-b", "a--1", "123-abc"] {
        assert!(
            dns1123_label(name).is_empty() && dns1123_subdomain(name).is_empty(),
            "{name}"
        );
    }
    assert!(dns1123_subdomain("a.b-c.0").is_empty());
    assert!(qualified_name("example.com/My.Name_1").is_empty());
    assert!(label_value("").is_empty());
    assert!(wildcard_dns1123_subdomain("*.bar.com").is_empty());
    assert!(dns1123_subdomain_with_underscore("_tcp.a_b.c").is_empty());
    assert!(port_name("a-1").is_empty());
    assert!(percent("10%").is_empty());
    assert!(config_map_key("a.b_c-D").is_empty());
    assert!(relaxed_env_name("a b{").is_empty());
    assert!(decimal_integer("-10").is_empty() && decimal_integer("0").is_empty());
}

#[test]
fn bad_names_are_told_in_upstreams_words() {
    let only = |wrong: Wrong| wrong.join("|");
    assert_eq!(only(dns1123_label("a.b")), "must not contain dots");
    assert_eq!(
        only(dns1123_label("A")),
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    );
    assert_eq!(
        only(dns1123_label(&"a".repeat(64))),
        "must be no more than 63 characters"
    );
    assert_eq!(
        only(qualified_name("-a")),
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    );
    assert_eq!(qualified_name("/").len(), 3);
    assert_eq!(qualified_name("a/b/c").len(), 1);
    assert_eq!(
        only(label_value(&"a".repeat(64))),
        "must be no more than 63 bytes"
    );
    assert_eq!(
        only(path_segment("a/b%")),
        "may not contain '/'|may not contain '%'"
    );
    assert_eq!(only(path_segment("..")), "may not be '..'");
    assert_eq!(port_name("").len(), 2);
    assert_eq!(
        only(port_name("a--b")),
        "must not contain consecutive hyphens"
    );
    assert_eq!(
        only(port_number(0)),
        "must be between 1 and 65535, inclusive"
    );
    assert_eq!(only(config_map_key("..a")), "must not start with '..'");
    assert_eq!(only(env_name("..")), "must not be '..'");
    assert!(decimal_integer("-0")[0].starts_with("must be a valid"));
}
