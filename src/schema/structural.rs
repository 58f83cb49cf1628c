//! Structural schemas of custom resources: compiles a definition's JSON schema, and decodes objects with it. One pass
//! prunes unknown members, drops nulls, and sets defaults. Follows
//! k8s.io/apiextensions-apiserver/pkg/apiserver/schema (pruning, defaulting, objectmeta).

mod compile;
mod decoder;
mod frame;

use self::decoder::{Decoder, Mode, Step};
use self::frame::frame;
use super::Value;
use super::types::{Schema, Shape};
use crate::meta::errors::FieldError;

pub use self::compile::{compile, part, resource_part};
pub(super) use self::compile::{keys, list_type};
pub use self::frame::go_type;

/// Removes members unknown to the schema; keeps nulls, and apiVersion, kind and metadata of embedded objects.
pub fn pruned(mut value: Value, schema: &Schema) -> Value {
    let mut decoder = Decoder {
        options: Options {
            prune_only: true,
            keep: true,
            ..Options::default()
        },
        ..Decoder::default()
    };
    decoder.node(&mut value, schema, Mode::default());
    value
}

/// Brings the metadata of embedded objects into canonical form; changes nothing else.
///
/// # Errors
/// If an apiVersion, kind or metadata has a wrong type.
pub fn coerced(mut value: Value, schema: &Schema) -> Result<Value, FieldError> {
    fn each(decoder: &mut Decoder, value: &mut Value, schema: &Schema) {
        match value {
            Value::Object(members) => {
                if schema.embedded.is_some() {
                    decoder.embedded(members);
                }
                for (name, member) in members.iter_mut() {
                    let (step, known) = match &schema.shape {
                        Shape::Struct(structure) => match structure.fields.get(name) {
                            Some(field) => (Step::Field(name.clone()), &*field.schema),
                            None => continue,
                        },
                        Shape::Map(values) => (Step::Key(name.clone()), &***values),
                        _ => continue,
                    };
                    decoder.path.push(step);
                    each(decoder, member, known);
                    decoder.path.pop();
                }
            }
            Value::Array(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    if let Some(known) = schema.items() {
                        decoder.path.push(Step::Index(i));
                        each(decoder, item, known);
                        decoder.path.pop();
                    }
                }
            }
            _ => {}
        }
    }
    let mut decoder = Decoder::default();
    each(&mut decoder, &mut value, schema);
    match decoder.error {
        Some(error) => Err(error),
        None => Ok(value),
    }
}

/// What [`decode`] does besides decoding.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Report unknown members.
    pub report: bool,
    /// Drop metadata of a wrong type instead of rejecting it (objects that were stored long ago).
    pub lenient: bool,
    /// Set no defaults.
    pub prune_only: bool,
    /// Keep nulls, and embedded objects as they are.
    pub keep: bool,
    /// Keep nulls of fields without a default.
    pub keep_nulls: bool,
}

/// A decoded object.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Pruned, with defaults.
    pub value: Value,
    /// Paths of unknown members: first those in metadata, then all others sorted.
    pub unknown: Vec<String>,
}

/// Decodes a whole object.
///
/// # Errors
/// Upstream's text for metadata of a wrong type, in the object or in one embedded in it.
pub fn decode(value: Value, schema: &Schema, options: Options) -> Result<Decoded, String> {
    let Value::Object(mut object) = value else {
        return Ok(Decoded {
            value,
            unknown: Vec::new(),
        });
    };
    let mut decoder = Decoder {
        options,
        ..Decoder::default()
    };
    let mut unknown = frame(&mut object, options.lenient)?;
    decoder.object(
        &mut object,
        schema,
        Mode {
            root: true,
            ..Mode::default()
        },
    );
    if let Some(error) = decoder.error {
        return Err(error.to_string());
    }
    decoder.unknown.sort();
    decoder.embedded_unknown.sort();
    unknown.append(&mut decoder.unknown);
    unknown.append(&mut decoder.embedded_unknown);
    Ok(Decoded {
        value: Value::Object(object),
        unknown,
    })
}

/// Decodes only apiVersion, kind and metadata of an object that has another kind than expected.
///
/// # Errors
/// Like [`decode`].
pub fn decode_foreign(mut value: Value) -> Result<Decoded, String> {
    let unknown = match value.as_object_mut() {
        Some(object) => frame(object, false)?,
        None => Vec::new(),
    };
    Ok(Decoded { value, unknown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    fn schema(text: &str) -> Schema {
        let properties = json::parse(text.as_bytes()).unwrap().value;
        compile(&crate::value!({"type": "object", "properties": properties}))
    }

    /// The decoded object, and its unknown members.
    fn decoded(properties: &str, object: &str) -> (String, Vec<String>) {
        let value = json::parse(object.as_bytes()).unwrap().value;
        let options = Options {
            report: true,
            ..Options::default()
        };
        let decoded = decode(value, &schema(properties), options).unwrap();
        (json::to_string(&decoded.value), decoded.unknown)
    }

    #[test]
    fn unknown_members_go_and_are_told() {
        let properties = r#"{"spec": {"type": "object", "properties": {
            "l": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "string"}}}},
            "s": {"type": "string"},
            "p": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"q": {"type": "object"}}},
            "any": {"x-kubernetes-preserve-unknown-fields": true}}}}"#;
        let (left, unknown) = decoded(
            properties,
            r#"{"z": 1, "metadata": {"name": "a", "nome": 1}, "spec": {
                "l": [{"a": "x", "j": 1}], "m": {"k": {"b": "y", "i": 1}}, "s": {"x": 1},
                "p": {"u": {"v": 1}, "q": {"w": 1}}, "any": [{"n": null}], "u": 1}}"#,
        );
        assert_eq!(
            left,
            r#"{"spec":{"l":[{"a":"x"}],"m":{"k":{"b":"y"}},"s":{},"p":{"u":{"v":1},"q":{}},"any":[{"n":null}]},"metadata":{"name":"a"}}"#
        );
        assert_eq!(
            unknown,
            [
                "metadata.nome",
                "spec.l[0].j",
                "spec.m.k.i",
                "spec.p.q.w",
                "spec.s.x",
                "spec.u",
                "z"
            ]
        );
    }

    #[test]
    fn defaults_take_the_place_of_what_is_absent_or_null() {
        let properties = r#"{"spec": {"type": "object", "properties": {
            "a": {"type": "string", "default": "x"},
            "n": {"type": "string", "default": "x", "nullable": true},
            "d": {"type": "string"},
            "o": {"type": "object", "default": {}, "properties": {"i": {"type": "integer", "default": 1}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {"i": {"type": "integer", "default": 2}}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}}}}}"#;
        for (object, left) in [
            (r#"{}"#, r#"{}"#),
            (
                r#"{"spec": {}}"#,
                r#"{"spec":{"a":"x","n":"x","o":{"i":1}}}"#,
            ),
            (
                r#"{"spec": {"a": null, "n": null, "d": null, "o": null, "l": [{}, null], "m": {"k": null, "j": "v"}}}"#,
                r#"{"spec":{"a":"x","n":null,"o":{"i":1},"l":[{"i":2},null],"m":{"j":"v"}}}"#,
            ),
        ] {
            assert_eq!(decoded(properties, object).0, left, "{object}");
        }
    }

    #[test]
    fn embedded_objects_have_types_and_metadata() {
        let properties = r#"{"t": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}"#;
        let (left, unknown) = decoded(
            properties,
            r#"{"t": {"apiVersion": "v1", "kind": "A", "metadata": {"name": "a", "x": 1}, "f": 1}}"#,
        );
        assert_eq!(
            left,
            r#"{"t":{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"f":1}}"#
        );
        assert_eq!(unknown, ["t.metadata.x"]);
        let value = json::parse(br#"{"t": {"apiVersion": "v1", "kind": 7}}"#)
            .unwrap()
            .value;
        assert_eq!(
            decode(value, &schema(properties), Options::default()).unwrap_err(),
            "t.kind: Invalid value: 7: must be a string"
        );
    }

    #[test]
    fn unknown_members_below_a_very_long_name_are_told_in_part() {
        let properties = r#"{"m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}}}"#;
        let members: Vec<String> = (0..100_000).map(|n| format!("\"u{n}\": 1")).collect();
        let key = "k".repeat(1 << 20);
        let object = format!(r#"{{"m": {{"{key}": {{{}}}}}}}"#, members.join(","));
        let (text, unknown) = decoded(properties, &object);
        assert_eq!(text, format!(r#"{{"m":{{"{key}":{{}}}}}}"#));
        assert_eq!(unknown.len(), 16);
    }
}
