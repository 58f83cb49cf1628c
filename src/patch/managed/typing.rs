//! Schemas as apply sees them: the allowed values, and the granularity of ownership. Follows
//! k8s.io/kube-openapi/pkg/schemaconv.

use super::element::Element;
use crate::schema::types::{ListType, SchemaRef, Struct};
use crate::schema::{Key, Schema, Shape, Value};

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub enum Type<'a> {
    /// Described by a schema; `true` if unknown members are preserved because of an ancestor.
    Of(&'a Schema, bool),
    /// Any value: objects are owned by member, arrays as a whole.
    Deduced,
    /// Any value, owned as a whole.
    Untyped,
}

/// The forms that a value may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Atom<'a> {
    /// An object.
    pub map: Option<Map<'a>>,
    /// A scalar.
    pub scalar: Option<Scalar>,
    /// An array.
    pub list: Option<List<'a>>,
}

/// An object.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Its known members.
    fields: Option<&'a Struct>,
    /// The type of all other members; `None` if there may not be any.
    element: Option<Type<'a>>,
    /// Owned as a whole.
    pub atomic: bool,
    keep: bool,
}

/// An array.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// The type of its items.
    pub element: Type<'a>,
    /// How its items are identified.
    pub kind: &'a ListType,
}

/// The kinds of scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    String,
    /// A number.
    Numeric,
    /// A boolean.
    Boolean,
    /// Any of them.
    Any,
}

static ATOMIC: ListType = ListType::Atomic;

impl<'a> Type<'a> {
    /// The type of whole objects.
    pub fn root(schema: &'a Schema) -> Type<'a> {
        Type::Of(schema, false)
    }

    /// The type of a reference; preservation of unknown members is not inherited by named types.
    fn behind(reference: &'a SchemaRef, keep: bool) -> Type<'a> {
        Type::Of(reference, keep && matches!(reference, SchemaRef::Inline(_)))
    }

    /// The forms that a value of this type may have.
    pub fn atom(self) -> Atom<'a> {
        let (schema, keep) = match self {
            Type::Of(schema, keep) => (schema, keep || schema.preserve_unknown),
            Type::Deduced => return any(Type::Deduced, Some(Type::Deduced), false),
            Type::Untyped => return any(Type::Untyped, Some(Type::Untyped), true),
        };
        let map = |fields, element| Atom {
            map: Some(Map {
                fields,
                element,
                atomic: schema.atomic_map,
                keep,
            }),
            ..Atom::default()
        };
        match &schema.shape {
            Shape::Struct(members) => {
                let open = keep || schema.open || members.fields.is_empty();
                map(Some(members), open.then_some(Type::Deduced))
            }
            Shape::Map(values) => map(None, Some(Type::behind(values, keep))),
            Shape::List(items) => Atom {
                list: Some(List {
                    element: Type::behind(items, keep),
                    kind: &schema.list,
                }),
                ..Atom::default()
            },
            Shape::Any => {
                let below = if schema.atomic_map {
                    Type::Untyped
                } else {
                    Type::Deduced
                };
                any(Type::Untyped, Some(below), schema.atomic_map)
            }
            Shape::IntOrString | Shape::OneOf(_) => any(Type::Untyped, Some(Type::Deduced), false),
            Shape::String if schema.formatted => scalar(Scalar::Any),
            Shape::String | Shape::Bytes => scalar(Scalar::String),
            Shape::Integer(_) | Shape::Number => scalar(Scalar::Numeric),
            Shape::Boolean => scalar(Scalar::Boolean),
            Shape::Quantity | Shape::Time | Shape::MicroTime => scalar(Scalar::Any),
        }
    }

    /// The allowed forms, narrowed to that of the value if it is allowed. Null and absent values do not narrow it.
    pub fn atom_of(self, value: Option<&Value>) -> Atom<'a> {
        let atom = self.atom();
        match value {
            Some(Value::Object(_)) if atom.map.is_some() => Atom {
                map: atom.map,
                ..Atom::default()
            },
            Some(Value::Array(_)) if atom.list.is_some() => Atom {
                list: atom.list,
                ..Atom::default()
            },
            Some(Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_))
                if atom.scalar.is_some() =>
            {
                scalar_atom(atom.scalar)
            }
            _ => atom,
        }
    }

    /// The form in which a value of this type is walked.
    pub fn form(self, value: Option<&Value>) -> Form<'a> {
        let atom = self.atom_of(value);
        match (atom.map, atom.scalar, atom.list) {
            (Some(map), ..) => Form::Map(map),
            (_, Some(scalar), _) => Form::Scalar(scalar),
            (.., Some(list)) => Form::List(list),
            (None, None, None) => Form::Scalar(Scalar::Any),
        }
    }
}

/// One form of a value.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// An object.
    Map(Map<'a>),
    /// A scalar.
    Scalar(Scalar),
    /// An array.
    List(List<'a>),
}

impl Form<'_> {
    /// Whether both are walked in the same way.
    pub fn is_like(&self, other: &Form<'_>) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

fn scalar(kind: Scalar) -> Atom<'static> {
    scalar_atom(Some(kind))
}

fn scalar_atom(scalar: Option<Scalar>) -> Atom<'static> {
    Atom {
        scalar,
        ..Atom::default()
    }
}

fn any<'a>(item: Type<'a>, member: Option<Type<'a>>, atomic: bool) -> Atom<'a> {
    let item = if matches!(item, Type::Deduced) {
        Type::Untyped
    } else {
        item
    };
    Atom {
        map: Some(Map {
            fields: None,
            element: member,
            atomic,
            keep: false,
        }),
        scalar: Some(Scalar::Any),
        list: Some(List {
            element: item,
            kind: &ATOMIC,
        }),
    }
}

impl<'a> Map<'a> {
    /// Whether the schema names the member.
    pub fn names(&self, name: &str) -> bool {
        self.fields
            .is_some_and(|fields| fields.fields.contains_key(name))
    }

    /// The type of a member; `None` if it is not allowed.
    pub fn member(&self, name: &str) -> Option<Type<'a>> {
        match self.fields.and_then(|fields| fields.fields.get(name)) {
            Some(field) => Some(Type::behind(&field.schema, self.keep)),
            None => self.element,
        }
    }

    /// The type below an element; `None` if the schema does not describe it.
    pub fn at(&self, element: &Element) -> Option<Type<'a>> {
        match element {
            Element::Field(name) => self.member(name),
            _ => self.element,
        }
    }

    /// Whether this is an object about which the schema says nothing.
    pub fn is_deduced(&self) -> bool {
        self.fields.is_none_or(|fields| fields.fields.is_empty())
            && matches!(self.element, Some(Type::Deduced))
    }
}

impl<'a> List<'a> {
    /// Whether it is owned as a whole.
    pub fn is_atomic(&self) -> bool {
        *self.kind == ListType::Atomic
    }

    /// The default for the key `name` of an item without it.
    fn default(&self, name: &str) -> Result<Option<&'a Value>, String> {
        match self.element.atom().map {
            None => Err("associative list may not have non-map types".to_owned()),
            Some(map) => Ok(match map.member(name) {
                Some(Type::Of(schema, _)) if map.names(name) => schema.default.as_ref(),
                _ => None,
            }),
        }
    }

    /// The element that identifies an item.
    ///
    /// # Errors
    /// Items that cannot be identified: null, or without any key.
    pub fn element_of(&self, item: &Value) -> Result<Element, String> {
        let refuse = |why: &str| Err(why.to_owned());
        match (self.kind, item) {
            (ListType::Atomic, _) => refuse("invalid indexing of non-associative list"),
            (ListType::Map(names), Value::Object(members)) => {
                let mut keys: Vec<(Key, Value)> = Vec::with_capacity(names.len());
                for name in names {
                    if let Some(value) = members.get(name) {
                        keys.push((name.clone(), value.clone()));
                    } else if let Some(value) = self
                        .default(name)
                        .map_err(|why| format!("couldn't find default value for {name}: {why}"))?
                    {
                        keys.push((name.clone(), value.clone()));
                    }
                }
                if keys.is_empty() && !names.is_empty() {
                    let names: Vec<String> = names
                        .iter()
                        .map(|name| crate::meta::errors::quoted(name))
                        .collect();
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                        names.join(" ")
                    ));
                }
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                Ok(Element::Key(keys.into()))
            }
            (ListType::Map(_), Value::Null) => {
                refuse("associative list with keys may not have a null element")
            }
            (ListType::Map(_), _) => {
                refuse("associative list with keys may not have non-map elements")
            }
            (ListType::Set, Value::Object(_)) => {
                refuse("associative list without keys has an element that's a map type")
            }
            (ListType::Set, Value::Array(_)) => {
                refuse("not supported: associative list with lists as elements")
            }
            (ListType::Set, Value::Null) => {
                refuse("associative list without keys has an element that's an explicit null")
            }
            (ListType::Set, scalar) => Ok(Element::Value(Box::new(scalar.clone()))),
        }
    }
}
