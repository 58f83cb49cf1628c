//! Compiles the JSON schema of a definition.

use super::super::types::{Embedded, Field, ListType, Schema, SchemaRef, Shape, Struct};
use super::super::{Key, Value};

/// The strings in a list.
pub(in super::super) fn keys(list: &Value) -> Vec<Key> {
    list.as_array()
        .unwrap_or(&[])
        .iter()
        .filter_map(Value::as_str)
        .map(Key::from)
        .collect()
}

/// How apply merges a list with this schema.
pub(in super::super) fn list_type(schema: &Value) -> ListType {
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
