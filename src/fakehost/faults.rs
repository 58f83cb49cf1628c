//! What is to go wrong, and when.

use serde::{Deserialize, Serialize};

/// One thing that goes wrong once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its number, given by the host.
    pub id: u64,
    /// The tool, or nothing for every tool. Steps that others do for a tool have names of their own: `zoneadmd`,
    /// `brand` (the install and uninstall hooks).
    pub tool: Option<String>,
    /// A part of the command line, or nothing.
    pub contains: Option<String>,
    /// How many such commands from now, from 1.
    pub nth: u64,
    /// When in the command.
    pub when: When,
    /// What.
    pub action: Action,
}

/// When in a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// Nothing is done yet.
    Before,
    /// At the first point between two steps, or the one so named. A command without such a point goes on to its end.
    Halfway(Option<String>),
    /// Everything is done, nothing told.
    After,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The command ends with this status and text. What was done stays done.
    Fail {
        /// Exit status.
        code: i32,
        /// The text on standard error, a line.
        text: String,
    },
    /// The command is killed.
    Crash,
    /// The command waits until it is released or killed.
    Stall,
    /// The caller is killed (in a process of its own) or told that the command was killed (in the same process); the
    /// command goes on.
    Orphan,
}

/// The fault that hits this command, taken out of `faults`; the others that match count down.
pub fn take(faults: &mut Vec<Fault>, tool: &str, line: &str) -> Option<Fault> {
    let mut hit = None;
    for (at, fault) in faults.iter_mut().enumerate() {
        let matches = fault.tool.as_deref().is_none_or(|t| t == tool)
            && fault.contains.as_deref().is_none_or(|c| line.contains(c));
        if matches && fault.nth > 0 {
            fault.nth -= 1;
            if fault.nth == 0 && hit.is_none() {
                hit = Some(at);
            }
        }
    }
    let taken = hit.map(|at| faults.remove(at));
    // Two for the same command: the second waits for the next one.
    for fault in faults.iter_mut() {
        fault.nth = fault.nth.max(1);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_matching_command_is_hit_once() {
        let fault = |id, tool: Option<&str>, nth| Fault {
            id,
            tool: tool.map(str::to_owned),
            contains: None,
            nth,
            when: When::Before,
            action: Action::Crash,
        };
        let mut faults = vec![fault(1, Some("zfs"), 2), fault(2, None, 3)];
        assert_eq!(take(&mut faults, "zfs", "zfs list"), None);
        assert_eq!(take(&mut faults, "dladm", "dladm show-link"), None);
        assert_eq!(take(&mut faults, "zfs", "zfs list").map(|f| f.id), Some(1));
        assert_eq!(take(&mut faults, "zfs", "zfs list").map(|f| f.id), Some(2));
        assert!(faults.is_empty());
    }
}
