//! Writes YAML: sorted keys, block style, two spaces of indentation, lists at the level of their key, and quotes
//! around text that would be read as something else.

use std::cmp::Ordering;

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};

use super::resolve::{Tag, is_base60, resolve};
use crate::schema::{Object, Value};

/// A value as YAML, as printed by `Marshal` of `sigs.k8s.io/yaml`. Ends in a line feed.
pub fn write(value: &Value) -> String {
    let mut out = Vec::new();
    let mut writer = Writer {
        emitter: Emitter::new(),
        failed: false,
    };
    writer.emitter.set_output_string(&mut out);
    writer.emitter.set_unicode(true);
    writer.emit(Event::stream_start(Encoding::Utf8));
    writer.emit(Event::document_start(None, &[], true));
    writer.value(value);
    writer.emit(Event::document_end(true));
    writer.emit(Event::stream_end());
    let _ = writer.emitter.flush();
    debug_assert!(
        !writer.failed,
        "the events of a value are well formed and memory does not refuse them"
    );
    drop(writer);
    String::from_utf8(out).unwrap_or_default()
}

struct Writer<'a> {
    emitter: Emitter<'a>,
    failed: bool,
}

impl Writer<'_> {
    fn emit(&mut self, event: Event) {
        self.failed |= self.emitter.emit(event).is_err();
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle) {
        self.emit(Event::scalar(None, None, text, true, true, style));
    }

    fn text(&mut self, text: &str) {
        let style = if text.contains('\n') {
            ScalarStyle::Literal
        } else if resolve(text).0 == Tag::Str && !is_base60(text) {
            ScalarStyle::Plain
        } else {
            ScalarStyle::DoubleQuoted
        };
        self.scalar(text, style);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.scalar("null", ScalarStyle::Plain),
            Value::Bool(true) => self.scalar("true", ScalarStyle::Plain),
            Value::Bool(false) => self.scalar("false", ScalarStyle::Plain),
            Value::Int(number) => self.scalar(&number.to_string(), ScalarStyle::Plain),
            Value::Float(number) => {
                let whole = number.fract() == 0.0 && number.abs() < 18_446_744_073_709_551_616.0;
                let text = if whole {
                    format!("{number:.0}")
                } else {
                    shortest(*number, 6)
                };
                self.scalar(if text == "-0" { "0" } else { &text }, ScalarStyle::Plain);
            }
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.emit(Event::sequence_start(
                    None,
                    None,
                    true,
                    SequenceStyle::Block,
                ));
                for item in items {
                    self.value(item);
                }
                self.emit(Event::sequence_end());
            }
            Value::Object(object) => self.object(object),
        }
    }

    fn object(&mut self, object: &Object) {
        self.emit(Event::mapping_start(None, None, true, MappingStyle::Block));
        let mut members: Vec<_> = object.iter().collect();
        members.sort_by(|(a, _), (b, _)| natural(a, b));
        for (key, value) in members {
            self.text(key);
            self.value(value);
        }
        self.emit(Event::mapping_end());
    }
}

/// go-yaml's order of keys: letters after everything else, runs of digits as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let digits = |text: &[char], from: usize| {
        text[from..]
            .iter()
            .take_while(|c| c.is_ascii_digit())
            .count()
    };
    for i in 0..a.len().min(b.len()) {
        let (x, y) = (a[i], b[i]);
        if x == y {
            continue;
        }
        match (x.is_alphabetic(), y.is_alphabetic()) {
            (true, true) => return x.cmp(&y),
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => {}
        }
        let mut start: i64 = 0;
        if x == '0' || y == '0' {
            let before = a[..i].iter().rev().take_while(|c| c.is_ascii_digit());
            start = i64::from(before.into_iter().any(|&c| c != '0'));
        }
        let (x_end, y_end) = (i + digits(&a, i), i + digits(&b, i));
        let number = |text: &[char]| {
            text.iter().fold(start, |n, &c| {
                n.wrapping_mul(10).wrapping_add(i64::from(c as u32) - 48)
            })
        };
        return number(&a[i..x_end])
            .cmp(&number(&b[i..y_end]))
            .then(x_end.cmp(&y_end))
            .then(x.cmp(&y));
    }
    a.len().cmp(&b.len())
}

/// A number with the fewest digits, like Go's `FormatFloat(number, 'g', -1, …)`: with an exponent below 1e-4 and from
/// `1e{limit}` on (6; 21 as printed by `fmt`). Infinities and NaN in YAML's spelling.
pub(super) fn shortest(number: f64, limit: i32) -> String {
    if number.is_nan() {
        return ".nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{number}")
}
