//! Injected faults.

use serde::{Deserialize, Serialize};

/// A fault that happens once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its number, given by the host.
    pub id: u64,
    /// The tool; None for every tool. Helpers of a tool have their own names: `zoneadmd`, `brand` (the install and
    /// uninstall hooks).
    pub tool: Option<String>,
    /// A part of the command line, if it matters.
    pub contains: Option<String>,
    /// Which of the matching commands from now on, counted from 1.
    pub nth: u64,
    /// When during the command.
    pub when: When,
    /// What happens.
    pub action: Action,
}

/// When a fault happens during a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// Before anything is done.
    Before,
    /// At the first point between two steps, or at the one with this name. A command without such a point completes.
    Halfway(Option<String>),
    /// When everything is done, before anything is reported.
    After,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The command ends with this status and text. Completed steps stay done.
    Fail {
        /// Exit status.
        code: i32,
        /// The text on standard error, one line.
        text: String,
    },
    /// The command is killed.
    Crash,
    /// The command waits until it is released or killed.
    Stall,
    /// The caller is killed (if it is a separate process) or gets the result of a killed command (in the same process);
    /// the command continues.
    Orphan,
}

/// Takes the fault for this command out of `faults`; the counts of other matching ones go down.
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
    // If two faults match the same command, the second one waits for the next command.
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
