//! Name formats: each check returns what is wrong in upstream's words, or nothing.
//! Follows k8s.io/apimachinery/pkg/util/validation and pkg/api/validate/content.

/// What is wrong with a text; empty if it is valid.
pub type Wrong = Vec<String>;

/// The longest label, in bytes.
pub const LABEL_MAX: usize = 63;
/// The longest subdomain, in bytes.
pub const SUBDOMAIN_MAX: usize = 253;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const KEY_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

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

/// `must be between A and B, inclusive`.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
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

fn key_form(value: &str) -> bool {
    framed(
        value,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
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

/// A decimal integer in canonical form: IsDecimalInteger.
pub fn decimal_integer(value: &str) -> Wrong {
    let wrong = || vec!["must be a valid decimal integer in canonical form".to_owned()];
    if value.is_empty() {
        return vec!["must be non-empty".to_owned()];
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    match digits.as_bytes() {
        [b'0'] if digits.len() == value.len() => Wrong::new(),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => Wrong::new(),
        _ => wrong(),
    }
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

/// A port number: IsValidPortNum.
pub fn port_number(port: i64) -> Wrong {
    in_range(port, 1, 65535)
}

/// A number within bounds: IsInRange.
pub fn in_range(value: i64, low: i64, high: i64) -> Wrong {
    if (low..=high).contains(&value) {
        Wrong::new()
    } else {
        vec![range_error(low, high)]
    }
}

/// A user ID: IsValidUserID.
pub fn user_id(id: i64) -> Wrong {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A group ID: IsValidGroupID.
pub fn group_id(id: i64) -> Wrong {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A port name (RFC 6335): IsValidPortName.
pub fn port_name(value: &str) -> Wrong {
    let mut wrong = Wrong::new();
    if value.len() > 15 {
        wrong.push(max_length(15));
    }
    if value.is_empty() || !value.bytes().all(|b| lower(b) || b == b'-') {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// A percentage: IsValidPercent.
pub fn percent(value: &str) -> Wrong {
    const TEXT: &str = "a valid percent string must be a numeric string followed by an ending '%'";
    let form = value
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if form {
        Wrong::new()
    } else {
        vec![regex_error(TEXT, "[0-9]+%", &["1%", "93%"])]
    }
}

/// The number of a percentage, capped at `i64::MAX`; `None` if the text is not a percentage.
pub fn percentage(value: &str) -> Option<i64> {
    let digits = value
        .strip_suffix('%')
        .filter(|_| percent(value).is_empty())?;
    Some(digits.parse().unwrap_or(i64::MAX))
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

/// Alphabet of generated names: no vowels, so that no words come out.
const SUFFIX: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Fills `bytes` with unpredictable random bytes from the operating system.
///
/// # Panics
/// If the system provides none: uids would collide, and the IDs of DNS queries could be guessed.
pub fn random(bytes: &mut [u8]) {
    use ring::rand::SecureRandom as _;
    let filled = ring::rand::SystemRandom::new().fill(bytes);
    // Once seeded, the kernel's generator never fails; until then the call blocks.
    filled.expect("random bytes from the operating system");
}

/// An unpredictable number from 0 to 1, such as for jitter.
pub fn chance() -> f64 {
    let mut bytes = [0; 4];
    random(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

/// A new uid: a random UUID.
pub fn new_uid() -> String {
    let mut b = [0u8; 16];
    random(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    // Called for each request: allocates nothing but the text.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (i, byte) in b.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for half in [byte >> 4, byte & 0x0f] {
            text.push(char::from(DIGITS[usize::from(half)]));
        }
    }
    text
}

/// A name generated from a prefix, which is cut so that five random characters fit.
pub fn generated(prefix: &str) -> String {
    let mut bytes = [0u8; 5];
    random(&mut bytes);
    let mut end = prefix.len().min(58);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let suffix: String = bytes
        .iter()
        .map(|byte| char::from(SUFFIX[usize::from(*byte) % SUFFIX.len()]))
        .collect();
    format!("{}{suffix}", &prefix[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_have_nothing_wrong() {
        for name in ["a", "0", "a-b", "a--1", "123-abc"] {
            assert!(
                dns1123_label(name).is_empty() && dns1123_subdomain(name).is_empty(),
                "{name}"
            );
        }
        assert!(dns1123_subdomain("a.b-c.0").is_empty());
        assert!(qualified_name("example.com/My.Name_1").is_empty());
        assert!(label_value("").is_empty());
        assert!(wildcard_dns1123_subdomain("*.bar.com").is_empty());
        assert!(dns1123_subdomain_with_underscore("_tcp.a_b.c").is_empty());
        assert!(port_name("a-1").is_empty());
        assert!(percent("10%").is_empty());
        assert!(config_map_key("a.b_c-D").is_empty());
        assert!(relaxed_env_name("a b{").is_empty());
        assert!(decimal_integer("-10").is_empty() && decimal_integer("0").is_empty());
    }

    #[test]
    fn bad_names_are_told_in_upstreams_words() {
        let only = |wrong: Wrong| wrong.join("|");
        assert_eq!(only(dns1123_label("a.b")), "must not contain dots");
        assert_eq!(
            only(dns1123_label("A")),
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        );
        assert_eq!(
            only(dns1123_label(&"a".repeat(64))),
            "must be no more than 63 characters"
        );
        assert_eq!(
            only(qualified_name("-a")),
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        );
        assert_eq!(qualified_name("/").len(), 3);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(
            only(label_value(&"a".repeat(64))),
            "must be no more than 63 bytes"
        );
        assert_eq!(
            only(path_segment("a/b%")),
            "may not contain '/'|may not contain '%'"
        );
        assert_eq!(only(path_segment("..")), "may not be '..'");
        assert_eq!(port_name("").len(), 2);
        assert_eq!(
            only(port_name("a--b")),
            "must not contain consecutive hyphens"
        );
        assert_eq!(
            only(port_number(0)),
            "must be between 1 and 65535, inclusive"
        );
        assert_eq!(only(config_map_key("..a")), "must not start with '..'");
        assert_eq!(only(env_name("..")), "must not be '..'");
        assert!(decimal_integer("-0")[0].starts_with("must be a valid"));
    }

    #[test]
    fn a_prefix_may_end_in_a_dash() {
        assert_eq!(mask_trailing_dash("a-"), "a");
        assert_eq!(mask_trailing_dash("ab--"), "aba");
        assert_eq!(mask_trailing_dash("-"), "-");
        assert_eq!(mask_trailing_dash("ab"), "ab");
    }
}
