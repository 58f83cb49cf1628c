//! Tests sets against a plain model, and the properties of apply and update.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::schema::{Object, Schema, Value, builtin, json, structural};
use crate::value;

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap().value
}

#[test]
fn fields_are_written_back_as_they_were_read_in_order() {
    for (text, back) in [
        (r#"{"f:data":{".":{},"f:k":{}}}"#, ""),
        (
            r#"{"f:b":{},"f:a":{"f:x":{}}}"#,
            r#"{"f:a":{"f:x":{}},"f:b":{}}"#,
        ),
        (r#"{"f:a":{".":{}}}"#, r#"{"f:a":{}}"#),
        (
            r#"{"f:a":null,".":{},"x:later":{"f:b":{}}}"#,
            r#"{"f:a":{}}"#,
        ),
        (
            r#"{"k:{\"b\":1,\"a\":\"x\"}":{"f:c":{}},"v:\"s\"":{},"i:3":{},"v:2":{}}"#,
            r#"{"k:{\"a\":\"x\",\"b\":1}":{"f:c":{}},"v:2":{},"v:\"s\"":{},"i:3":{}}"#,
        ),
    ] {
        let set = fields::read(&value(text)).unwrap();
        let back = if back.is_empty() { text } else { back };
        assert_eq!(json::to_string(&fields::write(&set)), back);
    }
    for text in [
        r#"{"f":{}}"#,
        r#"{"ab":{}}"#,
        r#"{"f:a":1}"#,
        r#"{"k:1":{}}"#,
        r#"{"v:{":{}}"#,
    ] {
        assert!(fields::read(&value(text)).is_err(), "{text}");
    }
}

#[test]
fn a_client_says_owners_in_entries_of_whatever_content() {
    for (list, said) in [
        ("[]", true),
        ("[{}]", true),
        (
            r#"[{"manager":"m","operation":"nonsense","time":null}]"#,
            true,
        ),
        (r#"[{"time":"2020-01-01T00:00:00Z","fieldsV1":1}]"#, true),
        ("null", false),
        ("{}", false),
        (r#"["a"]"#, false),
        (r#"[{},{"apiVersion":true}]"#, false),
        (r#"[{"time":"today"}]"#, false),
    ] {
        assert_eq!(Managed::is_said(&value(list)), said, "{list}");
    }
}

fn said(kind: &str, text: &str) -> Vec<String> {
    let schema = builtin::named(&format!("io.k8s.api.{kind}"));
    walk::fields_of(&value(text), typing::Type::root(schema)).paths()
}

#[test]
fn an_object_says_its_leaves_and_its_items() {
    assert_eq!(
        said(
            "core.v1.Pod",
            r#"{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","args":["x"],"ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}}}],"nodeSelector":{"x":"y"},"volumes":null}}"#
        ),
        [
            ".metadata.labels.a",
            ".spec.nodeSelector",
            ".spec.volumes",
            ".spec.containers[name=\"c\"]",
            ".spec.containers[name=\"c\"].args",
            ".spec.containers[name=\"c\"].name",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.containers[name=\"c\"].resources.limits.cpu",
        ]
    );
}

/// A set, and the same as a plain set of paths.
type Pair = (Set, BTreeSet<Vec<String>>);

fn sets() -> impl Strategy<Value = Pair> {
    let path = proptest::collection::vec("[abc]", 1..4);
    proptest::collection::btree_set(path, 0..8).prop_map(|paths| {
        let mut set = Set::default();
        for path in &paths {
            set.insert_fields(&path.iter().map(String::as_str).collect::<Vec<_>>());
        }
        (set, paths)
    })
}

fn paths(set: &Set) -> BTreeSet<Vec<String>> {
    let mut out = BTreeSet::new();
    set.each(&mut |path| {
        out.insert(
            path.iter()
                .map(|step| step.to_string()[1..].to_owned())
                .collect(),
        );
    });
    out
}

proptest! {
    #[test]
    fn sets_behave_as_plain_sets_of_paths((a, x) in sets(), (b, y) in sets()) {
        prop_assert_eq!(&paths(&a), &x);
        prop_assert_eq!(paths(&a.clone().union(b.clone())), x.union(&y).cloned().collect());
        prop_assert_eq!(paths(&a.intersection(&b)), x.intersection(&y).cloned().collect());
        prop_assert_eq!(paths(&a.clone().difference(&b)), x.difference(&y).cloned().collect());
        let below = |path: &Vec<String>| y.iter().any(|other| path.starts_with(other));
        prop_assert_eq!(
            paths(&a.clone().recursive_difference(&b)),
            x.iter().filter(|path| !below(path)).cloned().collect()
        );
        prop_assert_eq!(a.is_subset(&b), x.is_subset(&y));
        prop_assert_eq!(a.is_empty(), x.is_empty());
        prop_assert_eq!(fields::read(&fields::write(&a)).unwrap(), a);
    }
}

/// A schema with every kind of ownership.
const SCHEMA: &str = r#"{"type": "object", "properties": {"spec": {"type": "object", "properties": {
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
    "list": {"type": "array", "items": {"type": "string"}},
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "p"], "items": {"type": "object", "properties": {
        "k": {"type": "string"}, "p": {"type": "string", "default": "TCP"}, "v": {"type": "string"}}}},
    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    "deep": {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": "integer"}}}}}
}}}}"#;

static THING: LazyLock<Schema> = LazyLock::new(|| structural::compile(&value(SCHEMA)));

/// Without empty sets and keyed lists: applying those gives no ownership, and upstream loses what is beside them.
fn things() -> impl Strategy<Value = Value> {
    fn word() -> impl Strategy<Value = Value> {
        "[ab]".prop_map(Value::from)
    }
    fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[xyz]", value, 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }
    fn list(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        proptest::collection::vec(item, 0..3).prop_map(Value::Array)
    }
    let set = proptest::sample::subsequence(vec!["r", "s", "t"], 1..4)
        .prop_shuffle()
        .prop_map(|items| Value::Array(items.into_iter().map(Value::from).collect()));
    let keyed = proptest::sample::subsequence(vec![("k", "TCP"), ("k", "UDP"), ("l", "")], 1..4)
        .prop_shuffle()
        .prop_flat_map(|keys| {
            let items: Vec<_> = keys
                .into_iter()
                .map(|(k, p)| {
                    proptest::option::of("[ab]").prop_map(move |v| {
                        let mut item = Object::new();
                        item.insert("k", k);
                        if !p.is_empty() {
                            item.insert("p", p);
                        }
                        if let Some(v) = v {
                            item.insert("v", v);
                        }
                        Value::Object(item)
                    })
                })
                .collect();
            items.prop_map(Value::Array)
        });
    let deep = (proptest::option::of(word()), proptest::option::of(0..3i64)).prop_map(|(b, c)| {
        let mut a = Object::new();
        b.map(|b| a.insert("b", b));
        c.map(|c| a.insert("c", c));
        value!({"a": a})
    });
    let members: Vec<(&str, BoxedStrategy<Value>)> = vec![
        ("map", object(word()).boxed()),
        ("whole", object(word()).boxed()),
        ("list", list(word()).boxed()),
        ("set", set.boxed()),
        ("keyed", keyed.boxed()),
        ("free", object(object(list(word()))).boxed()),
        ("deep", deep.boxed()),
    ];
    members
        .into_iter()
        .map(|(name, value)| proptest::option::of(value).prop_map(move |value| (name, value)))
        .collect::<Vec<_>>()
        .prop_map(|members| {
            let spec: Object = members
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            value!({"spec": spec})
        })
}

fn writer<'a>(manager: &'a str, versions: &'a OneVersion<'a>) -> Writer<'a> {
    Writer {
        versions,
        api_version: "x/v1",
        schema: &THING,
        filter: &Filter::All,
        filter_elsewhere: &Filter::All,
        manager,
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    }
}

fn root() -> typing::Type<'static> {
    typing::Type::root(&THING)
}

proptest! {
    #[test]
    fn an_object_differs_in_nothing_from_itself_and_in_all_it_says_from_nothing(a in things(), b in things()) {
        prop_assert!(walk::compare(&a, &a, root()).is_empty());
        let (there, back) = (walk::compare(&a, &b, root()), walk::compare(&b, &a, root()));
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert!(there.added.intersection(&there.modified).is_empty());
        prop_assert!(there.added.intersection(&there.removed).is_empty());
        prop_assert_eq!(there.is_empty(), element::same(&a, &b) || same_but_for_order(&a, &b));
    }

    #[test]
    fn what_is_applied_is_there_and_owned_and_applying_it_again_changes_nothing(live in things(), said in things()) {
        let versions = OneVersion("x/v1", &THING);
        let writer = writer("a", &versions);
        let (new, managed) = writer.apply(&live, &said, Managed::default(), false).unwrap();
        let new = new.unwrap_or_else(|| live.clone());
        // The result differs from the applied object only in fields that the applier did not set.
        let differs = walk::compare(&said, &new, root());
        prop_assert!(differs.modified.is_empty(), "{:?}", differs.modified.paths());
        prop_assert!(differs.removed.is_empty(), "{:?}", differs.removed.paths());
        let own = managed.entries.first().map(|entry| entry.set.clone()).unwrap_or_default();
        prop_assert_eq!(own, walk::fields_of(&said, root()));
        let (again, still) = writer.apply(&new, &said, managed.clone(), false).unwrap();
        prop_assert_eq!(again, None);
        prop_assert_eq!(still, managed);
    }

    #[test]
    fn what_its_only_applier_leaves_out_goes_and_what_others_own_stays(live in things(), first in things(), second in things()) {
        let versions = OneVersion("x/v1", &THING);
        let managed = writer("b", &versions).update(&value!({}), &live, Managed::default(), true).unwrap();
        let set = |managed: &Managed, name: &str| managed.entries.iter().find(|entry| entry.manager.name == name)
            .map(|entry| entry.set.clone()).unwrap_or_default();
        let a = writer("a", &versions);
        let (new, managed) = a.apply(&live, &first, managed, true).unwrap();
        let before = new.unwrap_or_else(|| live.clone());
        let (last, theirs) = (set(&managed, "a"), set(&managed, "b"));
        let (new, managed) = a.apply(&before, &second, managed, true).unwrap();
        let after = new.unwrap_or_else(|| before.clone());
        let (said, left) = (walk::fields_of(&second, root()), walk::fields_of(&after, root()));
        // A container that was given up may still contain fields of others; a leaf is gone.
        let gone = leaves(&last.difference(&said).difference(&theirs));
        prop_assert!(left.intersection(&gone).is_empty(), "{:?}", left.intersection(&gone).paths());
        let lost = nowhere_in(&leaves(&theirs).difference(&said), &left);
        let lost: Vec<String> = lost.paths().into_iter().filter(|path| !is_there(&after, path)).collect();
        prop_assert!(lost.is_empty(), "{lost:?}");
        prop_assert_eq!(set(&managed, "a"), said);
    }

    #[test]
    fn conflicts_are_what_others_own_and_force_takes_it(first in things(), second in things()) {
        let versions = OneVersion("x/v1", &THING);
        let nothing = value!({});
        let (new, managed) = writer("a", &versions).apply(&nothing, &first, Managed::default(), false).unwrap();
        let live = new.unwrap_or(nothing);
        let theirs = managed.entries.first().map(|entry| entry.set.clone()).unwrap_or_default();
        let b = writer("b", &versions);
        let refused = b.apply(&live, &second, managed.clone(), false);
        let (new, forced) = b.apply(&live, &second, managed.clone(), true).unwrap();
        match refused {
            Ok((calm, owners)) => {
                prop_assert_eq!(calm, new);
                prop_assert_eq!(owners, forced);
            }
            Err(Refusal::Conflicts(conflicts)) => {
                prop_assert_eq!(conflicts.len(), 1);
                prop_assert!(conflicts[0].fields.is_subset(&theirs));
                let kept = forced.entries.iter().find(|entry| entry.manager.name == "a");
                let kept = kept.map(|entry| entry.set.clone()).unwrap_or_default();
                prop_assert_eq!(kept, theirs.difference(&conflicts[0].fields));
            }
            Err(Refusal::Other(why)) => prop_assert!(false, "{}", why),
        }
    }

    #[test]
    fn an_update_owns_what_it_changes_and_takes_it_from_all(first in things(), second in things()) {
        let versions = OneVersion("x/v1", &THING);
        let nothing = value!({});
        let managed = writer("a", &versions).update(&nothing, &first, Managed::default(), true).unwrap();
        let managed = writer("b", &versions).update(&first, &second, managed, false).unwrap();
        let changes = walk::compare(&first, &second, root());
        let set = |name: &str| managed.entries.iter().find(|entry| entry.manager.name == name)
            .map(|entry| entry.set.clone()).unwrap_or_default();
        let anyone = !walk::compare(&nothing, &first, root()).is_empty();
        if anyone {
            prop_assert_eq!(set("b"), changes.modified.union(changes.added));
        }
        prop_assert!(set("a").intersection(&set("b")).is_empty());
        prop_assert!(set("a").intersection(&changes.removed).is_empty());
    }
}

/// Whether two objects differ only in the order of sets and keyed lists, and in defaulted keys.
fn same_but_for_order(a: &Value, b: &Value) -> bool {
    let sorted = |object: &Value| {
        let mut object = object.clone();
        for name in ["set", "keyed"] {
            if let Some(Value::Array(items)) =
                object.get_mut("spec").and_then(|spec| spec.get_mut(name))
            {
                items.sort_by(element::order);
            }
        }
        object
    };
    element::same(&sorted(a), &sorted(b))
}

/// The paths of a set with nothing below them.
fn leaves(set: &Set) -> Set {
    let mut out = Set::default();
    for node in set.nodes() {
        let member = node.member && node.children.is_empty();
        out.push(node.element.clone(), member, leaves(&node.children));
    }
    out
}

/// The paths of a set that are neither in another nor above one of its paths.
fn nowhere_in(set: &Set, other: &Set) -> Set {
    let mut out = Set::default();
    for node in set.nodes() {
        let there = other.node(&node.element);
        let below = match there {
            Some(there) => nowhere_in(&node.children, &there.children),
            None => node.children.clone(),
        };
        out.push(node.element.clone(), node.member && there.is_none(), below);
    }
    out
}

/// Whether a path of object members exists, even if its end is empty and thus in no set.
fn is_there(object: &Value, path: &str) -> bool {
    let steps: Vec<&str> = path.split('.').skip(1).collect();
    !object.path(&steps).is_null()
}
