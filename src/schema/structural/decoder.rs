//! Walks an object with its schema: prunes, drops nulls, sets defaults.

use std::fmt;

use super::super::types::{ListType, Schema, Shape};
use super::super::{Key, Object, Value};
use super::Options;
use super::frame::metadata;
use crate::meta::budget::Budget;
use crate::meta::errors::{FieldError, Reason, shown};

/// The context of a node.
#[derive(Clone, Copy, Default)]
pub(super) struct Mode {
    /// It is the object itself.
    pub(super) root: bool,
    /// A list was reached through a node that preserves unknown members: its items do so, too, down to the next named
    /// member.
    pub(super) keeping: bool,
}

pub(super) enum Step {
    Field(Key),
    Key(Key),
    Index(usize),
}

#[derive(Default)]
pub(super) struct Decoder {
    pub(super) options: Options,
    pub(super) path: Vec<Step>,
    pub(super) unknown: Vec<String>,
    pub(super) embedded_unknown: Vec<String>,
    /// How many of the unknown members are reported.
    pub(super) budget: Budget,
    pub(super) error: Option<FieldError>,
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
    merge: super::super::types::Merge {
        merge: false,
        retain_keys: false,
        replace: false,
        key: None,
    },
};

impl Decoder {
    pub(super) fn node(&mut self, value: &mut Value, schema: &Schema, mode: Mode) {
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

    pub(super) fn object(&mut self, members: &mut Object, schema: &Schema, mode: Mode) {
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
    pub(super) fn embedded(&mut self, members: &mut Object) {
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
