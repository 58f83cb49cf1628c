//! Structural schemas: the allowed values, for built-in kinds and custom resources alike.

use std::fmt;
use std::sync::OnceLock;

use indexmap::IndexMap;

use super::{Key, Value, builtin};

/// The schema of a value, and how patches and apply treat it.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The JSON type.
    pub shape: Shape,
    /// `null` is allowed as a value (custom resources).
    pub nullable: bool,
    /// Unknown members are kept (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// A whole object with apiVersion, kind and metadata (`x-kubernetes-embedded-resource`).
    pub embedded: Option<Box<Embedded>>,
    /// The default of an absent value (custom resources; built-in kinds are defaulted by code, as upstream).
    pub default: Option<Value>,
    /// How apply owns and merges a list.
    pub list: ListType,
    /// Apply owns an object as a whole (`x-kubernetes-map-type: atomic`).
    pub atomic_map: bool,
    /// How a strategic merge patch merges this.
    pub merge: Merge,
    /// Members without a schema are kept, but their contents are pruned (`additionalProperties: true`).
    pub open: bool,
    /// A string with a format (custom resources): apply accepts any scalar for it, and leaves errors to validation.
    pub formatted: bool,
}

/// What a definition declares for apiVersion, kind and metadata of an embedded object: whether they may be null, and
/// their defaults. Their structure is always the same.
#[derive(Clone, Debug, Default)]
pub struct Embedded {
    /// Those of the three that are declared.
    pub declared: Vec<(Key, Schema)>,
}

/// The JSON type that a schema accepts.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// Anything.
    #[default]
    Any,
    /// An object with known members.
    Struct(Struct),
    /// An object with arbitrary member names, whose values share one schema.
    Map(Box<SchemaRef>),
    /// An array.
    List(Box<SchemaRef>),
    /// Text.
    String,
    /// Base64 text (Go's `[]byte`).
    Bytes,
    /// An integer of 32 or 64 bits.
    Integer(u8),
    /// A number.
    Number,
    /// A boolean.
    Boolean,
    /// An integer or text.
    IntOrString,
    /// A resource quantity.
    Quantity,
    /// An RFC 3339 time in whole seconds.
    Time,
    /// An RFC 3339 time with microseconds.
    MicroTime,
    /// The first of these that accepts the JSON type of the value.
    OneOf(Vec<SchemaRef>),
}

/// The members of an object, in the order in which they are written.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// The Go type's name, as shown in decoding errors (built-in kinds).
    pub go_name: Box<str>,
    /// Members by name.
    pub fields: IndexMap<Key, Field, foldhash::fast::RandomState>,
}

/// One member of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// The schema of its value.
    pub schema: SchemaRef,
    /// An empty value is not written.
    pub omit_empty: bool,
    /// A zero value of a struct type is not written either.
    pub omit_zero: bool,
    /// Absent and zero differ.
    pub pointer: bool,
    /// The Go field's name.
    pub go_name: Box<str>,
    /// The Go type, as shown in decoding errors.
    pub go_type: Box<str>,
    /// The Go structs through which it is embedded, as shown in decoding errors, each followed by a dot:
    /// `VolumeSource.`
    pub through: Box<str>,
    /// The protobuf field number and wire type (`b`, `v`, `f`, `g`; followed by `r` if repeated); 0 for none.
    pub proto: (u32, Box<str>),
    /// The protobuf numbers of the structs through which it is embedded, outermost first: flat in JSON, but a message
    /// each in protobuf.
    pub within: Box<[u32]>,
}

impl Field {
    /// Whether a list is encoded item by item; a list with a named Go type is encoded as a message that wraps the
    /// items. Some slices lack `rep` in their protobuf tags, so the Go type is checked, too.
    pub fn is_repeated(&self) -> bool {
        self.proto.1.ends_with('r') || self.go_type.starts_with("[]")
    }
}

/// How apply merges a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// As a set of scalars.
    Set,
    /// By key: items with the same values of these members are merged.
    Map(Vec<Key>),
}

/// How a strategic merge patch merges a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// `x-kubernetes-patch-strategy` contains `merge`.
    pub merge: bool,
    /// It contains `retainKeys`.
    pub retain_keys: bool,
    /// It contains `replace`.
    pub replace: bool,
    /// `x-kubernetes-patch-merge-key`.
    pub key: Option<Key>,
}

/// An inline schema, or a built-in type by name.
#[derive(Clone)]
pub enum SchemaRef {
    /// In place.
    Inline(Box<Schema>),
    /// A named type, looked up at first use (types refer to one another in cycles).
    Named(&'static str, OnceLock<&'static Schema>),
    /// A named type, with its own rules at this place for merging and for whether apply owns it as a whole.
    Place(&'static str, OnceLock<Box<Schema>>, Merge, Option<bool>),
}

impl SchemaRef {
    /// A reference to a built-in type.
    pub fn named(name: &'static str) -> Self {
        SchemaRef::Named(name, OnceLock::new())
    }
}

impl From<Schema> for SchemaRef {
    fn from(schema: Schema) -> Self {
        SchemaRef::Inline(Box::new(schema))
    }
}

impl std::ops::Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            SchemaRef::Inline(schema) => schema,
            SchemaRef::Named(name, found) => found.get_or_init(|| builtin::named(name)),
            SchemaRef::Place(name, made, merge, atomic) => made.get_or_init(|| {
                let named = builtin::named(name);
                Box::new(Schema {
                    merge: merge.clone(),
                    atomic_map: atomic.unwrap_or(named.atomic_map),
                    ..named.clone()
                })
            }),
        }
    }
}

impl fmt::Debug for SchemaRef {
    /// Prints the name of a type, not its contents: types refer to one another in cycles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaRef::Inline(schema) => schema.fmt(f),
            SchemaRef::Named(name, _) | SchemaRef::Place(name, ..) => f.write_str(name),
        }
    }
}

impl Schema {
    /// A schema with a shape and nothing else.
    pub fn of(shape: Shape) -> Self {
        Schema {
            shape,
            ..Schema::default()
        }
    }

    /// The schema of the member `name`, if this is an object that has it.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        match &self.shape {
            Shape::Struct(fields) => fields.fields.get(name).map(|field| &*field.schema),
            Shape::Map(value) => Some(value),
            _ => None,
        }
    }

    /// The schema at a path of member names through objects (and through lists to their items).
    pub fn path(&self, path: &[&str]) -> Option<&Schema> {
        path.iter()
            .try_fold(self, |schema, name| match &schema.shape {
                Shape::List(item) => item.field(name),
                _ => schema.field(name),
            })
    }

    /// The schema of the items, if this is a list.
    pub fn items(&self) -> Option<&Schema> {
        match &self.shape {
            Shape::List(item) => Some(item),
            _ => None,
        }
    }
}
