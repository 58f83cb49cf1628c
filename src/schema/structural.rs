//! Structural schemas of custom resources: compiles a definition's JSON schema, and decodes objects with it. One pass
//! prunes unknown members, drops nulls, and sets defaults. Follows
//! k8s.io/apiextensions-apiserver/pkg/apiserver/schema (pruning, defaulting, objectmeta).

use std::fmt;

use super::types::{Embedded, Field, ListType, Schema, SchemaRef, Shape, Struct};
use super::{Key, Object, Value, builtin, decode};
use crate::meta::budget::Budget;
use crate::meta::errors::{FieldError, Reason, shown};

/// The strings in a list.
pub(super) fn keys(list: &Value) -> Vec<Key> {
    list.as_array()
        .unwrap_or(&[])
        .iter()
        .filter_map(Value::as_str)
        .map(Key::from)
        .collect()
}

/// How apply merges a list with this schema.
pub(super) fn list_type(schema: &Value) -> ListType {
    match schema.str("x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => ListType::Map(keys(schema.at("x-kubernetes-list-map-keys"))),
        _ => ListType::Atomic,
    }
}

/// Compiles the schema of a whole object: apiVersion, kind and metadata always have the built-in types.
pub fn compile(schema: &Value) -> Schema {
    let mut compiled = place(schema);
    resource(&mut compiled);
    compiled
}

/// Adds the members that every resource has.
fn resource(schema: &mut Schema) {
    if matches!(schema.shape, Shape::Any | Shape::Map(_)) {
        schema.shape = Shape::Struct(Struct::default());
    }
    if let Shape::Struct(structure) = &mut schema.shape {
        for name in ["apiVersion", "kind"] {
            structure
                .fields
                .insert(name.into(), field(Schema::of(Shape::String).into()));
        }
        let meta = SchemaRef::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        structure.fields.insert("metadata".into(), field(meta));
    }
}

fn field(schema: SchemaRef) -> Field {
    Field {
        schema,
        omit_empty: true,
        omit_zero: false,
        pointer: true,
        go_name: "".into(),
        go_type: "".into(),
        through: "".into(),
        proto: (0, "".into()),
        within: Box::default(),
    }
}

fn place(schema: &Value) -> Schema {
    let preserve = schema.bool("x-kubernetes-preserve-unknown-fields");
    let embedded = schema.bool("x-kubernetes-embedded-resource");
    let additional = schema.at("additionalProperties");
    let structure = || {
        Shape::Struct(Struct {
            fields: schema
                .entries("properties")
                .map(|(name, property)| (name.clone(), field(place(property).into())))
                .collect(),
            ..Struct::default()
        })
    };
    let named = schema
        .at("properties")
        .as_object()
        .is_some_and(|p| !p.is_empty());
    let shape = match schema.str("type") {
        _ if schema.bool("x-kubernetes-int-or-string") => Shape::IntOrString,
        "array" => Shape::List(Box::new(
            schema.get("items").map(place).unwrap_or_default().into(),
        )),
        "string" => Shape::String,
        "integer" => Shape::Integer(64),
        "number" => Shape::Number,
        "boolean" => Shape::Boolean,
        "" if preserve && !named && !embedded => Shape::Any,
        _ if additional.as_object().is_some() && !named => {
            Shape::Map(Box::new(place(additional).into()))
        }
        _ => structure(),
    };
    let mut compiled = Schema {
        nullable: schema.bool("nullable"),
        preserve_unknown: preserve,
        embedded: embedded.then(|| Box::new(declared(schema))),
        default: schema.get("default").cloned(),
        open: additional.as_bool().is_some(),
        formatted: !matches!(schema.str("format"), "" | "byte"),
        list: list_type(schema),
        atomic_map: schema.str("x-kubernetes-map-type") == "atomic",
        ..Schema::of(shape)
    };
    if embedded {
        resource(&mut compiled);
    }
    compiled
}

/// What the schema of an embedded object declares for apiVersion, kind and metadata.
fn declared(schema: &Value) -> Embedded {
    let own = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
    Embedded {
        declared: schema
            .entries("properties")
            .filter(|(name, _)| own(name))
            .map(|(name, property)| (name.clone(), place(property)))
            .collect(),
    }
}

/// Compiles a part of a schema.
pub fn part(schema: &Value) -> Schema {
    place(schema)
}

/// Compiles a part of a schema that is an embedded resource.
pub fn resource_part(schema: &Value) -> Schema {
    let mut compiled = compile(schema);
    compiled.embedded = Some(Box::default());
    compiled
}

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

/// Decodes what all objects share, the type and metadata; returns the unknown members of metadata.
fn frame(object: &mut Object, lenient: bool) -> Result<Vec<String>, String> {
    for name in ["kind", "apiVersion"] {
        if let Some(other) = object.get(name).filter(|value| value.as_str().is_none()) {
            if !lenient && other.is_null() {
                return Err(format!(
                    ".{name} accessor error: <nil> is of the type <nil>, expected string"
                ));
            }
            if !lenient {
                return Err(format!(
                    "accessor error: {} is of the type {}, expected string",
                    crate::schema::json::to_string(other),
                    go_type(other)
                ));
            }
            object.remove(name);
        }
    }
    let mut unknown = Vec::new();
    if let Some(meta) = object.remove("metadata") {
        let meta = metadata(meta, lenient)?;
        unknown.extend(meta.unknown.iter().map(|path| format!("metadata.{path}")));
        unknown.sort();
        object.insert("metadata", meta.value);
    }
    Ok(unknown)
}

/// The Go name of a value's type, for error messages.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Decodes metadata; if `lenient`, members of a wrong type are dropped one by one.
fn metadata(meta: Value, lenient: bool) -> Result<decode::Decoded, String> {
    let schema = builtin::object_meta();
    let meta = if meta.is_null() {
        Value::Object(Object::new())
    } else {
        meta
    };
    if !lenient {
        return decode::decode(meta, schema, "v1.ObjectMeta");
    }
    if let Ok(decoded) = decode::decode(meta.clone(), schema, "v1.ObjectMeta") {
        return Ok(decoded);
    }
    let kept: Object = match meta {
        Value::Object(members) => members
            .into_iter()
            .filter(|(name, value)| {
                let alone: Object = [(name.clone(), value.clone())].into_iter().collect();
                decode::decode(alone.into(), schema, "v1.ObjectMeta").is_ok()
            })
            .collect(),
        _ => Object::new(),
    };
    decode::decode(kept.into(), schema, "v1.ObjectMeta")
}

/// The context of a node.
#[derive(Clone, Copy, Default)]
struct Mode {
    /// It is the object itself.
    root: bool,
    /// A list was reached through a node that preserves unknown members: its items do so, too, down to the next named
    /// member.
    keeping: bool,
}

enum Step {
    Field(Key),
    Key(Key),
    Index(usize),
}

#[derive(Default)]
struct Decoder {
    options: Options,
    path: Vec<Step>,
    unknown: Vec<String>,
    embedded_unknown: Vec<String>,
    /// How many of the unknown members are reported.
    budget: Budget,
    error: Option<FieldError>,
}

/// The schema for objects and lists that no schema describes.
static NOTHING: Schema = Schema {
    shape: Shape::Any,
    nullable: true,
    preserve_unknown: false,
    embedded: None,
    default: None,
    open: false,
    formatted: false,
    list: ListType::Atomic,
    atomic_map: false,
    merge: super::types::Merge {
        merge: false,
        retain_keys: false,
        replace: false,
        key: None,
    },
};

impl Decoder {
    fn node(&mut self, value: &mut Value, schema: &Schema, mode: Mode) {
        match value {
            Value::Object(members) => self.object(members, schema, mode),
            Value::Array(items) => {
                let keeping = mode.keeping || schema.preserve_unknown;
                let each = schema.items().unwrap_or(&NOTHING);
                // Below a list whose schema has no items, nothing is pruned while unknown members are preserved.
                if keeping && schema.items().is_none() {
                    return;
                }
                for (i, item) in items.iter_mut().enumerate() {
                    if item.is_null()
                        && !each.nullable
                        && let Some(default) = &each.default
                    {
                        *item = default.clone();
                    }
                    self.path.push(Step::Index(i));
                    self.node(
                        item,
                        each,
                        Mode {
                            root: false,
                            keeping,
                        },
                    );
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, members: &mut Object, schema: &Schema, mode: Mode) {
        let keeping = mode.keeping || schema.preserve_unknown;
        let resource = mode.root || schema.embedded.is_some();
        let fields = match &schema.shape {
            Shape::Struct(structure) => Some(&structure.fields),
            _ => None,
        };
        if let Some(embedded) = schema.embedded.as_ref().filter(|_| !self.options.keep) {
            for (name, known) in &embedded.declared {
                if members.get(name).is_some_and(Value::is_null) && !known.nullable {
                    match &known.default {
                        Some(default) if !self.options.prune_only => {
                            members.insert(name.clone(), default.clone());
                        }
                        Some(_) => {}
                        None => drop(members.remove(name)),
                    }
                }
            }
            self.embedded(members);
        }
        let mut gone: Vec<Key> = Vec::new();
        for (name, value) in members.iter_mut() {
            if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let known = fields
                .and_then(|fields| fields.get(name))
                .map(|field| &*field.schema);
            let (step, known) = match (known, &schema.shape) {
                (Some(known), _) => (Step::Field(name.clone()), known),
                (None, Shape::Map(values)) => (Step::Key(name.clone()), &***values),
                (None, _) if keeping => continue,
                (None, _) if schema.open => (Step::Key(name.clone()), &NOTHING),
                (None, _) => {
                    // At the root, invalid apiVersion, kind and metadata are dropped silently.
                    let silent = self.path.is_empty()
                        && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                    if self.options.report && !silent && !self.budget.is_spent() {
                        let path = self.plain_path(name);
                        self.budget.spend(path.len());
                        self.unknown.push(path);
                    }
                    gone.push(name.clone());
                    continue;
                }
            };
            if value.is_null() && !known.nullable && !self.options.keep {
                match &known.default {
                    Some(default) if !self.options.prune_only => *value = default.clone(),
                    Some(_) => {}
                    None if self.options.keep_nulls => {}
                    None => {
                        gone.push(name.clone());
                        continue;
                    }
                }
            }
            self.path.push(step);
            self.node(value, known, Mode::default());
            self.path.pop();
        }
        if gone.len() > 8 {
            let gone: std::collections::HashSet<Key> = gone.into_iter().collect();
            members.retain(|name, _| !gone.contains(name));
        } else {
            gone.iter().for_each(|name| drop(members.remove(name)));
        }
        let defaulted = fields.filter(|_| !self.options.prune_only);
        for (name, field) in defaulted.into_iter().flatten() {
            if let Some(default) = &field.schema.default
                && !members.contains(name)
            {
                let mut value = default.clone();
                self.node(&mut value, &field.schema, Mode::default());
                members.insert(name.clone(), value);
            }
        }
        if let Some(embedded) = schema
            .embedded
            .as_ref()
            .filter(|_| !self.options.prune_only)
        {
            for (name, known) in &embedded.declared {
                if let Some(default) = &known.default
                    && !members.contains(name)
                {
                    members.insert(name.clone(), default.clone());
                }
            }
        }
    }

    /// apiVersion, kind and metadata of an embedded object.
    fn embedded(&mut self, members: &mut Object) {
        for name in ["apiVersion", "kind"] {
            let Some(value) = members.get(name).filter(|value| value.as_str().is_none()) else {
                continue;
            };
            if self.options.lenient {
                members.remove(name);
            } else {
                self.refuse(name, value, "must be a string".to_owned());
            }
        }
        let Some(meta) = members.get("metadata") else {
            return;
        };
        match metadata(meta.clone(), self.options.lenient) {
            Ok(decoded) => {
                if self.options.report && !decoded.unknown.is_empty() && !self.budget.is_spent() {
                    let prefix = self.field_path();
                    let prefix = if prefix.is_empty() {
                        prefix
                    } else {
                        format!("{prefix}.")
                    };
                    for path in decoded.unknown {
                        let path = format!("{prefix}metadata.{path}");
                        if self.budget.spend(path.len()) {
                            self.embedded_unknown.push(path);
                        }
                    }
                }
                members.insert("metadata", decoded.value);
            }
            Err(why) => {
                let meta = meta.clone();
                self.refuse("metadata", &meta, why);
            }
        }
    }

    fn refuse(&mut self, name: &str, value: &Value, why: String) {
        if self.error.is_none() {
            let parent = self.field_path();
            let dot = if parent.is_empty() { "" } else { "." };
            let mut value = value.clone();
            value.sort();
            self.error = Some(FieldError {
                reason: Reason::Invalid,
                field: format!("{parent}{dot}{name}"),
                message: format!("Invalid value: {}: {why}", shown(&value)),
            });
        }
    }

    /// The path as shown in field errors.
    fn field_path(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            let _ = match step {
                Step::Field(name) if out.is_empty() => fmt::Write::write_str(&mut out, name),
                Step::Field(name) => fmt::Write::write_fmt(&mut out, format_args!(".{name}")),
                Step::Key(name) => fmt::Write::write_fmt(&mut out, format_args!("[{name}]")),
                Step::Index(index) => fmt::Write::write_fmt(&mut out, format_args!("[{index}]")),
            };
        }
        out
    }

    /// The path of the member `name` as shown in warnings about unknown members.
    fn plain_path(&self, name: &str) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) | Step::Key(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                Step::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        if !out.is_empty() {
            out.push('.');
        }
        out + name
    }
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
