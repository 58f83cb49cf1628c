//! Structural schemas: what a value may be, for built-in kinds and custom resources alike.

use std::fmt;
use std::sync::OnceLock;

use indexmap::IndexMap;

use super::{Key, Value, builtin};

/// What a value at one place may be, and how patches and apply treat it.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The JSON it takes.
    pub shape: Shape,
    /// `null` is a value of its own (custom resources).
    pub nullable: bool,
    /// Unknown members stay (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// A whole object with apiVersion, kind and metadata (`x-kubernetes-embedded-resource`).
    pub embedded: Option<Box<Embedded>>,
    /// What an absent value becomes (custom resources; built-in kinds default in code, as upstream).
    pub default: Option<Value>,
    /// How apply owns and merges a list.
    pub list: ListType,
    /// Apply owns an object as a whole (`x-kubernetes-map-type: atomic`).
    pub atomic_map: bool,
    /// How a strategic merge patch merges this.
    pub merge: Merge,
    /// Members that no schema knows are kept, though not what is in them (`additionalProperties: true`).
    pub open: bool,
    /// A text of a format (custom resources): apply takes any scalar for one, and leaves it to validation.
    pub formatted: bool,
}

/// What a definition says of apiVersion, kind and metadata of an embedded object: whether they may be null, and what
/// they are if absent. Their form is the same for all.
#[derive(Clone, Debug, Default)]
pub struct Embedded {
    /// The declared ones of the three.
    pub declared: Vec<(Key, Schema)>,
}

/// The JSON a schema takes.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// Anything.
    #[default]
    Any,
    /// An object whose members are known.
    Struct(Struct),
    /// An object whose members are named freely, all of one schema.
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
    /// An RFC 3339 time with six digits of a second.
    MicroTime,
    /// The first of these that takes the JSON type at hand.
    OneOf(Vec<SchemaRef>),
}

/// The members of an object, in the order in which they are written.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// The Go type's name, as decoding errors show it (built-in kinds).
    pub go_name: Box<str>,
    /// Members by name.
    pub fields: IndexMap<Key, Field, foldhash::fast::RandomState>,
}

/// One member of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// What it may be.
    pub schema: SchemaRef,
    /// An empty value is not written.
    pub omit_empty: bool,
    /// A zero value of a struct type is not written either.
    pub omit_zero: bool,
    /// Absent and zero are different values.
    pub pointer: bool,
    /// The Go field's name.
    pub go_name: Box<str>,
    /// The Go type, as decoding errors show it.
    pub go_type: Box<str>,
    /// The Go structs it is embedded through, as decoding errors show them, each with a dot behind: `VolumeSource.`
    pub through: Box<str>,
    /// The protobuf field number and wire type (`b`, `v`, `f`, `g`; `r` behind it for repeated); 0 for none.
    pub proto: (u32, Box<str>),
    /// The protobuf numbers of the structs it is embedded through, the outermost first: flat in JSON, a message each there.
    pub within: Box<[u32]>,
}

impl Field {
    /// Whether a list is encoded item by item; one with a named Go type is encoded as a message that holds the items.
    /// Some slices lack `rep` in their protobuf tags, so the Go type is asked, too.
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
    /// Items by these keys.
    Map(Vec<Key>),
}

/// How a strategic merge patch merges a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// `x-kubernetes-patch-strategy` holds `merge`.
    pub merge: bool,
    /// It holds `retainKeys`.
    pub retain_keys: bool,
    /// It holds `replace`.
    pub replace: bool,
    /// `x-kubernetes-patch-merge-key`.
    pub key: Option<Key>,
}

/// A schema in place, or one of the built-in types by name.
#[derive(Clone)]
pub enum SchemaRef {
    /// In place.
    Inline(Box<Schema>),
    /// A named type, found at the first use (types refer to one another in circles).
    Named(&'static str, OnceLock<&'static Schema>),
    /// A named type whose place has rules of its own of how it merges, and whether apply owns it as a whole.
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
    /// Names a type instead of printing it: types refer to one another in circles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaRef::Inline(schema) => schema.fmt(f),
            SchemaRef::Named(name, _) | SchemaRef::Place(name, ..) => f.write_str(name),
        }
    }
}

impl Schema {
    /// A schema of a shape and nothing else.
    pub fn of(shape: Shape) -> Self {
        Schema {
            shape,
            ..Schema::default()
        }
    }

    /// The schema of the member `name`, if this is an object that knows it.
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
