//! The built-in types. Their structure comes from upstream's OpenAPI schemas (`documents/schemas.json`), the rest
//! from `documents/types.txt`: the order of members, which zero values are written, and the Go names shown in
//! decoding errors. Both documents contain facts extracted from v1.37.2. Parsed at first use.

use std::collections::HashMap;
use std::sync::LazyLock;

use indexmap::IndexMap;

use super::types::{Field, ListType, Merge, Schema, SchemaRef, Shape, Struct};
use super::{Key, Value, json};

static TYPES: LazyLock<HashMap<&'static str, Schema>> = LazyLock::new(load);
static ANY: Schema = Schema {
    shape: Shape::Any,
    nullable: false,
    preserve_unknown: true,
    embedded: None,
    default: None,
    list: ListType::Atomic,
    atomic_map: false,
    merge: Merge {
        merge: false,
        retain_keys: false,
        replace: false,
        key: None,
    },
    open: false,
    formatted: false,
};

/// The OpenAPI schemas: a document that maps component names to schemas.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    json::parse(include_bytes!("documents/schemas.json"))
        .map(|parsed| parsed.value)
        .unwrap_or_default()
});

/// The type with a component name such as `io.k8s.api.core.v1.Pod`. For unknown names, a schema that accepts anything.
pub fn named(name: &str) -> &'static Schema {
    TYPES.get(name).unwrap_or(&ANY)
}

/// Whether there is a type of that name.
pub fn knows(name: &str) -> bool {
    TYPES.contains_key(name)
}

/// `io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta`
pub fn object_meta() -> &'static Schema {
    static FOUND: LazyLock<&'static Schema> =
        LazyLock::new(|| named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    &FOUND
}

/// One line of `types.txt`: a member of a Go struct.
struct Line {
    name: &'static str,
    flags: &'static str,
    proto: &'static str,
    go_name: &'static str,
    go_type: &'static str,
}

/// The Go facts: members by component name, in order.
fn lines() -> HashMap<&'static str, Vec<Line>> {
    let mut types: HashMap<&'static str, Vec<Line>> = HashMap::new();
    let mut current = "";
    for line in include_str!("documents/types.txt").lines() {
        match line.strip_prefix(' ') {
            None => {
                current = line;
                types.insert(line, Vec::new());
            }
            Some(rest) => {
                let mut words = rest.split(' ');
                let mut next = || words.next().unwrap_or_default();
                let (name, flags, proto, go_name, go_type) =
                    (next(), next(), next(), next(), next());
                if let Some(members) = types.get_mut(current) {
                    members.push(Line {
                        name,
                        flags,
                        proto,
                        go_name,
                        go_type,
                    });
                }
            }
        }
    }
    types
}

fn load() -> HashMap<&'static str, Schema> {
    let lines = lines();
    // The names live as long as the process: they are leaked once, together with the table that refers to them.
    let document: &'static Value = &DOCUMENT;
    let mut types = HashMap::new();
    for (name, schema) in document.as_object().into_iter().flat_map(|o| o.iter()) {
        types.insert(name.as_str(), read(name, schema, &lines));
    }
    types
}

/// Types whose JSON is not that of their Go struct.
fn special(name: &str) -> Option<Shape> {
    let props = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let list = |shape| Schema::of(Shape::List(Box::new(shape)));
    Some(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Shape::Quantity,
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Shape::IntOrString,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Shape::Time,
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Shape::MicroTime,
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "io.k8s.apimachinery.pkg.runtime.RawExtension"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => Shape::Any,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => {
            Shape::OneOf(vec![
                Schema::of(Shape::Boolean).into(),
                SchemaRef::named(props),
            ])
        }
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => {
            Shape::OneOf(vec![
                SchemaRef::named(props),
                list(SchemaRef::named(props)).into(),
            ])
        }
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            Shape::OneOf(vec![
                SchemaRef::named(props),
                list(Schema::of(Shape::String).into()).into(),
            ])
        }
        _ => return None,
    })
}

fn read(name: &str, schema: &'static Value, lines: &HashMap<&'static str, Vec<Line>>) -> Schema {
    if let Some(shape) = special(name) {
        return Schema {
            preserve_unknown: matches!(shape, Shape::Any),
            // Of the types that accept anything, only this one is owned as a whole.
            atomic_map: name == "io.k8s.apimachinery.pkg.runtime.RawExtension",
            shape,
            ..Schema::default()
        };
    }
    let Some(members) = lines.get(name) else {
        return place(schema);
    };
    let mut fields = IndexMap::default();
    members_of(members, schema, lines, ("", &[]), &mut fields);
    let go_name = name.rsplit('.').next().unwrap_or(name);
    Schema {
        atomic_map: schema.str("x-kubernetes-map-type") == "atomic",
        ..Schema::of(Shape::Struct(Struct {
            go_name: go_name.into(),
            fields,
        }))
    }
}

/// A protobuf number and wire type: `3v`, `2br`.
fn proto(text: &'static str) -> (u32, &'static str) {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, wire) = text.split_at(digits);
    (number.parse().unwrap_or(0), wire)
}

/// Reads `members` into `fields`, replacing embedded structs by their members. `through` and `within` are the Go
/// structs and protobuf numbers through which these are embedded.
fn members_of(
    members: &[Line],
    schema: &'static Value,
    lines: &HashMap<&'static str, Vec<Line>>,
    (through, within): (&str, &[u32]),
    fields: &mut IndexMap<Key, Field, foldhash::fast::RandomState>,
) {
    let properties = schema.at("properties");
    // kind and apiVersion come from Go's embedded TypeMeta, before everything else.
    for name in ["kind", "apiVersion"] {
        if (fields.is_empty() || fields.len() == 1)
            && let Some(property) = properties.get(name)
            && !members.iter().any(|line| line.name == name)
        {
            let line = Line {
                name,
                flags: "?",
                proto: "0",
                go_name: if name == "kind" { "Kind" } else { "APIVersion" },
                go_type: "string",
            };
            fields
                .entry(Key::from(name))
                .or_insert_with(|| field(&line, ("TypeMeta.", &[]), place(property)));
        }
    }
    for line in members {
        if line.name == "^" {
            if let Some(inlined) = lines.get(line.go_type) {
                let through = format!("{through}{}.", line.go_name);
                let within = [within, &[proto(line.proto).0]].concat();
                members_of(inlined, schema, lines, (&through, &within), fields);
            }
        } else if let Some(property) = properties.get(line.name) {
            let field = field(line, (through, within), reference(property));
            fields.insert(Key::from(line.name), field);
        }
    }
}

fn field(line: &Line, (through, within): (&str, &[u32]), schema: impl Into<SchemaRef>) -> Field {
    let (number, wire) = proto(line.proto);
    Field {
        schema: schema.into(),
        omit_empty: line.flags.contains('?'),
        omit_zero: line.flags.contains('z'),
        pointer: line.flags.contains('*'),
        go_name: line.go_name.into(),
        go_type: line.go_type.into(),
        through: through.into(),
        proto: (number, wire.into()),
        within: within.into(),
    }
}

/// The schema of a property, item or value: a reference if it is one, else inline.
fn reference(schema: &'static Value) -> SchemaRef {
    let name = schema.at("$ref").as_str().or_else(|| {
        schema
            .list("allOf")
            .first()
            .and_then(|all| all.at("$ref").as_str())
    });
    match name.and_then(|name| name.rsplit('/').next()) {
        Some(name) => {
            let atomic = match schema.str("x-kubernetes-map-type") {
                "" => None,
                kind => Some(kind == "atomic"),
            };
            match merge_of(schema) {
                merge if merge == Merge::default() && atomic.is_none() => SchemaRef::named(name),
                merge => SchemaRef::Place(name, std::sync::OnceLock::new(), merge, atomic),
            }
        }
        None => place(schema).into(),
    }
}

fn merge_of(schema: &Value) -> Merge {
    let strategy = schema.str("x-kubernetes-patch-strategy");
    Merge {
        merge: strategy.split(',').any(|s| s == "merge"),
        retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
        replace: strategy.split(',').any(|s| s == "replace"),
        key: schema
            .at("x-kubernetes-patch-merge-key")
            .as_str()
            .map(Key::from),
    }
}

fn place(schema: &'static Value) -> Schema {
    let shape = match (schema.str("type"), schema.str("format")) {
        ("object", _) => match schema.get("additionalProperties") {
            Some(value) => Shape::Map(Box::new(reference(value))),
            None => Shape::Any,
        },
        ("array", _) => Shape::List(Box::new(reference(schema.at("items")))),
        ("string", "byte") => Shape::Bytes,
        ("string", "date-time") => Shape::Time,
        ("string", _) => Shape::String,
        ("integer", "int64") => Shape::Integer(64),
        ("integer", _) => Shape::Integer(32),
        ("number", _) => Shape::Number,
        ("boolean", _) => Shape::Boolean,
        _ => Shape::Any,
    };
    Schema {
        list: match schema.str("x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map(
                schema
                    .list("x-kubernetes-list-map-keys")
                    .iter()
                    .filter_map(Value::as_str)
                    .map(Key::from)
                    .collect(),
            ),
            _ => ListType::Atomic,
        },
        atomic_map: schema.str("x-kubernetes-map-type") == "atomic",
        preserve_unknown: matches!(shape, Shape::Any),
        // Not used for defaulting, which is code: the defaults of merge keys in list items.
        default: schema
            .get("default")
            .filter(|default| !matches!(default, Value::Object(_) | Value::Array(_)))
            .cloned(),
        merge: merge_of(schema),
        ..Schema::of(shape)
    }
}
