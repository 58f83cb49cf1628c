//! Names within objects: environment variables, keys of config maps, headers and paths.

use super::{SUBDOMAIN_MAX, Wrong, max_length, regex_error};

/// A path segment: IsPathSegmentName.
pub fn path_segment(value: &str) -> Wrong {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        _ => path_segment_prefix(value),
    }
}

/// The prefix of a path segment: IsPathSegmentPrefix.
pub fn path_segment_prefix(value: &str) -> Wrong {
    ["/", "%"]
        .iter()
        .filter(|part| value.contains(*part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// The error with which client-go rejects an object name before it sends a request; `None` if the name is valid.
pub fn not_asked_for(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("resource name may not be empty".to_owned());
    }
    let wrong = path_segment(name);
    (!wrong.is_empty()).then(|| format!("invalid resource name \"{name}\": [{}]", wrong.join(" ")))
}

/// A C identifier: IsCIdentifier.
pub fn c_identifier(value: &str) -> Wrong {
    const TEXT: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    let form = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if form {
        Wrong::new()
    } else {
        vec![regex_error(
            TEXT,
            "[A-Za-z_][A-Za-z0-9_]*",
            &["my_name", "MY_NAME", "MyName"],
        )]
    }
}

/// The name of an HTTP header: IsHTTPHeaderName.
pub fn http_header(value: &str) -> Wrong {
    const TEXT: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
    let form = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if form {
        Wrong::new()
    } else {
        vec![regex_error(TEXT, "[-A-Za-z0-9]+", &["X-Header-Name"])]
    }
}

fn no_parent(value: &str) -> Option<String> {
    match value {
        "." | ".." => Some(format!("must not be '{value}'")),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of an environment variable in the older, strict form: IsEnvVarName.
pub fn env_name(value: &str) -> Wrong {
    const TEXT: &str = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit";
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let mut wrong = Wrong::new();
    if value.is_empty() || value.as_bytes()[0].is_ascii_digit() || !value.bytes().all(inner) {
        wrong.push(regex_error(
            TEXT,
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    wrong.extend(no_parent(value));
    wrong
}

/// The name of an environment variable: IsRelaxedEnvVarName.
pub fn relaxed_env_name(value: &str) -> Wrong {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value
        .bytes()
        .all(|b| (0x20..0x7f).contains(&b) && b != b'=')
    {
        return Wrong::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// A key of a ConfigMap or Secret: IsConfigMapKey.
pub fn config_map_key(value: &str) -> Wrong {
    const TEXT: &str =
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
    let mut wrong = Wrong::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_length(SUBDOMAIN_MAX));
    }
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        wrong.push(regex_error(
            TEXT,
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    wrong.extend(no_parent(value));
    wrong
}

/// The path after the slash of a domain-prefixed path: characters of an HTTP path.
pub fn http_path(value: &str) -> Wrong {
    const REGEX: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let form = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b));
    if form {
        Wrong::new()
    } else {
        vec![regex_error("Invalid path", REGEX, &[])]
    }
}
