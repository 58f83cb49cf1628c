//! Parses tables as shown by nft(8): enough to recognize ours, and to notice missing parts.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::netlink::Netfilter;
use super::network::ALIAS;
use super::tools::tool;

/// The ruleset of this host, which contains our tables: tracks whether somebody else changed it, without reading it,
/// which takes many seconds if it is large.
#[derive(Debug, Default)]
pub struct Ruleset(Mutex<Seen>);

/// The observed state of the ruleset.
#[derive(Debug, Default)]
struct Seen {
    /// Its generation; None if the kernel does not report it.
    generation: Option<u32>,
    /// How often somebody else changed it.
    foreign: u64,
}

impl Ruleset {
    /// Runs nft(8) commands that change rules, in one transaction.
    ///
    /// # Errors
    /// The error of nft(8).
    pub(super) fn change(&self, script: &str) -> Result<(), String> {
        // Under a lock: other changes of the generation are foreign then.
        let mut seen = self.0.lock();
        seen.take(generation(), false);
        let done = tool("nft", &["-f", "-"], script);
        seen.take(generation(), done.is_ok());
        done.map(drop)
    }

    /// The count of foreign changes, as far as observed: as long as it stays the same, our tables are unchanged.
    pub(super) fn foreign(&self) -> u64 {
        let mut seen = self.0.lock();
        seen.take(generation(), false);
        seen.foreign
    }
}

fn generation() -> Option<u32> {
    Netfilter::open()
        .and_then(|kernel| kernel.generation())
        .ok()
}

impl Seen {
    /// Records the current generation, after one of our transactions if `ours`: that increments it by one, or not at
    /// all if it changed nothing.
    fn take(&mut self, now: Option<u32>, ours: bool) {
        let is_known = match (self.generation, now) {
            (Some(before), Some(now)) => now == before || (ours && now == before.wrapping_add(1)),
            _ => false,
        };
        if !is_known {
            self.foreign += 1;
        }
        self.generation = now;
    }
}

/// The content of a table, without the elements of maps and sets.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shown {
    /// The number of rules in each chain, by name.
    pub(super) chains: BTreeMap<String, usize>,
    /// The names of its sets.
    pub(super) sets: BTreeSet<String>,
}

/// The text of a table without elements; None if it does not exist.
///
/// # Errors
/// nft(8) is missing, or not permitted.
pub(super) fn show(family: &str, name: &str) -> Result<Option<String>, String> {
    let listed = tool("nft", &["list", "tables", family], "")?;
    match is_among(&listed, family, name) {
        true => tool("nft", &["-t", "list", "table", family, name], "").map(Some),
        false => Ok(None),
    }
}

/// Whether a table, as shown by nft(8), is marked as ours.
pub(super) fn is_ours(shown: &str) -> bool {
    let own = format!("comment \"{ALIAS}\"");
    shown.lines().any(|line| line.trim() == own)
}

/// The number of elements in a map or set (`kind`) of a table, given as family and name.
///
/// # Errors
/// It does not exist, or nft(8) is not permitted.
pub(super) fn count(table: [&str; 2], kind: &str, name: &str) -> Result<usize, String> {
    let [family, table] = table;
    let shown = tool("nft", &["list", kind, family, table, name], "")?;
    Ok(elements_in(&shown))
}

/// Whether a table is in the list of nft(8).
fn is_among(listed: &str, family: &str, name: &str) -> bool {
    let mut lines = listed.lines();
    lines.any(|line| line.split_whitespace().eq(["table", family, name]))
}

fn elements_in(shown: &str) -> usize {
    let elements = shown.split_once("elements = {");
    let elements = elements.and_then(|(_, after)| after.split('}').next());
    elements.map_or(0, |elements| elements.split(',').count())
}

impl Shown {
    /// Parses the result of [`show`].
    pub(super) fn read(text: &str) -> Shown {
        let mut shown = Shown::default();
        let mut chain = None;
        for line in text.lines() {
            // Deeper lines continue an earlier one.
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
                // The hook of a chain is not a rule.
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
        assert!(is_among(listed, "ip", "bb") && !is_among(listed, "ip", "b"));
        assert!(!is_among(listed, "bridge", "bb"));
    }

    #[test]
    fn what_others_change_is_told_from_our_own() {
        // The generation, whether it follows one of our transactions, and the resulting count of foreign changes.
        let mut seen = Seen::default();
        for (now, ours, foreign) in [
            (Some(7), false, 1),
            (Some(7), false, 1),
            (Some(8), true, 1),
            // Our transaction changed nothing.
            (Some(8), true, 1),
            (Some(8), false, 1),
            (Some(10), true, 2),
            (Some(11), false, 3),
            (Some(u32::MAX), false, 4),
            (Some(0), true, 4),
            // Without a generation nothing is known.
            (None, false, 5),
            (None, true, 6),
            (Some(0), false, 7),
        ] {
            seen.take(now, ours);
            assert_eq!(seen.foreign, foreign, "{now:?} {ours}");
        }
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
