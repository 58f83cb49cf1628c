//! Tables of nft(8) as it shows them: enough to tell whose one is, and whether somebody took something away.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::netlink::Netfilter;
use super::network::{ALIAS, tool};

/// All rules of this host, of which some tables are ours: whether somebody else changed any is known without reading
/// them, which takes many seconds where there are many.
#[derive(Debug, Default)]
pub struct Ruleset(Mutex<Seen>);

/// What was seen of the rules.
#[derive(Debug, Default)]
struct Seen {
    /// Their number; none where the kernel does not tell.
    generation: Option<u32>,
    /// How often they were changed by somebody else.
    foreign: u64,
}

impl Ruleset {
    /// Tells nft(8) something that changes rules, in one transaction.
    ///
    /// # Errors
    /// What it says.
    pub(super) fn change(&self, script: &str) -> Result<(), String> {
        // One at a time: what changes meanwhile is another's.
        let mut seen = self.0.lock();
        seen.take(generation(), false);
        let done = tool("nft", &["-f", "-"], script);
        seen.take(generation(), done.is_ok());
        done.map(drop)
    }

    /// How often somebody else changed rules, as far as it was seen: as long as this is the same, our tables are as they
    /// were left.
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
    /// Takes in the number of the rules, after a transaction of `ours`, if there was one since the last time: that makes
    /// it one more, or nothing where it changed nothing.
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

/// What a table has, without the elements of its maps and sets.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shown {
    /// How many rules a chain has, by its name.
    pub(super) chains: BTreeMap<String, usize>,
    /// The names of its sets.
    pub(super) sets: BTreeSet<String>,
}

/// The text of a table of a family without elements; none where there is no such table.
///
/// # Errors
/// nft(8) is missing, or may not be used.
pub(super) fn show(family: &str, name: &str) -> Result<Option<String>, String> {
    let listed = tool("nft", &["list", "tables", family], "")?;
    match is_among(&listed, family, name) {
        true => tool("nft", &["-t", "list", "table", family, name], "").map(Some),
        false => Ok(None),
    }
}

/// Whether a table as nft(8) shows it says that it is ours.
pub(super) fn is_ours(shown: &str) -> bool {
    let own = format!("comment \"{ALIAS}\"");
    shown.lines().any(|line| line.trim() == own)
}

/// How many elements a map (or a set: `kind`) of a table, which is its family and its name, has.
///
/// # Errors
/// It is not there, or nft(8) may not be used.
pub(super) fn count(table: [&str; 2], kind: &str, name: &str) -> Result<usize, String> {
    let [family, table] = table;
    let shown = tool("nft", &["list", kind, family, table, name], "")?;
    Ok(elements_in(&shown))
}

/// Whether a table is among those that nft(8) lists.
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
        assert!(is_among(listed, "ip", "bb") && !is_among(listed, "ip", "b"));
        assert!(!is_among(listed, "bridge", "bb"));
    }

    #[test]
    fn what_others_change_is_told_from_our_own() {
        // What number the rules have, whether after a transaction of ours, and how often others changed them.
        let mut seen = Seen::default();
        for (now, ours, foreign) in [
            (Some(7), false, 1),
            (Some(7), false, 1),
            (Some(8), true, 1),
            // Ours changed nothing.
            (Some(8), true, 1),
            (Some(8), false, 1),
            (Some(10), true, 2),
            (Some(11), false, 3),
            (Some(u32::MAX), false, 4),
            (Some(0), true, 4),
            // Nothing is known where the kernel does not tell.
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
