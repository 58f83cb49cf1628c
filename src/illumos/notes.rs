//! Notes about commands that may leave processes behind, written so that a later reader does not kill processes of
//! others.
//!
//! A note contains the process group of the command and the agent's session. The id of a group in use is not reused;
//! but when the last process of a group has ended before its note was removed, another group may get the id.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal};

/// Tolerance when comparing times: process start times are coarse.
const COARSE: Duration = Duration::from_secs(1);

/// Writes a note with its own process id, and then becomes the command, so that the command never runs without a note:
/// `sh -c SCRIPT sh NOTE SESSION PROGRAM ...`.
pub const SCRIPT: &str =
    "echo \"$$ $2\" >\"$1.new\" && mv \"$1.new\" \"$1\" && shift 2 && exec \"$@\"";

/// The content of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// The process group.
    pub group: Pid,
    /// The session of the agent.
    session: i32,
    /// When it was written.
    written: SystemTime,
}

/// A process of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    leads: bool,
    session: i32,
    started: SystemTime,
}

/// The session of this process as notes contain it: 0 if its leader is not visible to this process, as in a container;
/// getsid(2) returns that, but rustix considers it impossible.
pub fn session() -> String {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    look(own).map_or(0, |(_, session, _)| session).to_string()
}

impl Note {
    /// The note in a file, if there is one.
    pub fn read(file: &Path) -> Option<Note> {
        let written = file.metadata().and_then(|data| data.modified()).ok()?;
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let mut number = || words.next()?.parse().ok();
        Some(Note {
            group: Pid::from_raw(number()?)?,
            session: number()?,
            written,
        })
    }

    /// Whether a process of the command is running. Zombies do not count: reaping them is somebody else's business.
    pub fn is_alive(&self) -> bool {
        let members = members(self.group);
        !members.is_empty() && self.is_of(&members)
    }

    /// Kills all processes of the command.
    pub fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
    }

    /// Whether a group with the note's id is the note's group: its leader wrote the note and so is not younger; a group
    /// without a leader must be in the session of the command.
    fn is_of(&self, members: &[Member]) -> bool {
        members.iter().all(|member| {
            member.session == self.session
                && (!member.leads || member.started <= self.written + COARSE)
        })
    }
}

fn members(group: Pid) -> Vec<Member> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let group = group.as_raw_nonzero().get();
    ids.filter_map(|id: i32| {
        let (of, session, started) = look(id)?;
        (of == group).then_some(Member {
            leads: id == group,
            session,
            started,
        })
    })
    .collect()
}

/// The group, session and start time of a process; None if it has ended.
#[cfg(target_os = "linux")]
fn look(id: i32) -> Option<(i32, i32, SystemTime)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // After the name, which may contain anything: state, parent, group, session; the start time is the twentieth field.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    let number = |at: usize| fields.get(at)?.parse().ok();
    let ticks: u64 = fields.get(19)?.parse().ok()?;
    let since_boot = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime = uptime.split(' ').next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64(uptime).ok()?;
    let age = age.saturating_sub(since_boot);
    Some((number(2)?, number(3)?, SystemTime::now() - age))
}

/// Like above, from `psinfo_t` (proc(5), sys/procfs.h) of a 64-bit program. A zombie has no lwp.
#[cfg(not(target_os = "linux"))]
fn look(id: i32) -> Option<(i32, i32, SystemTime)> {
    const LWPS: usize = 4;
    const GROUP: usize = 16;
    const SESSION: usize = 20;
    const STARTED: usize = 88;
    let info = fs::read(format!("/proc/{id}/psinfo")).ok()?;
    let number = |at: usize| Some(i32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    if number(LWPS)? == 0 {
        return None;
    }
    let seconds = u64::from_ne_bytes(info.get(STARTED..STARTED + 8)?.try_into().ok()?);
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Some((number(GROUP)?, number(SESSION)?, started))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn a_group_that_got_the_id_later_is_a_strangers() {
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let note = Note {
            group: Pid::from_raw(4711).expect("a number"),
            session: 7,
            written,
        };
        let member = |leads, session, second| Member {
            leads,
            session,
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        };
        for (members, ours) in [
            (vec![member(true, 7, 999)], true),
            (vec![member(true, 7, 1001)], true),
            // Descendants of the command, started after the note; its leader may be gone.
            (vec![member(true, 7, 999), member(false, 7, 1500)], true),
            (vec![member(false, 7, 1500)], true),
            (vec![member(true, 7, 1500)], false),
            (vec![member(true, 9, 999)], false),
            (vec![member(false, 9, 1500)], false),
            (vec![member(true, 7, 1500), member(false, 7, 1500)], false),
        ] {
            assert_eq!(note.is_of(&members), ours, "{members:?}");
        }
    }

    #[test]
    fn a_command_is_found_by_its_note() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("note");
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "sh"]).arg(&file);
        command.args([&session(), "sleep", "1000"]).process_group(0);
        let mut child = command.spawn().expect("runs");
        let note = loop {
            match Note::read(&file) {
                Some(note) => break note,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(note.group.as_raw_nonzero().get() as u32, child.id());
        assert!(note.is_alive());
        let stranger = Note {
            written: note.written - Duration::from_secs(60),
            ..note
        };
        assert!(!stranger.is_alive());
        note.kill();
        child.wait().expect("ended");
        // The shell's own child, mv, may take a moment longer to end.
        while note.is_alive() {
            std::thread::yield_now();
        }
    }
}
