//! References to variables in values and commands.

/// Replaces `$(NAME)` by the variable's value; `$$` becomes one `$`, and unknown variables stay.
pub fn expand(given: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut whole = String::with_capacity(given.len());
    let mut rest = given;
    while let Some(at) = rest.find('$') {
        whole.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            whole.push('$');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('(') {
            match inner.find(')') {
                Some(end) => {
                    let name = &inner[..end];
                    match known(name) {
                        Some(value) => whole.push_str(&value),
                        None => {
                            whole.push_str("$(");
                            whole.push_str(name);
                            whole.push(')');
                        }
                    }
                    rest = &inner[end + 1..];
                }
                None => {
                    whole.push_str("$(");
                    rest = inner;
                }
            }
        } else {
            whole.push('$');
            rest = after;
        }
    }
    whole.push_str(rest);
    whole
}
