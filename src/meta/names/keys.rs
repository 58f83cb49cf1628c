//! Keys and values of labels and annotations.

use super::{LABEL_MAX, Wrong, framed, long_name, max_bytes, regex_error};

const KEY_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn key_form(value: &str) -> bool {
    framed(
        value,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
}

/// A label key: a name, optionally prefixed with a subdomain and a slash: IsQualifiedName.
pub fn qualified_name(value: &str) -> Wrong {
    let examples = &["MyName", "my.name", "123-abc"];
    let mut wrong = Wrong::new();
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(
                    long_name(prefix)
                        .into_iter()
                        .map(|text| format!("prefix part {text}")),
                );
            }
            name
        }
        _ => {
            let text = regex_error(KEY_TEXT, KEY, examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part {}", max_bytes(LABEL_MAX)));
    }
    if !key_form(name) {
        wrong.push(format!(
            "name part {}",
            regex_error(KEY_TEXT, KEY, examples)
        ));
    }
    wrong
}

/// A label key with a prefix: IsPrefixedLabelKey.
pub fn prefixed_label_key(value: &str) -> Wrong {
    let wrong = qualified_name(value);
    if wrong.is_empty() && !value.contains('/') {
        return vec!["must include a prefix (e.g. 'example.com/key')".to_owned()];
    }
    wrong
}

/// A label's value: IsValidLabelValue.
pub fn label_value(value: &str) -> Wrong {
    const TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let mut wrong = Wrong::new();
    if value.len() > LABEL_MAX {
        wrong.push(max_bytes(LABEL_MAX));
    }
    if !value.is_empty() && !key_form(value) {
        wrong.push(regex_error(
            TEXT,
            &format!("({KEY})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}
