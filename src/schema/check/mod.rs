//! Validation of values by a custom resource's schema: a tree of checks, compiled once for each version of a
//! CustomResourceDefinition. Follows k8s.io/kube-openapi/pkg/validation/validate in errors, their texts and order.

pub mod formats;
pub mod lists;
mod validate;

use std::sync::OnceLock;

use indexmap::IndexMap;
use regex::Regex;

pub use validate::validate;

use super::{Key, Value};

/// The checks of one node of a schema. `allOf`, `anyOf`, `oneOf` and `not` contain such trees, too.
#[derive(Debug, Default)]
pub struct Check {
    /// Allowed types, as upstream names them; empty allows any.
    pub types: Vec<&'static str>,
    /// `null` is allowed, too.
    pub nullable: bool,
    /// The declared format, and its implementation if known; `None` if the format does not apply to the type.
    pub format: Option<(Box<str>, Option<formats::Format>)>,
    /// Allowed values; empty allows any.
    pub choices: Vec<Value>,
    /// The minimum, and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// The maximum, and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// Numbers must be a multiple of this.
    pub multiple_of: Option<f64>,
    /// The minimum number of characters.
    pub min_length: Option<i64>,
    /// The maximum number of characters.
    pub max_length: Option<i64>,
    /// An expression that must match somewhere in the text.
    pub pattern: Option<Pattern>,
    /// The minimum number of items.
    pub min_items: Option<i64>,
    /// The maximum number of items.
    pub max_items: Option<i64>,
    /// Items must be unique.
    pub unique_items: bool,
    /// The minimum number of members.
    pub min_properties: Option<i64>,
    /// The maximum number of members.
    pub max_properties: Option<i64>,
    /// Required members.
    pub required: Vec<Key>,
    /// `additionalProperties: false`: only the members in `fields` are allowed.
    pub closed: bool,
    /// All of these must hold.
    pub all_of: Vec<Check>,
    /// At least one of these must hold.
    pub any_of: Vec<Check>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Check>,
    /// This must not hold.
    pub not: Option<Box<Check>>,
    /// Checks of members, by name.
    pub fields: IndexMap<Key, Check, foldhash::fast::RandomState>,
    /// Checks of other members.
    pub values: Option<Box<Check>>,
    /// Checks of items.
    pub items: Option<Box<Check>>,
    /// How items of the new list are matched with those of the old one, and what must be unique.
    pub list: super::types::ListType,
}

impl Check {
    /// Compiles a definition's JSON schema. Ignores what a structural schema may not contain.
    pub fn compile(schema: &Value) -> Check {
        Check::build(schema, true)
    }

    /// Like [`Check::compile`], but int-or-string accepts anything, and formats apply as written: upstream validates
    /// defaults this way.
    pub fn compile_single(schema: &Value) -> Check {
        Check::build(schema, false)
    }

    fn build(schema: &Value, unions: bool) -> Check {
        let build = |schema: &Value| Check::build(schema, unions);
        let children = |key: &str| schema.list(key).iter().map(build).collect();
        let boxed = |value: &Value| Some(Box::new(build(value)));
        let types = types(schema, unions);
        Check {
            nullable: schema.bool("nullable"),
            format: format(schema, &types, unions),
            choices: schema.list("enum").to_vec(),
            minimum: number(schema, "minimum").map(|n| (n, schema.bool("exclusiveMinimum"))),
            maximum: number(schema, "maximum").map(|n| (n, schema.bool("exclusiveMaximum"))),
            multiple_of: number(schema, "multipleOf"),
            min_length: schema.at("minLength").as_int(),
            max_length: schema.at("maxLength").as_int(),
            pattern: Some(schema.str("pattern"))
                .filter(|pattern| !pattern.is_empty())
                .map(|pattern| Pattern {
                    text: pattern.into(),
                    compiled: OnceLock::new(),
                }),
            min_items: schema.at("minItems").as_int(),
            max_items: schema.at("maxItems").as_int(),
            unique_items: schema.bool("uniqueItems"),
            min_properties: schema.at("minProperties").as_int(),
            max_properties: schema.at("maxProperties").as_int(),
            required: super::structural::keys(schema.at("required")),
            closed: schema.at("additionalProperties") == &Value::Bool(false),
            all_of: children("allOf"),
            any_of: children("anyOf"),
            one_of: children("oneOf"),
            not: schema.get("not").and_then(boxed),
            fields: schema
                .entries("properties")
                .map(|(name, property)| (name.clone(), build(property)))
                .collect(),
            values: schema
                .get("additionalProperties")
                .filter(|value| value.as_object().is_some())
                .and_then(boxed),
            items: schema.get("items").and_then(boxed),
            list: super::structural::list_type(schema),
            types,
        }
    }
}

/// An expression, compiled at first use: most definitions have few objects or none, and compiled expressions are
/// large.
#[derive(Debug)]
pub struct Pattern {
    /// As declared.
    pub text: Box<str>,
    compiled: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    /// Whether the expression matches somewhere in `text`.
    ///
    /// # Errors
    /// Why it cannot be compiled.
    pub fn is_found(&self, text: &str) -> Result<bool, &str> {
        let compile = || crate::meta::regexp::compile(&self.text);
        match self.compiled.get_or_init(compile) {
            Ok(regex) => Ok(regex.is_match(text)),
            Err(why) => Err(why),
        }
    }
}

/// The names of the types that a schema allows.
fn types(schema: &Value, unions: bool) -> Vec<&'static str> {
    if unions && schema.bool("x-kubernetes-int-or-string") {
        return vec!["integer", "string"];
    }
    const KNOWN: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    KNOWN
        .into_iter()
        .filter(|known| *known == schema.str("type"))
        .collect()
}

/// The format, unless it is unknown for the type and only `recognized` ones apply.
fn format(
    schema: &Value,
    types: &[&str],
    recognized: bool,
) -> Option<(Box<str>, Option<formats::Format>)> {
    let name = schema.str("format");
    if name.is_empty() || (recognized && !formats::recognized(name, types)) {
        return None;
    }
    Some((name.into(), formats::Format::named(name)))
}

fn number(schema: &Value, key: &str) -> Option<f64> {
    match schema.at(key) {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}
