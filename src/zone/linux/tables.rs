//! Tables of nft(8) as it shows them: enough to tell whose one is, and whether somebody took something away.

use std::collections::{BTreeMap, BTreeSet};

use super::network::tool;

/// What a table has, without the elements of its maps and sets.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shown {
    /// How many rules a chain has, by its name.
    pub(super) chains: BTreeMap<String, usize>,
    /// The names of its sets.
    pub(super) sets: BTreeSet<String>,
}

/// The text of a table without elements; none where there is no such table.
///
/// # Errors
/// nft(8) is missing, or may not be used.
pub(super) fn show(name: &str) -> Result<Option<String>, String> {
    let listed = tool("nft", &["list", "tables", "ip"], "")?;
    match is_among(&listed, name) {
        true => tool("nft", &["-t", "list", "table", "ip", name], "").map(Some),
        false => Ok(None),
    }
}

/// How many elements a map (or a set: `kind`) of a table has.
///
/// # Errors
/// It is not there, or nft(8) may not be used.
pub(super) fn count(table: &str, kind: &str, name: &str) -> Result<usize, String> {
    let shown = tool("nft", &["list", kind, "ip", table, name], "")?;
    Ok(elements_in(&shown))
}

/// Whether a table is among those that nft(8) lists.
fn is_among(listed: &str, name: &str) -> bool {
    let mut lines = listed.lines();
    lines.any(|line| line.split_whitespace().eq(["table", "ip", name]))
}

fn elements_in(shown: &str) -> usize {
    let elements = shown.split_once("elements = {");
    let elements = elements.and_then(|(_, after)| after.split('}').next());
    elements.map_or(0, |elements| elements.split(',').count())
}

impl Shown {
    /// Reads what [`show`] gave.
    pub(super) fn read(text: &str) -> Shown {
        let mut shown = Shown::default();
        let mut chain = None;
        for line in text.lines() {
            // What is deeper than this goes on with a line before.
            let depth = line.bytes().take_while(|byte| *byte == b'\t').count();
            let line = line.trim();
            match (depth, line.split_once(' ')) {
                (1, Some(("chain", rest))) => {
                    let name = rest.trim_end_matches(" {").to_owned();
                    chain = Some(shown.chains.entry(name).or_default());
                }
                (1, Some(("set", rest))) => {
                    shown.sets.insert(rest.trim_end_matches(" {").to_owned());
                }
                (1, _) => chain = None,
                // Where a chain is hooked in is no rule.
                (2, Some(("type", _))) => {}
                (2, _) => {
                    if let Some(count) = &mut chain {
                        **count += 1;
                    }
                }
                _ => {}
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "table ip x {
\tcomment \"reddwarf\"
\tmap services {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t}

\tset a/default/web {
\t\ttype ipv4_addr
\t\tsize 65536
\t\tflags dynamic,timeout
\t\ttimeout 1m
\t}

\tchain pre {
\t\ttype nat hook prerouting priority dstnat + 1; policy accept;
\t}

\tchain s/default/web/tcp/- {
\t\tip saddr @a/default/web goto e/default
\t\tmeta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 80 }
\t}

\tchain e/default {
\t\tdrop
\t}
}
";

    #[test]
    fn what_a_table_has_is_read() {
        let chains = [("e/default", 1), ("pre", 0), ("s/default/web/tcp/-", 2)];
        let expected = Shown {
            chains: chains.map(|(name, rules)| (name.to_owned(), rules)).into(),
            sets: ["a/default/web".to_owned()].into(),
        };
        assert_eq!(Shown::read(TEXT), expected);
        assert_eq!(Shown::read("table ip x {\n}\n"), Shown::default());
        let listed = "table ip nat\ntable ip bb\n";
        assert!(is_among(listed, "bb") && !is_among(listed, "b"));
    }

    #[test]
    fn elements_are_counted() {
        let head = "table ip x {\n\tmap m {\n\t\ttype inet_service : verdict\n";
        for (elements, expected) in [
            ("", 0),
            ("\t\telements = { 80 : goto s/a }\n", 1),
            (
                "\t\telements = { 80 : goto s/a,\n\t\t\t     81 : goto s/b,\n\t\t\t     82 : drop }\n",
                3,
            ),
        ] {
            let shown = format!("{head}{elements}\t}}\n}}\n");
            assert_eq!(elements_in(&shown), expected, "{elements}");
        }
    }
}
