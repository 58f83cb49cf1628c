//! Compares patches with the answers of v1.37.2 (recorded; see docs/compatibility.md).

use super::*;
use crate::schema::{builtin, decode};

const CORE: &str = "io.k8s.api.core.v1.";

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap().value
}

/// Patches an object of a built-in kind; returns the result as JSON, or the error as `CODE REASON MESSAGE`.
fn patched(kind: Kind, name: &str, live: &str, patch: &str) -> String {
    told(kind, name, live, patch, true).0
}

fn told(kind: Kind, name: &str, live: &str, patch: &str, checked: bool) -> (String, Vec<String>) {
    let schema = builtin::named(name);
    let go_type = format!("v1.{}", name.rsplit('.').next().unwrap());
    let live = value(live);
    let outcome = Patch::read(kind, patch.as_bytes()).and_then(|patch| {
        patch.apply(
            &live,
            schema,
            |value| decode::decode(value, schema, &go_type),
            checked,
        )
    });
    match outcome {
        Ok(patched) => (json::to_string(&patched.value), patched.strict),
        Err(error) => {
            let status = Status::from(error);
            let text = format!("{} {} {}", status.code, status.reason, status.message);
            (text, Vec::new())
        }
    }
}

const REJECTED: &str = "422 Invalid the server rejected our request due to an error in our request";

fn config_map(live: &str, patch: &str) -> String {
    patched(Kind::Json, &format!("{CORE}ConfigMap"), live, patch)
}

#[test]
fn a_json_patch_does_all_its_operations_or_none() {
    let live = r#"{"data":{"a":"1","b":"2","c":"3"}}"#;
    for (patch, outcome) in [
        (
            r#"[{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/n", "value": "new"}, {"op": "replace", "path": "/data/a", "value": "10"}, {"op": "remove", "path": "/data/b"}, {"op": "copy", "from": "/data/n", "path": "/data/m"}, {"op": "move", "from": "/data/c", "path": "/data/d"}]"#,
            r#"{"data":{"a":"10","d":"3","m":"new","n":"new"}}"#,
        ),
        (
            r#"[{"op":"add","path":"/data/n","value":"x"},{"op":"test","path":"/data/a","value":"other"}]"#,
            REJECTED,
        ),
        (r#"[{"op":"test","path":"/data/none","value":null}]"#, live),
        (r#"[{"op":"test","path":"/data/none"}]"#, live),
        (r#"[{"op":"test","path":"/data/a"}]"#, REJECTED),
        (
            r#"[{"op":"test","path":"/none/at/all","value":null}]"#,
            REJECTED,
        ),
        (r#"[{"op":"remove","path":"/data/none"}]"#, REJECTED),
        (
            r#"[{"op":"replace","path":"/data/d","value":"4"}]"#,
            r#"{"data":{"a":"1","b":"2","c":"3","d":"4"}}"#,
        ),
        (
            r#"[{"op":"replace","path":"/binaryData/d","value":"4"}]"#,
            REJECTED,
        ),
        (
            r#"[{"op":"copy","from":"/data/none","path":"/data/d"}]"#,
            r#"{"data":{"a":"1","b":"2","c":"3","d":""}}"#,
        ),
        (
            r#"[{"op":"move","from":"/data/none","path":"/data/d"}]"#,
            REJECTED,
        ),
        (
            r#"[{"op":"add","path":"/data/d"}]"#,
            r#"{"data":{"a":"1","b":"2","c":"3","d":""}}"#,
        ),
        (r#"[{"op":"spell","path":"/data/a"}]"#, REJECTED),
        (r#"[{"path":"/data/a","value":"x"}]"#, REJECTED),
        (r#"[{"op":"add","value":"x"}]"#, REJECTED),
        (r#"[{"op":"replace","path":"data/a","value":"x"}]"#, live),
        (
            r#"[{"op":"replace","path":"x/data/a","value":"x"}]"#,
            r#"{"data":{"a":"x","b":"2","c":"3"}}"#,
        ),
        (r#"[{"op":"add","path":"","value":{}}]"#, REJECTED),
        (
            r#"[{"op":"replace","path":"","value":{"data":{"z":"1"}}}]"#,
            r#"{"data":{"z":"1"}}"#,
        ),
        (
            r#"[{"op":"add","path":"/data/x~1y~0z~2","value":"1"}]"#,
            r#"{"data":{"a":"1","b":"2","c":"3","x/y~z~2":"1"}}"#,
        ),
        (r#"null"#, live),
        (r#"[]"#, live),
        (r#"[null]"#, REJECTED),
    ] {
        assert_eq!(
            config_map(live, patch).replace(r#""metadata":{},"#, ""),
            outcome,
            "{patch}"
        );
    }
}

#[test]
fn indexes_of_a_json_patch_may_count_from_the_end() {
    let live = r#"{"metadata":{"finalizers":["a","b","c"]}}"#;
    for (path, op, outcome) in [
        ("0", "add", r#"["n","a","b","c"]"#),
        ("3", "add", r#"["a","b","c","n"]"#),
        ("-", "add", r#"["a","b","c","n"]"#),
        ("-1", "add", r#"["a","b","c","n"]"#),
        ("-4", "add", r#"["n","a","b","c"]"#),
        ("-5", "add", ""),
        ("4", "add", ""),
        ("x", "add", ""),
        ("01", "replace", r#"["a","n","c"]"#),
        ("-1", "replace", r#"["a","b","n"]"#),
        ("-", "replace", ""),
        ("3", "replace", ""),
        ("-3", "remove", r#"["b","c"]"#),
        ("3", "remove", ""),
    ] {
        let patch =
            format!(r#"[{{"op":"{op}","path":"/metadata/finalizers/{path}","value":"n"}}]"#);
        let outcome = if outcome.is_empty() {
            REJECTED.to_owned()
        } else {
            format!(r#"{{"metadata":{{"finalizers":{outcome}}}}}"#)
        };
        assert_eq!(config_map(live, &patch), outcome, "{patch}");
    }
}

#[test]
fn operations_put_nothing_so_deep_that_nobody_could_read_it() {
    let applies = std::thread::Builder::new().stack_size(crate::schema::STACK);
    let applies = applies.spawn(|| {
        let nested = format!("{}{}", "[".repeat(6000), "]".repeat(6000));
        let live = value(&format!("{{\"a\":{nested}}}"));
        let into = |levels: usize| format!("/a{}/-", "/0".repeat(levels));
        for op in ["copy", "add", "replace"] {
            let patch = |levels| {
                let path = into(levels);
                value(&format!(
                    r#"[{{"op":"{op}","from":"/a","path":"{path}","value":{nested}}}]"#
                ))
            };
            let shallow = json_patch::apply(&live, &patch(3000));
            assert!(shallow.is_ok() || op == "replace", "{op}");
            let error = json_patch::apply(&live, &patch(4500)).unwrap_err();
            assert!(error.to_string().contains("exceeded max depth"), "{error}");
        }
        // A long path that does not exist is handled in time linear in its length.
        let long = "/a".repeat(100_000);
        let mut document = live.clone();
        let patch = value(&format!(r#"[{{"op":"add","from":"{long}"}}]"#));
        json_patch::sort_touched(&mut document, &patch);
        assert_eq!(document, live);
    });
    applies.unwrap().join().unwrap();
}

#[test]
fn a_body_that_is_no_json_patch_is_told_in_go_words() {
    for (patch, checked, refusal) in [
        ("{", true, "invalid JSON patch"),
        (
            "{}",
            true,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            "[1]",
            true,
            "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
        (
            r#"[{"op":5}]"#,
            true,
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
        ),
        (
            "{}",
            false,
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ),
        (
            "[1]",
            false,
            "json: cannot unmarshal number into Go value of type jsonpatch.Operation",
        ),
    ] {
        assert_eq!(
            told(
                Kind::Json,
                &format!("{CORE}ConfigMap"),
                "{}",
                patch,
                checked
            )
            .0,
            format!("400 BadRequest {refusal}")
        );
    }
    let many = format!("[{}1]", r#"{"op":"test"},"#.repeat(MANY));
    assert_eq!(
        Patch::read(Kind::Json, many.replace(",1]", "]").as_bytes())
            .unwrap()
            .document(&Value::Null),
        Err(PatchError::TooManyOperations(MANY))
    );
    assert_eq!(
        Status::from(PatchError::TooManyOperations(MANY)).message,
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
}

const MANY: usize = json_patch::MAX_OPERATIONS + 1;

#[test]
fn copies_cannot_fill_the_memory() {
    let doubling: Vec<String> = (0..40)
        .map(|i| format!(r#"{{"op":"copy","from":"/data","path":"/data/{}"}}"#, i % 2))
        .collect();
    assert_eq!(
        config_map(
            r#"{"data":{"a":"1","b":"2"}}"#,
            &format!("[{}]", doubling.join(","))
        ),
        REJECTED
    );
}

#[test]
fn what_a_json_patch_says_twice_or_without_meaning_is_told() {
    let (_, strict) = told(
        Kind::Json,
        &format!("{CORE}ConfigMap"),
        r#"{"data":{"k":"v"}}"#,
        r#"[{"op":"add","op":"replace","path":"/data/k","value":"x","foo":1},{"op":"add","path":"/dato","value":{}}]"#,
        true,
    );
    assert_eq!(
        strict,
        [
            r#"json patch duplicate field "[0].op""#,
            r#"json patch unknown field "[0].foo""#,
            r#"unknown field "dato""#
        ]
    );
}

#[test]
fn an_outcome_that_is_no_object_of_the_kind_is_shown_with_touched_members_sorted() {
    let live = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","namespace":"n","creationTimestamp":null},"data":{"k":"v"}}"#;
    assert_eq!(
        config_map(live, r#"[{"op":"add","path":"/data/b","value":5}]"#),
        r#"422 Invalid  "" is invalid: patch: Invalid value: "{\"apiVersion\":\"v1\",\"data\":{\"b\":5,\"k\":\"v\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\",\"namespace\":\"n\",\"creationTimestamp\":null}}": json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#
    );
    assert_eq!(
        config_map(
            live,
            r#"[{"op":"replace","path":"/metadata/labels","value":[]}]"#
        ),
        r#"422 Invalid  "" is invalid: patch: Invalid value: "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"v\"},\"kind\":\"ConfigMap\",\"metadata\":{\"creationTimestamp\":null,\"labels\":[],\"name\":\"c\",\"namespace\":\"n\"}}": json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string"#
    );
}

#[test]
fn a_merge_patch_takes_away_what_is_null() {
    let merge = |live: &str, patch: &str| {
        merge::apply(&value(live), &value(patch)).map(|v| json::to_string(&v))
    };
    for (live, patch, outcome) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":{"b":"d","c":null}}"#,
            r#"{"a":{"b":"d"}}"#,
        ),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (
            r#"{}"#,
            r#"{"a":{"bb":{"ccc":null}}}"#,
            r#"{"a":{"bb":{}}}"#,
        ),
        // Nulls inside lists: members are dropped, items stay, unless the list replaces an object.
        (r#"{}"#, r#"{"a":[null,{"b":null}]}"#, r#"{"a":[null,{}]}"#),
        (r#"{"a":[]}"#, r#"{"a":[{"b":null}]}"#, r#"{"a":[{}]}"#),
        (
            r#"{"a":{}}"#,
            r#"{"a":[{"b":null}]}"#,
            r#"{"a":[{"b":null}]}"#,
        ),
    ] {
        assert_eq!(merge(live, patch).unwrap(), outcome, "{live} {patch}");
    }
    for (patch, refusal) in [
        (
            "[]",
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        ("null", "Invalid JSON Patch"),
        ("", "invalid JSON patch"),
    ] {
        assert_eq!(
            patched(Kind::Merge, &format!("{CORE}ConfigMap"), "{}", patch),
            format!("400 BadRequest {refusal}")
        );
    }
}

fn pod(live: &str, patch: &str) -> String {
    let outcome = patched(Kind::Strategic, &format!("{CORE}Pod"), live, patch);
    outcome
        .replace(r#"{"metadata":{},"spec""#, r#"{"spec""#)
        .replace(r#","status":{}}"#, "}")
        .replace(r#","resources":{}"#, "")
}

/// The names of the containers after a patch of `spec.containers`.
fn containers(live: &[&str], patch: &str) -> String {
    let live: Vec<String> = live
        .iter()
        .map(|n| format!(r#"{{"name":"{n}"}}"#))
        .collect();
    let live = format!(r#"{{"spec":{{"containers":[{}]}}}}"#, live.join(","));
    let outcome = pod(&live, &format!(r#"{{"spec":{patch}}}"#));
    if outcome.starts_with('{') {
        let names: Vec<String> = value(&outcome)
            .at("spec")
            .list("containers")
            .iter()
            .map(|c| c.str("name").to_owned())
            .collect();
        names.join(" ")
    } else {
        outcome
    }
}

#[test]
fn lists_with_a_merge_key_merge_and_take_the_order_of_the_patch() {
    for (live, patch, outcome) in [
        (
            vec!["c"],
            r#"{"containers":[{"name":"c"},{"name":"side"}]}"#,
            "c side",
        ),
        (
            vec!["c", "side"],
            r#"{"containers":[{"name":"another"}]}"#,
            "another c side",
        ),
        (
            vec!["c", "side"],
            r#"{"containers":[{"name":"c","$patch":"delete"}]}"#,
            "side",
        ),
        (
            vec!["c", "side"],
            r#"{"containers":[{"$patch":"replace"},{"name":"n"}]}"#,
            "n",
        ),
        (
            vec!["a", "x", "b", "y"],
            r#"{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}]}"#,
            "x b a y",
        ),
        (
            vec!["a", "b"],
            r#"{"$setElementOrder/containers":[{"name":"n"},{"name":"b"},{"name":"a"}],"containers":[{"name":"n"}]}"#,
            "n b a",
        ),
    ] {
        assert_eq!(containers(&live, patch), outcome, "{patch}");
    }
}

#[test]
fn lists_of_scalars_merge_as_sets() {
    let live = |items: &str| format!(r#"{{"metadata":{{"finalizers":{items}}}}}"#);
    for (before, patch, after) in [
        (r#"["a"]"#, r#"{"finalizers":["b"]}"#, r#"["b","a"]"#),
        (
            r#"["b","a"]"#,
            r#"{"finalizers":["a","d"]}"#,
            r#"["b","a","d"]"#,
        ),
        (
            r#"["a","b","c"]"#,
            r#"{"$deleteFromPrimitiveList/finalizers":["b"]}"#,
            r#"["a","c"]"#,
        ),
        (
            r#"["a","x","b","y"]"#,
            r#"{"$setElementOrder/finalizers":["b","a"]}"#,
            r#"["x","b","a","y"]"#,
        ),
        (
            r#"["a"]"#,
            r#"{"$deleteFromPrimitiveList/finalizers":"a"}"#,
            r#"["a"]"#,
        ),
    ] {
        assert_eq!(
            patched(
                Kind::Strategic,
                &format!("{CORE}ConfigMap"),
                &live(before),
                &format!(r#"{{"metadata":{patch}}}"#)
            ),
            live(after),
            "{patch}"
        );
    }
}

#[test]
fn directives_on_maps_replace_delete_and_retain() {
    let labels = |patch: &str| {
        patched(
            Kind::Strategic,
            &format!("{CORE}ConfigMap"),
            r#"{"metadata":{"labels":{"a":"1","b":"2"}}}"#,
            &format!(r#"{{"metadata":{patch}}}"#),
        )
        .replace(r#"{"metadata":"#, "")
    };
    assert_eq!(
        labels(r#"{"labels":{"$patch":"replace","z":"1"}}"#),
        r#"{"labels":{"z":"1"}}}"#
    );
    assert_eq!(labels(r#"{"labels":{"$patch":"delete","z":"1"}}"#), "{}}");
    assert_eq!(
        labels(r#"{"annotations":{"$patch":"replace","z":"1"}}"#),
        r#"{"labels":{"a":"1","b":"2"}}}"#
    );
    assert_eq!(
        labels(r#"{"labels":{"$retainKeys":["a"],"a":"3"}}"#),
        r#"{"labels":{"a":"3"}}}"#
    );
    for (patch, refusal) in [
        (
            r#"{"labels":{"$patch":"merge","z":1}}"#,
            "500  unknown patch type: merge in map: map[$patch:merge z:1]",
        ),
        (
            r#"{"labels":{"$retainKeys":["a"],"z":"3"}}"#,
            "400 BadRequest invalid patch format of retainKeys",
        ),
        (
            r#"{"$setElementOrder/finalizers":null}"#,
            "500  expected a []interface {}, but received a %!s(<nil>)",
        ),
        (
            r#"{"$setElementOrder/nope":[]}"#,
            r#"500  unable to find api field in struct ObjectMeta for the json field "nope""#,
        ),
        (
            r#"{"$setElementOrder":[]}"#,
            "400 BadRequest invalid patch format of setElementOrder list",
        ),
        (
            r#"{"$deleteFromPrimitiveList":[]}"#,
            "400 BadRequest invalid patch format of primitive list",
        ),
    ] {
        assert_eq!(labels(patch), refusal, "{patch}");
    }
}

#[test]
fn items_that_do_not_fit_the_list_are_told() {
    assert_eq!(
        containers(&["c"], r#"{"containers":[{"image":"j"}]}"#),
        "500  map: map[image:j] does not contain declared merge key: name"
    );
    assert_eq!(
        containers(&["c"], r#"{"containers":["text"]}"#),
        "500  list element types are not identical: [[map[name:c]] [text]]"
    );
    assert_eq!(
        containers(
            &["a", "b"],
            r#"{"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"b"},{"name":"a"}]}"#
        ),
        "500  The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n"
    );
}

#[test]
fn types_are_restored_with_the_texts_of_the_converter() {
    let deployment = |patch: &str| {
        patched(
            Kind::Strategic,
            "io.k8s.api.apps.v1.Deployment",
            r#"{"spec":{"replicas":1}}"#,
            patch,
        )
    };
    let refusal = |shown: &str, why: &str| {
        format!("422 Invalid  \"\" is invalid: patch: Invalid value: \"{shown}\": {why}")
    };
    for (patch, shown, why) in [
        (
            r#"{"spec":{"replicas":"three"}}"#,
            "map[spec:map[replicas:three]]",
            "unrecognized type: int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "map[spec:map[replicas:1.5]]",
            "cannot convert float64 to int32",
        ),
        (
            r#"{"spec":"x"}"#,
            "map[spec:x]",
            "cannot restore struct from: string",
        ),
        (
            r#"{"metadata":{"labels":"x"}}"#,
            "map[metadata:map[labels:x]]",
            "cannot restore map from string",
        ),
        (
            r#"{"metadata":{"labels":{"a":5}}}"#,
            "map[metadata:map[labels:map[a:5]]]",
            "cannot convert int64 to string",
        ),
        (
            r#"{"metadata":{"finalizers":{}}}"#,
            "map[metadata:map[finalizers:map[]]]",
            "cannot restore slice from map",
        ),
        (
            r#"{"spec":{"template":{"spec":{"dnsPolicy":1}}}}"#,
            "map[spec:map[template:map[spec:map[dnsPolicy:1]]]]",
            "cannot convert int64 to v1.DNSPolicy",
        ),
        (
            r#"{"metadata":{"creationTimestamp":5}}"#,
            "map[metadata:map[creationTimestamp:5]]",
            "json: cannot unmarshal number into Go value of type string",
        ),
    ] {
        assert_eq!(deployment(patch), refusal(shown, why), "{patch}");
    }
    let replicas = |patch: &str| value(&deployment(patch)).at("spec").int("replicas");
    assert_eq!(replicas(r#"{"spec":{"replicas":3e0}}"#), 3);
    assert_eq!(
        replicas(r#"{"spec":{"replicas":99999999999}}"#),
        1_215_752_191
    );
}

#[test]
fn what_a_strategic_patch_does_not_name_is_left_as_it_is() {
    let schema = builtin::named("io.k8s.api.core.v1.Pod");
    let live = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","labels":{"b":"1","a":"2"}},
        "spec":{"nodeName":"n","containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1"}}}]},
        "status":{"phase":"Pending","conditions":[{"type":"Ready","status":"False"}]}}"#;
    let live = decode::decode(value(live), schema, "v1.Pod").unwrap().value;
    for patch in [
        r#"{"status":{"phase":"Running","hostIP":null,"conditions":[{"type":"Ready","status":"True"}]}}"#,
        r#"{"metadata":{"uid":"","annotations":{}},"status":{"podIPs":[],"nope":1}}"#,
        r#"{"spec":{"containers":[{"name":"d","args":[],"resources":{"requests":{"cpu":"0.5"}}}],"volumes":[]}}"#,
        r#"{"$retainKeys":["metadata","spec"],"spec":{"nodeName":"m"}}"#,
        r#"{"$patch":"replace","spec":{"containers":[]},"metadata":{"labels":{"z":"1","y":"2"}}}"#,
        r#"{"status":null}"#,
        r#"{"Status":{"phase":"Running"},"extra":{}}"#,
        "{}",
    ] {
        let patch = Patch::read(Kind::Strategic, patch.as_bytes()).unwrap();
        let mut body = patch.body.clone();
        let merged = strategic::merge(&live, &mut body, schema).unwrap();
        let [some, all] = [false, true].map(|all| {
            let told = restore::restore(merged.clone(), schema, true, |member| {
                all || patch.says(member)
            });
            let told = told.unwrap();
            (json::to_string(&told.value), told.unknown, told.emptied)
        });
        assert_eq!(some, all, "{:?}", patch.body);
    }
}
