//! Walks values along a path.

use std::cmp::Ordering;

use super::{Node, Slice};
use crate::schema::Value;

/// How many values a path may find: each repeated `..` multiplies them by the depth.
const MOST: usize = 1_000_000;

pub(super) fn walk<'a>(
    mut found: Vec<&'a Value>,
    nodes: &'a [Node],
) -> Result<Vec<&'a Value>, String> {
    for node in nodes {
        found = step(found, node)?;
        if found.len() > MOST {
            return Err(format!("more than {MOST} values"));
        }
    }
    Ok(found)
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

fn step<'a>(input: Vec<&'a Value>, node: &'a Node) -> Result<Vec<&'a Value>, String> {
    match node {
        Node::Literal(value) => Ok(input.iter().map(|_| value).collect()),
        Node::Field(name) => Ok(input
            .into_iter()
            .filter_map(|value| value.as_object()?.get(name))
            .collect()),
        Node::Wildcard => Ok(input
            .into_iter()
            .flat_map(children)
            .take(MOST + 1)
            .collect()),
        Node::Recursive => Ok(recursive(input)),
        Node::Slice(slice) => {
            let mut out = Vec::new();
            for value in input.into_iter().filter(|value| !value.is_null()) {
                let items = value
                    .as_array()
                    .ok_or_else(|| format!("{} is not array or slice", value.type_name()))?;
                out.extend(sliced(items, *slice)?);
                if out.len() > MOST {
                    break;
                }
            }
            Ok(out)
        }
        Node::Union(branches) => {
            let mut out = Vec::new();
            for branch in branches {
                out.extend(walk(input.clone(), branch)?);
                if out.len() > MOST {
                    break;
                }
            }
            Ok(out)
        }
        Node::Filter {
            left,
            right,
            operator,
        } => {
            let mut out = Vec::new();
            for value in input {
                let items = value.as_array().ok_or_else(|| {
                    format!(
                        "{} is not array or slice and cannot be filtered",
                        value.type_name()
                    )
                })?;
                if out.len() > MOST {
                    break;
                }
                for item in items {
                    if passes(item, left, right, operator)? {
                        out.push(item);
                    }
                }
            }
            Ok(out)
        }
        Node::Word(word) => Err(format!("unrecognized identifier {word}")),
    }
}

/// The values, each followed by all below it; those without children are left out.
fn recursive(mut input: Vec<&Value>) -> Vec<&Value> {
    let mut out = Vec::new();
    input.reverse();
    while let Some(value) = input.pop()
        && out.len() <= MOST
    {
        let below = children(value);
        if !below.is_empty() {
            out.push(value);
            input.extend(below.into_iter().rev());
        }
    }
    out
}

fn sliced(items: &[Value], slice: Slice) -> Result<Vec<&Value>, String> {
    let length = items.len() as i64;
    let mut from = slice.from.unwrap_or(0);
    if from < 0 {
        from += length;
    }
    let mut to = slice.to.unwrap_or(length);
    if to < 0 || (to == 0 && slice.single) {
        to += length;
    }
    if to == from {
        return Ok(Vec::new());
    }
    let out_of_bounds =
        |index: i64| format!("array index out of bounds: index {index}, length {length}");
    if from >= length || from < 0 {
        return Err(out_of_bounds(from));
    }
    if to > length || to < 0 {
        return Err(out_of_bounds(to - 1));
    }
    if from > to {
        return Err(format!(
            "starting index {from} is greater than ending index {to}"
        ));
    }
    let step = match slice.step {
        Some(step) if step <= 0 => return Err("step must be > 0".to_owned()),
        step => usize::try_from(step.unwrap_or(1)).unwrap_or(1),
    };
    Ok(items[from as usize..to as usize]
        .iter()
        .step_by(step)
        .collect())
}

fn passes(item: &Value, left: &[Node], right: &[Node], operator: &str) -> Result<bool, String> {
    let lefts = walk(vec![item], left);
    if operator == "exists" {
        return Ok(lefts.is_ok_and(|found| !found.is_empty()));
    }
    let one = |found: Vec<&Value>| match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        _ => Err("can only compare one element at a time".to_owned()),
    };
    let Some(left) = one(lefts?)? else {
        return Ok(false);
    };
    let Some(right) = one(walk(vec![item], right)?)? else {
        return Ok(false);
    };
    let order = match (&left, &right) {
        (Value::Bool(a), Value::Bool(b)) if matches!(operator, "==" | "!=") => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Null | Value::Array(_) | Value::Object(_), _)
        | (_, Value::Null | Value::Array(_) | Value::Object(_)) => {
            return Err("invalid type for comparison".to_owned());
        }
        _ => return Err("incompatible types for comparison".to_owned()),
    };
    match operator {
        "<" => Ok(order.is_lt()),
        ">" => Ok(order.is_gt()),
        "==" => Ok(order.is_eq()),
        "!=" => Ok(order.is_ne()),
        "<=" => Ok(order.is_le()),
        ">=" => Ok(order.is_ge()),
        other => Err(format!("unrecognized filter operator {other}")),
    }
}
