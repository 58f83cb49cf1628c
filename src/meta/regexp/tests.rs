use super::*;

#[test]
fn expressions_are_refused_as_go_refuses_them() {
    for (expression, wrong) in [
        ("(", "missing closing ): `(`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a+?{2}", "invalid nested repetition operator: `+?{2}`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{3,2}", "invalid repeat count: `{3,2}`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?<=a)b", "invalid named capture: `(?<=a)b`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        (r"\y", r"invalid escape sequence: `\y`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"a\", "trailing backslash at end of expression: ``"),
        (r"\p{Nope}", r"invalid character class range: `\p{Nope}`"),
    ] {
        assert_eq!(
            compile(expression).unwrap_err(),
            format!("error parsing regexp: {wrong}"),
            "{expression}"
        );
    }
}

#[test]
fn expressions_match_as_in_go() {
    for (expression, text, matches) in [
        (r"^\d+$", "12", true),
        (r"^\d+$", "\u{0661}", false),
        (r"^[\d\s]+$", "1 2", true),
        (r"^\w+$", "\u{e9}", false),
        (r"^[[a]$", "[", true),
        (r"^[a&&b]+$", "a&b", true),
        (r"^a{,2}$", "a{,2}", true),
        (r"^x{2}$", "xx", true),
        (r"^\Qa.b\E$", "a.b", true),
        (r"^\Qa.b\E$", "axb", false),
        (r"^[^\D]$", "7", true),
        (r"^(?i)AB$", "ab", true),
        (r"^(?P<n>a)(?<m>b)$", "ab", true),
        (r"^\p{Greek}+$", "\u{3b1}\u{3b2}", true),
        (r"^[a-]$", "-", true),
        (r"^[]a]$", "]", true),
        (r"^a]}$", "a]}", true),
        (r"^\x41\101$", "AA", true),
        ("a$", "a\n", false),
    ] {
        let compiled = compile(expression).unwrap();
        assert_eq!(compiled.is_match(text), matches, "{expression} on {text:?}");
    }
}
