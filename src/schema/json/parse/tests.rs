//! What is read, and what is refused in which words.

use super::strings::plain;
use super::*;
use crate::value;

fn error(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().message
}

#[test]
fn what_is_no_json_is_told_as_go_tells_it() {
    for (text, message) in [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("{\"a\":\"", "unexpected end of JSON input"),
        (
            "nul",
            "invalid character ' ' in literal null (expecting 'l')",
        ),
        ("x", "invalid character 'x' looking for beginning of value"),
        (
            "{x",
            "invalid character 'x' looking for beginning of object key string",
        ),
        ("{\"a\" 1", "invalid character '1' after object key"),
        (
            "{\"a\":1 \"",
            "invalid character '\"' after object key:value pair",
        ),
        (
            "{\"a\":1,}",
            "invalid character '}' looking for beginning of object key string",
        ),
        ("[1 2]", "invalid character '2' after array element"),
        (
            "[1,]",
            "invalid character ']' looking for beginning of value",
        ),
        ("{} x", "invalid character 'x' after top-level value"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("01", "invalid character '1' after top-level value"),
        (
            "1.x",
            "invalid character 'x' after decimal point in numeric literal",
        ),
        (
            "{\"a\":nul",
            "invalid character ' ' in literal null (expecting 'l')",
        ),
        ("[-", "invalid character ' ' in numeric literal"),
        (
            "1.",
            "invalid character ' ' after decimal point in numeric literal",
        ),
        (
            "1e+",
            "invalid character ' ' in exponent of numeric literal",
        ),
        ("\"\\", "invalid character ' ' in string escape code"),
        (
            "\"\\u12",
            "invalid character ' ' in \\u hexadecimal character escape",
        ),
        ("\"a", "unexpected end of JSON input"),
        ("[1", "unexpected end of JSON input"),
        (
            "1ex",
            "invalid character 'x' in exponent of numeric literal",
        ),
        (
            "trux",
            "invalid character 'x' in literal true (expecting 'e')",
        ),
        ("\"\n\"", "invalid character '\\n' in string literal"),
        ("\"\\x\"", "invalid character 'x' in string escape code"),
        (
            "\"\\u12g4\"",
            "invalid character 'g' in \\u hexadecimal character escape",
        ),
        (
            "'a'",
            "invalid character '\\'' looking for beginning of value",
        ),
        (
            "\u{feff}{}",
            "invalid character 'ï' looking for beginning of value",
        ),
        (
            "[1e999]",
            "json: cannot unmarshal number 1e999 into Go value of type float64",
        ),
        ("[1e999", "unexpected end of JSON input"),
    ] {
        assert_eq!(error(text), message, "{text}");
    }
}

#[test]
fn nesting_is_refused_beyond_ten_thousand() {
    let run = std::thread::Builder::new()
        .stack_size(crate::schema::STACK)
        .spawn(|| {
            let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
            assert!(parse(deep(10_000).as_bytes()).is_ok());
            assert_eq!(
                error(&deep(10_001)),
                "invalid character '[' exceeded max depth"
            );
        });
    run.unwrap().join().unwrap();
}

#[test]
fn members_are_listed_as_they_are_written() {
    let found = members(br#"{"b":[{"c":1,"d":2,"c":3}],"a":{}}"#);
    assert_eq!(found, ["b", "b[0].c", "b[0].d", "b[0].c", "a"]);
    assert_eq!(members(b"{"), Vec::<String>::new());
}

#[test]
fn numbers_stay_integers_where_they_are_written_so_and_fit() {
    let parsed = parse(b"[0,-0,9223372036854775807,9223372036854775808,1.0,1e2,-0.0]").unwrap();
    let items = parsed.value.as_array().unwrap();
    assert_eq!(items[0], Value::Int(0));
    assert_eq!(items[1], Value::Int(0));
    assert_eq!(items[2], Value::Int(i64::MAX));
    assert_eq!(items[3], Value::Float(9_223_372_036_854_775_808.0));
    assert_eq!(items[4], Value::Float(1.0));
    assert_eq!(items[5], Value::Float(100.0));
    assert!(matches!(items[6], Value::Float(f) if f.is_sign_negative()));
}

#[test]
fn strings_are_read_as_go_reads_them() {
    for (bytes, expected) in [
        (
            &b"\"plain text longer than a word\""[..],
            "plain text longer than a word",
        ),
        (
            b"\"a\\u00e9\\n\\/\\\"\\\\ and the rest of it\"",
            "a\u{e9}\n/\"\\ and the rest of it",
        ),
        (b"\"\\ud83d\\ude00\"", "\u{1f600}"),
        (b"\"\\ud83dx\"", "\u{fffd}x"),
        (b"\"\\ud83d\\u0041\"", "\u{fffd}A"),
        (b"\"\\ude00\"", "\u{fffd}"),
        (b"\"\xff\xe2\x82\"", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\"caf\xc3\xa9\"", "caf\u{e9}"),
        (b"\"\\u0000\"", "\0"),
    ] {
        assert_eq!(parse(bytes).unwrap().value, Value::from(expected));
    }
}

#[test]
fn duplicates_are_told_with_their_paths_and_the_last_counts() {
    let parsed = parse(
        br#"{"metadata":{"name":"a","name":"b","name":"c"},"spec":{"containers":[{"image":"x"},{"image":1,"image":2}]},"spec2":1,"spec2":2}"#,
    )
    .unwrap();
    assert_eq!(
        parsed.duplicates,
        ["metadata.name", "spec.containers[1].image", "spec2"]
    );
    assert_eq!(parsed.value.path(&["metadata", "name"]), &Value::from("c"));
    assert_eq!(parsed.value.at("spec2"), &Value::Int(2));
    assert_eq!(
        parse(br#"{"a":{"b":1},"a":{"b":2}}"#).unwrap().value,
        value!({"a": {"b": 2}})
    );
}

#[test]
fn duplicates_are_bounded() {
    let members: Vec<String> = (0..500).map(|i| format!("\"k{i}\":1,\"k{i}\":2")).collect();
    assert_eq!(
        parse(format!("{{{}}}", members.join(",")).as_bytes())
            .unwrap()
            .duplicates
            .len(),
        100
    );
}

#[test]
fn what_is_written_is_read_back() {
    let value = value!({"a": [1, (-2), 1.5, true, null, "x\u{2028}<&>\"\\\n\u{1}"], "b": {"c": {}}, "d": []});
    assert_eq!(
        parse(super::super::to_string(&value).as_bytes())
            .unwrap()
            .value,
        value
    );
}

#[test]
fn scanning_by_words_agrees_with_scanning_by_bytes() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..40)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let b = (seed >> 56) as u8;
                if seed >> 40 & 7 == 0 {
                    [b'"', b'\\', 0x1f, 0x00, 0x20, 0x21, 0x7f, 0x80][(b & 7) as usize]
                } else {
                    b'a' + b % 26
                }
            })
            .collect();
        let naive = bytes
            .iter()
            .position(|&b| b == b'"' || b == b'\\' || b < 0x20)
            .unwrap_or(bytes.len());
        assert_eq!(plain(&bytes), naive, "{bytes:?}");
    }
}
