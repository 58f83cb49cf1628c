use super::{parse, write};
use crate::schema::Value;
use crate::value;

fn read(text: &str) -> Value {
    parse(text.as_bytes()).unwrap().value
}

fn error(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err()
}

#[test]
fn scalars_are_those_of_yaml_1_1() {
    for (text, expected) in [
        ("yes", value!(true)),
        ("n", value!(false)),
        ("Off", value!(false)),
        ("0777", value!(511)),
        ("0o17", value!(15)),
        ("08", value!(8)),
        ("0x1F", value!(31)),
        ("1_000", value!(1000)),
        ("1e1", value!(10)),
        ("2.0", value!(2)),
        ("1.50", value!(1.5)),
        ("18446744073709551615", value!(18_446_744_073_709_551_615.0)),
        ("2001-12-14", value!("2001-12-14")),
        ("12:30:45", value!("12:30:45")),
        ("~", Value::Null),
        ("", Value::Null),
        ("# only a comment", Value::Null),
        ("'yes'", value!("yes")),
        ("!!str 12", value!("12")),
        ("!!float 1", value!(1)),
        ("!foo bar", value!("bar")),
        ("!!binary aGk=", value!("hi")),
        ("yesterday", value!("yesterday")),
        ("1.2.3", value!("1.2.3")),
        ("-", Value::Array(vec![Value::Null])),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn keys_become_text() {
    assert_eq!(
        read("on: 1\n1: 2\n1.5: 3\nnull_: 4\n"),
        value!({"true": 1, "1": 2, "1.5": 3, "null_": 4})
    );
}

#[test]
fn anchors_merges_and_documents() {
    let text = "a: &a {x: 1, z: 2}\nb:\n  <<: *a\n  z: 3\nc: *a\n---\nignored: true\n";
    assert_eq!(
        read(text),
        value!({"a": {"x": 1, "z": 2}, "b": {"x": 1, "z": 3}, "c": {"x": 1, "z": 2}})
    );
    assert_eq!(
        error("a: *missing"),
        "yaml: unknown anchor 'missing' referenced"
    );
    assert_eq!(
        error("a: &a [*a]"),
        "yaml: anchor 'a' value contains itself"
    );
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in [
        ('a', 'b'),
        ('b', 'c'),
        ('c', 'd'),
        ('d', 'e'),
        ('e', 'f'),
        ('f', 'g'),
    ] {
        bomb += &format!(
            "{to}: &{to} [*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from}]\n"
        );
    }
    assert_eq!(error(&bomb), "yaml: document contains excessive aliasing");
    // Aliases may not expand to more text than a body may have, nor to more levels than can be read.
    let long = format!("- &a {}\n- [{}]\n", "x".repeat(1 << 20), "*a,".repeat(4));
    assert_eq!(error(&long), "yaml: document contains excessive aliasing");
    let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(4000), "]".repeat(4000));
    let (a, b) = (nested(""), nested("*a"));
    let reads = std::thread::Builder::new().stack_size(crate::schema::STACK);
    let reads = reads.spawn(move || {
        assert!(parse(format!("- &a {a}\n- {b}\n").as_bytes()).is_ok());
        let deep = format!("- &a {a}\n- &b {b}\n- {}\n", nested("*b"));
        assert_eq!(error(&deep), "yaml: exceeded max depth of 10000");
    });
    reads.unwrap().join().unwrap();
}

#[test]
fn errors_are_go_yamls() {
    for (text, message) in [
        ("{", "yaml: line 1: did not find expected node content"),
        (
            "a: b: c",
            "yaml: mapping values are not allowed in this context",
        ),
        (
            "a: 1\nb: [1,\nc: 2",
            "yaml: line 3: did not find expected ',' or ']'",
        ),
        (
            "a:\n\tb: 1",
            "yaml: line 2: found character that cannot start any token",
        ),
        ("a: \"x", "yaml: found unexpected end of stream"),
        ("a: \"x\\", "yaml: found unknown escape character"),
        ("\u{7}", "yaml: control characters are not allowed"),
        ("a: .nan", "json: unsupported value: NaN"),
    ] {
        assert_eq!(error(text), message, "{text:?}");
    }
    assert_eq!(
        parse(b"a: \xff").unwrap_err(),
        "yaml: invalid leading UTF-8 octet"
    );
}

#[test]
fn a_block_scalar_may_end_with_the_text() {
    for (text, expected) in [
        ("a: |\n  x\n  y", "x\ny"),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        ("a: |+\n  x", "x"),
        ("a: |+\n  x\n\n", "x\n\n"),
        ("a: |-\n  x", "x"),
        ("a: >-\n  x\n  y", "x y"),
        ("a: >\n  x\n  y", "x y"),
        ("a: |\n  x\n  ", "x\n"),
        ("a: |+\n  x\n  ", "x\n"),
        ("a: |\n  x\n    ", "x\n  "),
        ("a: |", ""),
        ("a: |2", ""),
    ] {
        assert_eq!(read(text), value!({ "a": expected }), "{text:?}");
    }
}

#[test]
fn what_ends_anywhere_is_read_or_refused() {
    let whole = "%YAML 1.1\n--- !!map\n? &a \"b\\x41\\\n c\"\n: 'd''e'\nf: |2+ # g\n    h\n\n  i\nj: >-\n k\n  l\nm: [*a, {n: !o p}]\n...\n";
    for (end, _) in whole.char_indices() {
        for text in [&whole[..end], &whole[..end].replace('\n', "\r\n")] {
            let _ = parse(text.as_bytes());
        }
    }
}

#[test]
fn duplicates_name_the_line_of_the_value() {
    let read = parse(b"a: 1\nk:\n  x: 1\n  x: 2\na: 3\n").unwrap();
    assert_eq!(
        read.duplicates,
        [
            "line 4: key \"x\" already set in map",
            "line 5: key \"a\" already set in map"
        ]
    );
    assert_eq!(read.value, value!({"a": 3, "k": {"x": 2}}));
    let json = parse(br#"{"k":1,"k":2}"#).unwrap();
    assert_eq!(json.duplicates, ["line 1: key \"k\" already set in map"]);
}

#[test]
fn json_reads_the_same_on_the_quick_way() {
    assert_eq!(
        read(r#"{"a":[1,2.0,1e1,"x\ty",null,true],"b":{}}"#),
        value!({"a": [1, 2, 10, "x\ty", null, true], "b": {}})
    );
}

#[test]
fn writing_quotes_what_would_be_read_otherwise() {
    let value = value!({
        "b": {"z": [], "y": {}, "x": null},
        "a": [{"k": 1, "l": [1, 2]}, [3], "text", "yes", "1", "1.5", "", "a: b", "- x", "#c", "2024-01-02T03:04:05Z", "12:30", "null", " lead", "tab\there"],
        "multi": "one\ntwo\n",
        "f": 1234567.5,
        "true": false
    });
    let text = write(&value);
    assert_eq!(
        text,
        "a:\n- k: 1\n  l:\n  - 1\n  - 2\n- - 3\n- text\n- \"yes\"\n- \"1\"\n- \"1.5\"\n- \"\"\n- 'a: b'\n- '- x'\n- '#c'\n- \"2024-01-02T03:04:05Z\"\n- \"12:30\"\n- \"null\"\n- ' lead'\n- \"tab\\there\"\nb:\n  x: null\n  \"y\": {}\n  z: []\nf: 1.2345675e+06\nmulti: |\n  one\n  two\n\"true\": false\n"
    );
    assert_eq!(read(&text), value);
}

#[test]
fn keys_are_in_natural_order() {
    let value = value!({"a10": 1, "a2": 1, "a-b": 1, "a.b": 1, "ab": 1, "a": 1, "a02": 1});
    let keys: Vec<String> = write(&value)
        .lines()
        .map(|line| line.trim_end_matches(": 1").to_owned())
        .collect();
    assert_eq!(keys, ["a", "a-b", "a.b", "a2", "a02", "a10", "ab"]);
}

#[test]
fn very_many_nodes_are_not_nested_very_deep() {
    let deep = format!("{}\n{}", "[".repeat(9_990), "a,".repeat(1_400_000));
    assert_eq!(
        error(&deep),
        "yaml: line 2: too many nodes are nested too deep"
    );
}
