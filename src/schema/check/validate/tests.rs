use super::*;
use crate::schema::json;

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap().value
}

fn refusals(schema: &str, new: &str, old: Option<&str>) -> Vec<String> {
    let check = Check::compile(&value(schema));
    let old = old.map(value);
    let mut errors = Errors::default();
    validate(&check, &value(new), old.as_ref(), Path::ROOT, &mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

/// A schema of one member `v`, a value for it, and the expected errors.
#[test]
fn values_are_refused_in_upstreams_words() {
    for (schema, v, told) in [
        (
            r#"{"type": "string"}"#,
            "1",
            r#"v: Invalid value: "integer": v in body must be of type string: "integer""#,
        ),
        (r#"{"type": "string"}"#, "\"a\"", ""),
        (
            r#"{"type": "string"}"#,
            "null",
            r#"v: Invalid value: "null": v in body must be of type string: "null""#,
        ),
        (r#"{"type": "string", "nullable": true}"#, "null", ""),
        (r#"{"type": "integer"}"#, "1.0", ""),
        (
            r#"{"type": "integer"}"#,
            "1.5",
            r#"v: Invalid value: "number": v in body must be of type integer: "number"; <nil>: Invalid value: "": Checked value must be of type integer (default format) in v"#,
        ),
        (
            r#"{"type": "integer", "format": "int32"}"#,
            "3000000000",
            r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in v"#,
        ),
        (r#"{"type": "number"}"#, "1", ""),
        (
            r#"{"x-kubernetes-int-or-string": true}"#,
            "1.5",
            r#"v: Invalid value: "number": v in body must be of type integer,string: "number""#,
        ),
        (
            r#"{"type": "string", "format": "date-time"}"#,
            "\"x\"",
            r#"v: Invalid value: "x": v in body must be of type date-time: "x""#,
        ),
        (
            r#"{"type": "string", "enum": ["a", "b"]}"#,
            "\"c\"",
            r#"v: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            r#"{"type": "integer", "enum": [1, 2]}"#,
            "3",
            r#"v: Unsupported value: 3: supported values: "1", "2""#,
        ),
        (
            r#"{"type": "integer", "minimum": 1}"#,
            "0",
            "v: Invalid value: 0: v in body should be greater than or equal to 1",
        ),
        (
            r#"{"type": "integer", "maximum": 1, "exclusiveMaximum": true}"#,
            "1",
            "v: Invalid value: 1: v in body should be less than 1",
        ),
        (
            r#"{"type": "number", "maximum": 1.5}"#,
            "2.5",
            "v: Invalid value: 2.5: v in body should be less than or equal to 1.5",
        ),
        (
            r#"{"type": "integer", "multipleOf": 3}"#,
            "4",
            "v: Invalid value: 4: v in body should be a multiple of 3",
        ),
        (r#"{"type": "number", "multipleOf": 0.1}"#, "0.3", ""),
        (
            r#"{"type": "integer", "multipleOf": 0}"#,
            "4",
            "v: Invalid value: 0: factor MultipleOf declared for v must be positive: 0",
        ),
        (
            r#"{"type": "string", "maxLength": 1}"#,
            "\"ab\"",
            "v: Too long: may not be more than 1 byte",
        ),
        (
            r#"{"type": "string", "maxLength": 2}"#,
            "\"\u{e9}\u{e9}\"",
            "",
        ),
        (
            r#"{"type": "string", "minLength": 2}"#,
            "\"a\"",
            r#"v: Invalid value: "a": v in body should be at least 2 chars long"#,
        ),
        (
            r#"{"type": "string", "pattern": "^a+$"}"#,
            "\"b\"",
            r#"v: Invalid value: "b": v in body should match '^a+$'"#,
        ),
        (
            r#"{"type": "array", "maxItems": 1, "items": {"type": "string"}}"#,
            r#"["a", 1]"#,
            r#"v[1]: Invalid value: "integer": v[1] in body must be of type string: "integer"; v: Too many: 2: must have at most 1 item"#,
        ),
        (
            r#"{"type": "array", "minItems": 1}"#,
            "[]",
            "v: Invalid value: 0: v in body should have at least 1 items",
        ),
        (
            r#"{"type": "object", "maxProperties": 1}"#,
            r#"{"a": 1, "b": 2}"#,
            "v: Too many: 2: must have at most 1 item",
        ),
        (
            r#"{"type": "object", "required": ["a"]}"#,
            "{}",
            "v.a: Required value",
        ),
        (
            r#"{"type": "object", "additionalProperties": {"type": "string"}}"#,
            r#"{"x/y": 1}"#,
            r#"v.x/y: Invalid value: "integer": v.x/y in body must be of type string: "integer""#,
        ),
        (
            r#"{"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 1}]}"#,
            "3",
            r#"<nil>: Invalid value: "": "v" must validate one and only one schema (oneOf). Found none valid; v: Invalid value: 3: v in body should be greater than or equal to 5"#,
        ),
        (
            r#"{"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 2}]}"#,
            "3",
            r#"<nil>: Invalid value: "": "v" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
        (
            r#"{"type": "integer", "not": {"minimum": 1}}"#,
            "3",
            r#"<nil>: Invalid value: "": "v" must not validate the schema (not)"#,
        ),
        (
            r#"{"type": "integer", "allOf": [{"minimum": 5}]}"#,
            "3",
            r#"v: Invalid value: 3: v in body should be greater than or equal to 5; <nil>: Invalid value: "": "v" must validate all the schemas (allOf). None validated"#,
        ),
    ] {
        let schema = format!(r#"{{"type": "object", "properties": {{"v": {schema}}}}}"#);
        let object = format!(r#"{{"v": {v}}}"#);
        assert_eq!(
            refusals(&schema, &object, None).join("; "),
            told,
            "{schema} {v}"
        );
    }
}

#[test]
fn what_is_unchanged_is_not_refused_in_an_update() {
    let schema = r#"{"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1},
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
              "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        "l": {"type": "array", "items": {"type": "string", "maxLength": 1}},
        "r": {"type": "object", "required": ["x"], "properties": {"y": {"type": "string"}}}}}"#;
    for (old, new, told) in [
        (r#"{"a": "xx"}"#, r#"{"a": "xx", "l": []}"#, 0),
        (r#"{"a": "xx"}"#, r#"{"a": "yy"}"#, 1),
        (
            r#"{"m": [{"k": "1", "v": "xx"}]}"#,
            r#"{"m": [{"k": "2", "v": "x"}, {"k": "1", "v": "xx"}]}"#,
            0,
        ),
        (
            r#"{"m": [{"k": "1", "v": "xx"}]}"#,
            r#"{"m": [{"k": "1", "v": "yy"}]}"#,
            1,
        ),
        (r#"{"l": ["xx"]}"#, r#"{"l": ["xx", "x"]}"#, 1),
        (r#"{"l": ["xx"]}"#, r#"{"l": ["xx"]}"#, 0),
        (r#"{"r": {"y": "1"}}"#, r#"{"r": {"y": "2"}}"#, 1),
    ] {
        assert_eq!(refusals(schema, new, Some(old)).len(), told, "{old} {new}");
    }
}

/// As many items as fit in a body: comparing each with all others would not finish.
#[test]
fn long_lists_are_judged_by_the_keys_of_their_items() {
    const ITEMS: usize = 50_000;
    let schema = r#"{"type": "object", "properties": {"m": {"type": "array",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "integer"}, "v": {"type": "boolean"}}}}}}"#;
    let object = |items: &mut dyn Iterator<Item = usize>| {
        let items: Vec<String> = items.map(|k| format!(r#"{{"k":{k},"v":{k}}}"#)).collect();
        format!(r#"{{"m":[{}]}}"#, items.join(","))
    };
    let old = object(&mut (0..ITEMS));
    assert_eq!(
        refusals(schema, &old, None).len(),
        10_000,
        "as many as are told"
    );
    let new = object(&mut (0..=ITEMS).rev());
    assert_eq!(
        refusals(schema, &new, Some(&old)),
        [r#"m[0].v: Invalid value: "integer": m[0].v in body must be of type boolean: "integer""#]
    );
}

#[test]
fn very_many_errors_are_told_in_part() {
    let choices: Vec<String> = (0..100).map(|n| format!("\"choice {n}\"")).collect();
    let schema = format!(
        r#"{{"type":"object","properties":{{"v":{{"type":"array","items":{{"type":"string","enum":[{}]}}}}}}}}"#,
        choices.join(",")
    );
    let wrong = vec!["\"\""; 300_000].join(",");
    let told = refusals(&schema, &format!(r#"{{"v":[{wrong}]}}"#), None);
    assert!((1_000..=10_000).contains(&told.len()), "{}", told.len());

    let schema =
        r#"{"type":"object","additionalProperties":{"type":"array","items":{"type":"integer"}}}"#;
    let new = format!(r#"{{"{}":[{wrong}]}}"#, "k".repeat(1 << 20));
    assert!((1..=16).contains(&refusals(schema, &new, None).len()));
}
