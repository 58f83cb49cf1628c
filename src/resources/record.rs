//! Encodes objects for the store, and stored bytes for clients. Stored bodies lack the resourceVersion, which is only
//! known at commit: it is inserted when they are written to clients.

use std::fmt::Write as _;

use bytes::Bytes;

use super::registry::Resource;
use super::{custom, forms};
use crate::schema::{Value, json};
use crate::store::{Entry, Pairs, Record};

/// The `epoch` of a new object that upstream would store incomplete ([`super::Rules::completed_by_reading`]); that of all
/// others of built-in kinds is zero.
const INCOMPLETE: u32 = 1;

/// Encodes a new object from its working form.
pub fn encode_new(resource: &Resource, object: &Value) -> Record {
    let mut record = encode(resource, object);
    if (resource.rules.completed_by_reading)(object) {
        record.epoch = INCOMPLETE;
    }
    record
}

/// Whether a record of a built-in kind is what upstream would store.
pub fn is_complete(record: &Record) -> bool {
    record.epoch != INCOMPLETE
}

/// Encodes an object from its working form, in canonical form, for the store.
pub fn encode(resource: &Resource, object: &Value) -> Record {
    match &resource.custom {
        None => encode_shown(resource, object),
        Some(custom) => {
            let object = forms::to_storage(object, resource);
            Record {
                epoch: custom.epoch,
                fields: custom::fields(&custom.selectable, &object),
                ..encode_custom(object)
            }
        }
    }
}

/// Encodes an object in the form shown by a version.
pub fn encode_shown(resource: &Resource, object: &Value) -> Record {
    if resource.is_custom() {
        return encode_custom(object.clone());
    }
    let mut out = String::with_capacity(1024);
    out.push('{');
    let (mut type_len, mut rv_at) = (1, 0);
    for key in ["kind", "apiVersion"] {
        member(&mut out, key, object.at(key), 1);
    }
    if out.len() > 1 {
        out.push(',');
    }
    type_len = type_len.max(out.len());
    out.push_str("\"metadata\":{");
    let start = out.len();
    let meta = object.at("metadata");
    const BEFORE: [&str; 5] = ["name", "generateName", "namespace", "selfLink", "uid"];
    for key in BEFORE {
        member(&mut out, key, meta.at(key), start);
    }
    if out.len() > start {
        out.push(',');
    }
    rv_at = rv_at.max(out.len());
    let rest = out.len();
    for (key, value) in object
        .entries("metadata")
        .filter(|(key, _)| !BEFORE.contains(&key.as_str()) && *key != "resourceVersion")
    {
        member(&mut out, key, value, rest);
    }
    if out.len() == rest && out.ends_with(',') {
        out.pop();
        rv_at -= 1;
    }
    out.push('}');
    for (key, value) in object.as_object().into_iter().flat_map(|o| o.iter()) {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            out.push(',');
            json::write_text(key, &mut out);
            out.push(':');
            json::write(value, &mut out);
        }
    }
    out.push('}');
    Record {
        body: kept(&out),
        rv_at: u32::try_from(rv_at).unwrap_or(u32::MAX),
        type_len: u32::try_from(type_len).unwrap_or(u32::MAX),
        epoch: 0,
        labels: labels(object),
        fields: fields(resource, object),
    }
}

/// A body as the store keeps it, without the space into which the text grew: of a body of 4.1 KB half would be left over,
/// for as long as the object lives.
fn kept(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Encodes a custom resource: members are sorted by name at all levels, as Go writes maps.
fn encode_custom(mut object: Value) -> Record {
    object.sort();
    let labels = labels(&object);
    let mut out = String::with_capacity(1024);
    let mut rv_at = 0;
    out.push('{');
    for (i, (key, value)) in object.entries_of().enumerate() {
        if i > 0 {
            out.push(',');
        }
        json::write_text(key, &mut out);
        out.push(':');
        if key != "metadata" {
            json::write(value, &mut out);
            continue;
        }
        out.push('{');
        let members: Vec<_> = value
            .entries_of()
            .filter(|(key, _)| *key != "resourceVersion")
            .collect();
        let before = members
            .iter()
            .take_while(|(key, _)| key.as_str() < "resourceVersion")
            .count();
        for (i, (key, value)) in members.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            if i == before {
                rv_at = out.len();
            }
            json::write_text(key, &mut out);
            out.push(':');
            json::write(value, &mut out);
        }
        if before == members.len() {
            rv_at = out.len();
        }
        out.push('}');
    }
    out.push('}');
    Record {
        body: kept(&out),
        rv_at: u32::try_from(rv_at).unwrap_or(u32::MAX),
        type_len: 1,
        epoch: 0,
        labels,
        fields: Pairs::default(),
    }
}

fn member(out: &mut String, key: &str, value: &Value, first_at: usize) {
    if value.is_null() && key != "creationTimestamp" {
        return;
    }
    if out.len() > first_at && !out.ends_with(',') {
        out.push(',');
    }
    json::write_text(key, out);
    out.push(':');
    json::write(value, out);
}

/// `metadata.labels`, sorted.
pub fn labels(object: &Value) -> Pairs {
    let mut pairs: Vec<_> = object
        .at("metadata")
        .entries("labels")
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into())))
        .collect();
    pairs.sort();
    pairs.into()
}

/// The selectable fields of a built-in object.
pub fn fields(resource: &Resource, object: &Value) -> Pairs {
    let mut pairs: Vec<_> = resource
        .rules
        .selection
        .fields
        .iter()
        .map(|field| (field.name.into(), (field.value)(object).into()))
        .collect();
    pairs.sort();
    pairs.into()
}

/// Appends a stored body with its resourceVersion; `typed` keeps kind and apiVersion.
pub fn write_body(entry: &Entry, rev: u64, typed: bool, out: &mut Vec<u8>) {
    let record = &entry.record;
    let body = &record.body[..];
    let rv_at = (record.rv_at as usize).min(body.len());
    let from = if typed {
        0
    } else {
        (record.type_len as usize).min(rv_at)
    };
    if !typed {
        out.push(b'{');
    }
    out.extend_from_slice(&body[from..rv_at]);
    let mut version = String::with_capacity(40);
    let alone = body.get(rv_at) == Some(&b'}') || body.get(rv_at) == Some(&b',');
    if alone && rv_at > 0 && body[rv_at - 1] != b'{' {
        version.push(',');
    }
    let _ = write!(version, "\"resourceVersion\":\"{rev}\"");
    if !alone {
        version.push(',');
    }
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(&body[rv_at..]);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resources::Registry;

    /// A stored config map.
    pub(crate) fn entry(text: &str) -> Arc<Entry> {
        let resource = Registry::builtin().get("", "configmaps").unwrap();
        let object = json::parse(text.as_bytes()).unwrap().value;
        Arc::new(Entry {
            key: "k".into(),
            rev: 7,
            record: encode(resource, &object),
            expires: None,
        })
    }

    fn written(text: &str, typed: bool) -> String {
        let entry = entry(text);
        let mut out = Vec::new();
        write_body(&entry, 7, typed, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_version_is_put_where_go_writes_it_and_the_type_left_out_of_items() {
        let text = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","uid":"u","labels":{"a":"b"}},"data":{"k":"v"}}"#;
        assert_eq!(
            written(text, true),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","uid":"u","resourceVersion":"7","labels":{"a":"b"}},"data":{"k":"v"}}"#
        );
        assert_eq!(
            written(text, false),
            r#"{"metadata":{"name":"c","uid":"u","resourceVersion":"7","labels":{"a":"b"}},"data":{"k":"v"}}"#
        );
        for bare in [
            r#"{"kind":"A","apiVersion":"v1","metadata":{"name":"c"}}"#,
            r#"{"kind":"A","apiVersion":"v1","metadata":{}}"#,
        ] {
            assert!(
                json::parse(written(bare, true).as_bytes()).is_ok(),
                "{}",
                written(bare, true)
            );
        }
    }
}
