use super::*;

#[test]
fn formats_take_what_upstream_takes() {
    for (name, good, bad) in [
        ("ipv4", "01.2.3.4", "1.2.3"),
        ("ipv6", "::1", "1.2.3.4"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("mac", "01-23-45-67-89-ab", "01:23-45:67:89:ab"),
        ("mac", "0123.4567.89ab", "0123.4567"),
        ("uuid", "d3b07384d1134ec8a1b2c3d4e5f60718", "d3b07384"),
        (
            "uuid4",
            "d3b07384-d113-4ec8-a1b2-c3d4e5f60718",
            "d3b07384-d113-3ec8-a1b2-c3d4e5f60718",
        ),
        ("date", "2024-02-29", "2023-02-29"),
        (
            "date-time",
            "2024-02-29T23:59:59.5Z",
            "2024-02-29 23:59:59Z",
        ),
        (
            "date-time",
            "2024-02-29t10:00:00+01:00",
            "2024-02-29T24:00:00Z",
        ),
        ("duration", "1h30m", "1 parsec"),
        ("duration", "P1D", "x"),
        ("byte", "aGk=", ""),
        ("email", "a.b@example.com", "a..b@example.com"),
        ("email", "Jane <jane@example.com>", "jane"),
        ("hostname", "example.com", "-x"),
        ("uri", "https://example.com/a", "example"),
        ("isbn", "978-0321751041", "978-0321751042"),
        ("isbn10", "0321751043", "0321751044"),
        ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("hexcolor", "#fff", "#ff"),
        ("rgbcolor", "rgb(1, 2,255)", "rgb(1,2,256)"),
        ("ssn", "123-45-6789", "123456789"),
        ("bsonobjectid", "0123456789abcdef01234567", "x"),
        ("k8s-short-name", "a-b", "a.b"),
        ("k8s-long-name", "a.b", "A"),
    ] {
        let format = Format::named(name).unwrap();
        assert!(format.takes(good), "{name} {good}");
        assert!(!format.takes(bad), "{name} {bad}");
    }
    assert!(!recognized("int32", &["string"]) && recognized("int32", &["integer"]));
    assert!(!recognized("colour", &["string"]) && !recognized("date", &["object"]));
}

#[test]
fn durations_are_read_as_go_reads_them() {
    for (text, nanos) in [
        ("0", Some(0)),
        ("1h", Some(3_600_000_000_000)),
        ("-1.5s", Some(-1_500_000_000)),
        (".5ms", Some(500_000)),
        ("1", None),
        ("", None),
        ("1d", None),
        ("9223372036854775807ns", Some(i64::MAX)),
        ("9223372036854775808ns", None),
    ] {
        assert_eq!(go_duration(text), nanos, "{text}");
    }
}
