//! Label and field selectors: parsing and matching. Follows k8s.io/apimachinery/pkg/labels and fields
//! for the grammar and its errors.

mod fields;
mod labels;

use compact_str::CompactString;

use self::labels::{Parser, tokens};
use super::errors::quoted;
use crate::schema::Value;

pub use self::fields::parse_fields;

/// How a term compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`, `==`
    Equals,
    /// `!=`
    NotEquals,
    /// `in (...)`
    In,
    /// `notin (...)`
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    NotExists,
    /// `>`
    Greater,
    /// `<`
    Less,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// The label or field to compare.
    pub key: CompactString,
    /// The operator.
    pub op: Op,
    /// The operands; sorted.
    pub values: Vec<CompactString>,
}

/// A conjunction of terms; an empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(pub Vec<Term>);

impl Selector {
    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that a field must have to be selected; `None` if several are possible.
    pub fn exact(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|term| term.key == key && term.op == Op::Equals)
            .and_then(|term| term.values.first())
            .map(CompactString::as_str)
    }

    /// Whether all terms match; `get` looks up a key.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|term| {
            let value = get(&term.key);
            let among = |value: &str| term.values.iter().any(|v| v == value);
            match term.op {
                Op::Equals | Op::In => value.is_some_and(among),
                Op::NotEquals | Op::NotIn => value.is_none_or(|value| !among(value)),
                Op::Exists => value.is_some(),
                Op::NotExists => value.is_none(),
                Op::Greater | Op::Less => {
                    let bound = term
                        .values
                        .first()
                        .and_then(|bound| bound.parse::<i64>().ok());
                    match (value.and_then(|value| value.parse::<i64>().ok()), bound) {
                        (Some(value), Some(bound)) => {
                            if term.op == Op::Greater {
                                value > bound
                            } else {
                                value < bound
                            }
                        }
                        _ => false,
                    }
                }
            }
        })
    }

    /// Whether all terms match these sorted pairs.
    pub fn matches_pairs(&self, pairs: &[(CompactString, CompactString)]) -> bool {
        self.is_empty()
            || self.matches(|key| {
                pairs
                    .binary_search_by(|(k, _)| k.as_str().cmp(key))
                    .ok()
                    .and_then(|i| pairs.get(i))
                    .map(|(_, value)| value.as_str())
            })
    }

    /// Parses a label selector: `app=web,tier in (a,b),!canary`.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn parse(text: &str) -> Result<Selector, String> {
        Parser {
            tokens: tokens(text),
            at: 0,
        }
        .selector()
    }

    /// The selector of a LabelSelector object (`matchLabels`, `matchExpressions`).
    ///
    /// # Errors
    /// `"X" is not a valid label selector operator`
    pub fn from_object(selector: &Value) -> Result<Selector, String> {
        let mut terms: Vec<Term> = selector
            .entries("matchLabels")
            .map(|(key, value)| Term {
                key: key.clone(),
                op: Op::Equals,
                values: vec![value.as_str().unwrap_or_default().into()],
            })
            .collect();
        for expression in selector.list("matchExpressions") {
            let op = match expression.str("operator") {
                "In" => Op::In,
                "NotIn" => Op::NotIn,
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::NotExists,
                other => {
                    return Err(format!(
                        "{} is not a valid label selector operator",
                        quoted(other)
                    ));
                }
            };
            let mut values: Vec<CompactString> = expression
                .list("values")
                .iter()
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect();
            values.sort();
            terms.push(Term {
                key: expression.str("key").into(),
                op,
                values,
            });
        }
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector(terms))
    }
}

impl std::fmt::Display for Selector {
    /// Prints it like upstream: `app in (x,y),!b`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, term) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let values = term.values.join(",");
            match term.op {
                Op::Equals => write!(f, "{}={values}", term.key)?,
                Op::NotEquals => write!(f, "{}!={values}", term.key)?,
                Op::In => write!(f, "{} in ({values})", term.key)?,
                Op::NotIn => write!(f, "{} notin ({values})", term.key)?,
                Op::Exists => write!(f, "{}", term.key)?,
                Op::NotExists => write!(f, "!{}", term.key)?,
                Op::Greater => write!(f, "{}>{values}", term.key)?,
                Op::Less => write!(f, "{}<{values}", term.key)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_read_printed_and_matched() {
        let labels: [(CompactString, CompactString); 2] =
            [("a".into(), "x".into()), ("n".into(), "5".into())];
        for (text, printed, matches) in [
            ("a=x", "a=x", true),
            ("a==x, n", "a=x,n", true),
            ("a != x", "a!=x", false),
            ("b!=x", "b!=x", true),
            ("a in (y, x)", "a in (x,y)", true),
            ("b notin (x)", "b notin (x)", true),
            ("!b,n>4", "!b,n>4", true),
            ("n<5", "n<5", false),
            ("a in ()", "a in ()", false),
            ("", "", true),
        ] {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(
                (
                    selector.to_string().as_str(),
                    selector.matches_pairs(&labels)
                ),
                (printed, matches),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_selectors_are_refused_in_upstreams_words() {
        for (text, error) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "a in (",
                "unable to parse requirement: found '', expected: ',', ')' or identifier",
            ),
            (
                "a in (b,",
                "unable to parse requirement: found '', expected: ',', or identifier",
            ),
            ("a,,b", "found ',', expected: identifier after ','"),
            (
                "=a",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn field_selectors_unescape() {
        assert_eq!(
            parse_fields(r"a=b\,c\=d\\").unwrap().0[0].values[0],
            r"b,c=d\"
        );
        assert_eq!(
            parse_fields("metadata.name").unwrap_err(),
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'"
        );
        assert_eq!(
            parse_fields("a=b=c").unwrap_err(),
            "invalid field selector: unescaped character in value: 61"
        );
    }
}
