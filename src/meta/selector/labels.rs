//! Parses label selectors.

use compact_str::CompactString;

use super::super::errors::quoted;
use super::super::names;
use super::{Op, Selector, Term};

/// Splits into operators, brackets, commas and words.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    // Upstream's lexer takes a NUL as the end of the input, or of the word that contains it.
    while let Some(&c) = chars.peek().filter(|c| **c != '\0') {
        if matches!(c, ' ' | '\t' | '\r' | '\n') {
            chars.next();
        } else if matches!(c, '=' | '!' | '<' | '>') {
            let mut token = String::from(c);
            chars.next();
            if matches!(c, '=' | '!') && chars.peek() == Some(&'=') {
                chars.next();
                token.push('=');
            }
            tokens.push(token);
        } else if matches!(c, '(' | ')' | ',') {
            chars.next();
            tokens.push(c.into());
        } else {
            let mut token = String::new();
            while let Some(&c) = chars.peek().filter(|c| {
                !matches!(
                    c,
                    '\0' | ' ' | '\t' | '\r' | '\n' | '=' | '!' | '<' | '>' | '(' | ')' | ','
                )
            }) {
                token.push(c);
                chars.next();
            }
            tokens.push(token);
            chars.next_if_eq(&'\0');
        }
    }
    tokens
}

pub(super) struct Parser {
    pub(super) tokens: Vec<String>,
    pub(super) at: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self) -> String {
        let token = self.peek().to_owned();
        self.at += 1;
        token
    }

    fn is_word(token: &str) -> bool {
        !token.is_empty() && !token.starts_with(['=', '!', '<', '>', '(', ')', ','])
    }

    pub(super) fn selector(mut self) -> Result<Selector, String> {
        let mut terms = Vec::new();
        if self.tokens.is_empty() {
            return Ok(Selector(terms));
        }
        loop {
            let token = self.peek();
            if !Self::is_word(token) && token != "!" {
                return Err(format!(
                    "found '{token}', expected: !, identifier, or 'end of string'"
                ));
            }
            terms.push(
                self.term()
                    .map_err(|error| format!("unable to parse requirement: {error}"))?,
            );
            match self.take().as_str() {
                "" => break,
                "," => {
                    let next = self.peek();
                    if !Self::is_word(next) && next != "!" {
                        return Err(format!("found '{next}', expected: identifier after ','"));
                    }
                }
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector(terms))
    }

    fn term(&mut self) -> Result<Term, String> {
        let negated = self.peek() == "!";
        if negated {
            self.at += 1;
        }
        let key = self.take();
        if !Self::is_word(&key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let bad = |path: &str, value: &str, details: Vec<String>| -> String {
            let errors: Vec<String> = details
                .into_iter()
                .map(|detail| format!("{path}: Invalid value: {}: {detail}", quoted(value)))
                .collect();
            match errors.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            }
        };
        let wrong = names::qualified_name(&key);
        if !wrong.is_empty() {
            return Err(bad("<nil>", &key, vec![wrong.join("; ")]));
        }
        if negated {
            return Ok(Term {
                key: key.into(),
                op: Op::NotExists,
                values: Vec::new(),
            });
        }
        let op = match self.peek() {
            "" | "," => {
                return Ok(Term {
                    key: key.into(),
                    op: Op::Exists,
                    values: Vec::new(),
                });
            }
            "=" | "==" => Op::Equals,
            "!=" => Op::NotEquals,
            "in" => Op::In,
            "notin" => Op::NotIn,
            ">" => Op::Greater,
            "<" => Op::Less,
            other => {
                return Err(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        self.at += 1;
        let mut values: Vec<CompactString> = if matches!(op, Op::In | Op::NotIn) {
            self.set()?
        } else {
            vec![self.exact()?]
        };
        if matches!(op, Op::Greater | Op::Less)
            && let Some(value) = values.iter().find(|value| value.parse::<i64>().is_err())
        {
            return Err(bad(
                "values[0]",
                value,
                vec!["for 'Gt', 'Lt' operators, the value must be an integer".to_owned()],
            ));
        }
        values.sort();
        values.dedup();
        for (i, value) in values.iter().enumerate() {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                return Err(bad(&format!("values[{i}][{key}]"), value, wrong));
            }
        }
        Ok(Term {
            key: key.into(),
            op,
            values,
        })
    }

    fn exact(&mut self) -> Result<CompactString, String> {
        match self.peek() {
            "" | "," => Ok(CompactString::default()),
            token if Self::is_word(token) => Ok(self.take().into()),
            token => Err(format!("found '{token}', expected: identifier")),
        }
    }

    fn set(&mut self) -> Result<Vec<CompactString>, String> {
        let open = self.take();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        match self.peek() {
            ")" => {
                self.at += 1;
                return Ok(vec![CompactString::default()]);
            }
            token if token == "," || Self::is_word(token) => {}
            other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
        }
        // A missing value before, between or after commas is the empty value.
        let mut values = Vec::new();
        let mut pending = true;
        loop {
            let token = self.take();
            match token.as_str() {
                ")" => {
                    if pending {
                        values.push(CompactString::default());
                    }
                    return Ok(values);
                }
                "," => {
                    if pending {
                        values.push(CompactString::default());
                    }
                    pending = true;
                }
                word if Self::is_word(word) && pending => {
                    values.push(word.into());
                    pending = false;
                }
                other => {
                    let expected = if pending {
                        "',', or identifier"
                    } else {
                        "',' or ')'"
                    };
                    return Err(format!("found '{other}', expected: {expected}"));
                }
            }
        }
    }
}
