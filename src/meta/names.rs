//! Name formats: each check returns what is wrong in upstream's words, or nothing.
//! Follows k8s.io/apimachinery/pkg/util/validation and pkg/api/validate/content.

mod content;
mod generated;
mod keys;
mod numbers;

pub use self::content::{
    c_identifier, config_map_key, env_name, http_header, http_path, not_asked_for, path_segment,
    path_segment_prefix, relaxed_env_name,
};
pub use self::generated::{chance, generated, new_uid, random};
pub use self::keys::{label_value, prefixed_label_key, qualified_name};
pub use self::numbers::{
    decimal_integer, group_id, in_range, percent, percentage, port_name, port_number, range_error,
    user_id,
};

/// What is wrong with a text; empty if it is valid.
pub type Wrong = Vec<String>;

/// The longest label, in bytes.
pub const LABEL_MAX: usize = 63;
/// The longest subdomain, in bytes.
pub const SUBDOMAIN_MAX: usize = 253;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

/// `TEXT (e.g. 'A', or 'B', regex used for validation is 'R')`, as upstream's RegexError.
pub fn regex_error(text: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{text} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

/// `must be no more than N characters`.
pub fn max_length(n: usize) -> String {
    format!("must be no more than {n} characters")
}

/// `must be no more than N bytes`: the text of the checks in pkg/api/validate/content.
fn max_bytes(n: usize) -> String {
    format!("must be no more than {n} bytes")
}

/// Whether the first and last bytes satisfy `end`, and those between them `inner`.
fn framed(value: &str, end: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match value.as_bytes() {
        [] => false,
        [one] => end(*one),
        [first, middle @ .., last] => end(*first) && end(*last) && middle.iter().all(|&b| inner(b)),
    }
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn label_form(value: &str) -> bool {
    framed(value, lower, |b| lower(b) || b == b'-')
}

fn subdomain_form(value: &str) -> bool {
    value.split('.').all(label_form)
}

fn label(value: &str, too_long: fn(usize) -> String) -> Wrong {
    const TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
    let mut wrong = Wrong::new();
    if value.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !label_form(value) {
        wrong.push(if subdomain_form(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(TEXT, DNS1123_LABEL, &["my-name", "123-abc"])
        });
    }
    wrong
}

fn subdomain(value: &str, too_long: fn(usize) -> String) -> Wrong {
    let mut wrong = Wrong::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    if !subdomain_form(value) {
        wrong.push(regex_error(
            SUBDOMAIN_TEXT,
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    wrong
}

/// A DNS label (RFC 1123): IsDNS1123Label.
pub fn dns1123_label(value: &str) -> Wrong {
    label(value, max_length)
}

/// A DNS subdomain (RFC 1123): IsDNS1123Subdomain.
pub fn dns1123_subdomain(value: &str) -> Wrong {
    subdomain(value, max_length)
}

/// Like [`dns1123_label`], in the words of declarative validation (`k8s-short-name`).
pub fn short_name(value: &str) -> Wrong {
    label(value, max_bytes)
}

/// Like [`dns1123_subdomain`], in the words of declarative validation (`k8s-long-name`).
pub fn long_name(value: &str) -> Wrong {
    subdomain(value, max_bytes)
}

/// A subdomain in any case (`k8s-long-name-caseless`): IsDNS1123SubdomainCaseless.
pub fn long_name_caseless(value: &str) -> Wrong {
    const TEXT: &str = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
    let mut wrong = Wrong::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_bytes(SUBDOMAIN_MAX));
    }
    if !subdomain_form(&value.to_ascii_lowercase()) {
        wrong.push(regex_error(TEXT, DNS1123_SUBDOMAIN, &["Example.com"]));
    }
    wrong
}

/// A subdomain that may contain underscores: IsDNS1123SubdomainWithUnderscore.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Wrong {
    const TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
    const REGEX: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    let mut wrong = Wrong::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_length(SUBDOMAIN_MAX));
    }
    let form = |label: &str| {
        framed(label.strip_prefix('_').unwrap_or(label), lower, |b| {
            lower(b) || matches!(b, b'-' | b'_')
        })
    };
    if !value.split('.').all(form) {
        wrong.push(regex_error(TEXT, REGEX, &["example.com"]));
    }
    wrong
}

/// A DNS label that begins with a letter (RFC 1035): IsDNS1035Label.
pub fn dns1035_label(value: &str) -> Wrong {
    const TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
    let mut wrong = Wrong::new();
    if value.len() > LABEL_MAX {
        wrong.push(max_length(LABEL_MAX));
    }
    if !(label_form(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        wrong.push(regex_error(
            TEXT,
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

/// `*.` and a subdomain: IsWildcardDNS1123Subdomain.
pub fn wildcard_dns1123_subdomain(value: &str) -> Wrong {
    const TEXT: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    let mut wrong = Wrong::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_length(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(subdomain_form) {
        wrong.push(regex_error(
            TEXT,
            &format!("\\*\\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    wrong
}

/// A `generateName` prefix as its checks see it: a trailing dash and the character before it are replaced with an `a`,
/// like upstream's maskTrailingDash.
pub fn mask_trailing_dash(prefix: &str) -> String {
    if prefix.len() < 2 || !prefix.ends_with('-') {
        return prefix.to_owned();
    }
    let kept = &prefix.as_bytes()[..prefix.len() - 2];
    format!("{}a", String::from_utf8_lossy(kept))
}

/// The rule for most names: a DNS subdomain; of a prefix (`generateName`) only what can be checked.
pub fn subdomain_name(name: &str, prefix: bool) -> Vec<String> {
    if prefix {
        dns1123_subdomain(&mask_trailing_dash(name))
    } else {
        dns1123_subdomain(name)
    }
}

/// Names that must be DNS labels: upstream's NameIsDNSLabel.
pub fn label_name(name: &str, prefix: bool) -> Vec<String> {
    if prefix {
        dns1123_label(&mask_trailing_dash(name))
    } else {
        dns1123_label(name)
    }
}

#[cfg(test)]
mod tests;
