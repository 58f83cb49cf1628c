//! JSON with ordered members (uids are numbered in that order), and path expressions.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Number;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Json>),
    /// Names are unique.
    Map(Vec<(String, Json)>),
}

impl Json {
    /// A member of a map.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Map(members) = self else {
            return None;
        };
        members
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The value at a path: `.a.b[0].c`, `.a[name=x].b`, `.a['b.c/d']`.
    pub fn pick(&self, expression: &str) -> Option<&Json> {
        parts(expression).try_fold(self, |value, part| match (part, value) {
            (Part::Member(name), value) => value.get(name),
            (Part::Index(index), Json::List(items)) => match index.split_once('=') {
                Some((name, wanted)) => items.iter().find(|item| {
                    item.get(name)
                        .is_some_and(|found| found.to_string() == wanted)
                }),
                None => items.get(index.parse::<usize>().ok()?),
            },
            _ => None,
        })
    }

    /// Replaces the values at a path, in which `*` matches every member or item, with a mark.
    pub fn ignore(&mut self, expression: &str) {
        let parts: Vec<&str> = parts(expression)
            .map(|part| match part {
                Part::Member(text) | Part::Index(text) => text,
            })
            .collect();
        if !parts.is_empty() {
            self.mark(&parts);
        }
    }

    fn mark(&mut self, parts: &[&str]) {
        let Some((first, rest)) = parts.split_first() else {
            *self = Json::Text("<ignored>".to_owned());
            return;
        };
        match self {
            Json::Map(members) => {
                for (name, value) in members {
                    if *first == "*" || first == name {
                        value.mark(rest);
                    }
                }
            }
            Json::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if *first == "*" || *first == index.to_string() {
                        item.mark(rest);
                    }
                }
            }
            _ => {}
        }
    }
}

enum Part<'a> {
    Member(&'a str),
    Index(&'a str),
}

fn parts(expression: &str) -> impl Iterator<Item = Part<'_>> {
    static PART: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\.?([^.\[\]]+)|\[([^\]]*)\]").expect("an expression"));
    PART.captures_iter(expression).map(|found| {
        if let Some(name) = found.get(1) {
            return Part::Member(name.as_str());
        }
        let index = found.get(2).map_or("", |index| index.as_str());
        match index.strip_prefix(['\'', '"']) {
            Some(name) => Part::Member(name.trim_end_matches(['\'', '"'])),
            None => Part::Index(index),
        }
    })
}

/// In the notation of scenario files: strings without quotes, `True`, `False`, and `None` for null.
impl fmt::Display for Json {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => out.write_str("None"),
            Json::Bool(true) => out.write_str("True"),
            Json::Bool(false) => out.write_str("False"),
            Json::Number(number) => number.fmt(out),
            Json::Text(text) => out.write_str(text),
            Json::List(_) | Json::Map(_) => out.write_str(&self.source()),
        }
    }
}

impl Json {
    /// The value as JSON.
    pub fn source(&self) -> String {
        let all = |items: Vec<String>| items.join(", ");
        match self {
            Json::Null => "null".to_owned(),
            Json::Bool(value) => value.to_string(),
            Json::Number(number) => number.to_string(),
            Json::Text(text) => quoted(text),
            Json::List(items) => format!("[{}]", all(items.iter().map(Json::source).collect())),
            Json::Map(members) => {
                let members = members
                    .iter()
                    .map(|(name, value)| format!("{}: {}", quoted(name), value.source()));
                format!("{{{}}}", all(members.collect()))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
            }
            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
                let mut map: Vec<(String, Json)> = Vec::new();
                while let Some((name, value)) = members.next_entry::<String, Json>()? {
                    match map.iter_mut().find(|(known, _)| *known == name) {
                        Some(known) => known.1 = value,
                        None => map.push((name, value)),
                    }
                }
                Ok(Json::Map(map))
            }
        }
        input.deserialize_any(Any)
    }
}
