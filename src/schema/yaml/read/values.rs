//! Nodes to values: merges, aliases and their limits.

use super::super::resolve::Tag;
use super::nodes::{Data, Document, Node};
use super::scalars::{key_text, scalar};
use crate::schema::{Object, Value, json};

/// The share of decoded values that may come from aliases, as in go-yaml.
fn allowed_alias_ratio(decoded: u32) -> f64 {
    const LOW: f64 = 400_000.0;
    const HIGH: f64 = 4_000_000.0;
    let decoded = f64::from(decoded);
    if decoded <= LOW {
        0.99
    } else if decoded >= HIGH {
        0.10
    } else {
        0.99 - 0.89 * ((decoded - LOW) / (HIGH - LOW))
    }
}

/// Limit in bytes for the text that a document may have from aliases: the size of a body.
const MAX_BY_ALIAS: usize = 3 << 20;

const EXCESSIVE: &str = "yaml: document contains excessive aliasing";

/// A value and the tag that it resolved to.
pub(super) type Read = (Tag, Value);

pub(super) struct Reader<'a> {
    pub(super) document: &'a Document,
    pub(super) duplicates: Vec<String>,
    pub(super) decoded: u32,
    pub(super) by_alias: u32,
    /// The text of scalars from aliases, in bytes.
    pub(super) bytes_by_alias: usize,
    pub(super) alias_depth: u32,
    /// Sequences and mappings around the current node.
    pub(super) depth: usize,
    /// Aliases being followed, to detect one that contains itself.
    pub(super) open: Vec<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn node(&mut self, index: usize) -> Result<Read, String> {
        self.count()?;
        match &self.document.nodes[index].data {
            Data::Alias { name, target } => {
                self.enter(index, name)?;
                let value = self.node(*target);
                self.leave();
                value
            }
            Data::Scalar { tag, value, plain } => {
                if self.alias_depth > 0 {
                    self.bytes_by_alias += value.len();
                }
                if self.bytes_by_alias > MAX_BY_ALIAS {
                    return Err(EXCESSIVE.to_owned());
                }
                scalar(tag.as_deref(), value, *plain)
            }
            Data::Sequence(children) => {
                let mut items = Vec::with_capacity(children.len());
                self.descend()?;
                for &child in children {
                    let (_, value) = self.node(child)?;
                    items.push(value);
                }
                self.depth -= 1;
                Ok((Tag::Str, Value::Array(items)))
            }
            Data::Mapping(_) => {
                let mut object = Object::new();
                self.descend()?;
                self.mapping(index, &mut object)?;
                self.depth -= 1;
                Ok((Tag::Str, Value::Object(object)))
            }
        }
    }

    fn count(&mut self) -> Result<(), String> {
        self.decoded += 1;
        if self.alias_depth > 0 {
            self.by_alias += 1;
        }
        let ratio = f64::from(self.by_alias) / f64::from(self.decoded);
        if self.by_alias > 100 && self.decoded > 1000 && ratio > allowed_alias_ratio(self.decoded) {
            return Err(EXCESSIVE.to_owned());
        }
        Ok(())
    }

    /// Enters a sequence or mapping; aliases may add more levels than the text has.
    fn descend(&mut self) -> Result<(), String> {
        self.depth += 1;
        match self.depth > json::MAX_DEPTH {
            true => Err("yaml: exceeded max depth of 10000".to_owned()),
            false => Ok(()),
        }
    }

    fn enter(&mut self, index: usize, name: &str) -> Result<(), String> {
        if self.open.contains(&index) {
            return Err(format!("yaml: anchor '{name}' value contains itself"));
        }
        self.open.push(index);
        self.alias_depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.alias_depth -= 1;
        self.open.pop();
    }

    fn mapping(&mut self, index: usize, object: &mut Object) -> Result<(), String> {
        let document: &'a Document = self.document;
        let Data::Mapping(children) = &document.nodes[index].data else {
            return Ok(());
        };
        for pair in children.chunks_exact(2) {
            let (key_node, value_node) = (&document.nodes[pair[0]], &document.nodes[pair[1]]);
            if is_merge(key_node) {
                self.merge(pair[1], object)?;
                continue;
            }
            let (tag, key) = self.node(pair[0])?;
            let (_, value) = self.node(pair[1])?;
            let (key, shown) = key_text(tag, &key, &value)?;
            if object.insert(key, value).is_some() {
                self.duplicates.push(format!(
                    "line {}: key {shown} already set in map",
                    value_node.line + 1
                ));
            }
        }
        Ok(())
    }

    /// `<<`: merges a mapping, or several, of which the first wins.
    fn merge(&mut self, index: usize, object: &mut Object) -> Result<(), String> {
        const REFUSAL: &str = "yaml: map merge requires map or sequence of maps as the value";
        let document: &'a Document = self.document;
        let nodes = &document.nodes;
        match &nodes[index].data {
            Data::Mapping(_) => {
                self.count()?;
                self.mapping(index, object)
            }
            Data::Alias { name, target } if matches!(nodes[*target].data, Data::Mapping(_)) => {
                self.count()?;
                self.enter(index, name)?;
                self.count()?;
                let merged = self.mapping(*target, object);
                self.leave();
                merged
            }
            Data::Sequence(children) => {
                for &child in children.iter().rev() {
                    match &nodes[child].data {
                        Data::Mapping(_) | Data::Alias { .. } => self.merge(child, object)?,
                        _ => return Err(REFUSAL.to_owned()),
                    }
                }
                Ok(())
            }
            _ => Err(REFUSAL.to_owned()),
        }
    }
}

fn is_merge(node: &Node) -> bool {
    match &node.data {
        Data::Scalar { tag, value, plain } => {
            value == "<<" && (*plain || tag.as_deref() == Some("tag:yaml.org,2002:merge"))
        }
        _ => false,
    }
}
