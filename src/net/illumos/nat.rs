//! The commands and lines of ipnat(8).

use std::net::Ipv4Addr;

use crate::illumos::{Command, Tool};

/// The rule that redirects a port of the host to one of a zone.
pub fn redirect(
    external: &str,
    at: Option<Ipv4Addr>,
    port: u16,
    to: Ipv4Addr,
    zone: u16,
    protocol: &str,
) -> String {
    let at = at.map_or("0.0.0.0/0".to_owned(), |at| format!("{at}/32"));
    format!(
        "rdr {external} {at} port {port} -> {to} port {zone} {}",
        protocol.to_lowercase()
    )
}

/// Lists the active rules, for [`parse::nat_rules`].
pub fn show_rules() -> Command {
    Command::new(Tool::Ipnat, ["-l"])
}

/// Adds one rule. Other rules stay: nothing is ever flushed.
pub fn add_rule(rule: &str) -> Command {
    add_rules(&[rule.to_owned()])
}

/// Adds rules. Only the list shows which were accepted: ipnat(8) reports rejected ones on standard error, continues
/// with the next, and exits with 0.
pub fn add_rules(rules: &[String]) -> Command {
    Command::new(Tool::Ipnat, ["-f", "-"]).fed(lines(rules))
}

/// Removes one rule.
pub fn remove_rule(rule: &str) -> Command {
    remove_rules(&[rule.to_owned()])
}

/// Removes rules; like [`add_rules`] it continues after missing ones.
pub fn remove_rules(rules: &[String]) -> Command {
    Command::new(Tool::Ipnat, ["-r", "-f", "-"]).fed(lines(rules))
}

fn lines(rules: &[String]) -> String {
    rules.iter().map(|rule| format!("{rule}\n")).collect()
}
