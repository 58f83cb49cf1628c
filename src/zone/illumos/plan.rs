//! What is to be done next for a zone: a function of what it is to be and what was seen of it.
//!
//! ```text
//!             zonecfg -f       install          boot             halt            uninstall -F     delete -F
//!   (none) -----------> configured -> installed ----> running ---------> installed ----> configured ---> (none)
//!                            ^  |  incomplete --.        |  ^                ^
//!                            |  '-----^    uninstall -F  |  |                |
//!                            '------------------'        '--'  shutting_down, down: waited for, then halted
//! ```
//! The driver carries a step out, notes what it leaves, and asks again; after a failure it looks at the host first. So
//! every step may be the first of an agent that knows nothing: there is no other memory than the host.
//!
//! What ran in a zone may have changed its root, where the global zone writes before a boot and zoneadmd mounts: a zone
//! that was booted once is made new before it boots again. Nothing of users is in that root.

use std::path::PathBuf;
use std::time::Duration;

use super::Patience;
use super::layout::Layout;
use crate::illumos::Command;
use crate::illumos::parse::{HostState, VnicRow, ZoneRow};

/// The property of a zonepath's dataset that says that the zone was booted. It goes with the dataset: an installation
/// makes another one.
pub const BOOTED: &str = "reddwarf:booted";

/// What a zone is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Installed, or further.
    Installed,
    /// Running.
    Running,
    /// Installed or less, without links.
    Halted,
    /// Not there.
    Absent,
}

/// What was seen of a zone and around it; what was not looked at is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The zone.
    pub zone: Option<ZoneRow>,
    /// The link of its name.
    pub vnic: Option<VnicRow>,
    /// The link was not made now, so it may be protected.
    pub used: bool,
    /// The configuration is this layout's: written now.
    pub configured: bool,
    /// Its root.
    pub root: Root,
    /// The zonepath's dataset is there without a zone.
    pub dataset: bool,
    /// It was waited for as long as a zone may take to change by itself.
    pub overdue: bool,
}

/// What is in the root of a zone that is installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Root {
    /// What the installation left.
    #[default]
    Installed,
    /// What it needs beside to be booted.
    Ready,
    /// The same; it is marked now, and may be booted.
    Marked,
    /// What somebody may have put there: it was marked before.
    Used,
}

/// What a step changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The zone's state; nothing means that it is gone.
    State(Option<HostState>),
    /// As `State(Configured)`, with this layout's configuration.
    Configured,
    /// The root.
    Root(Root),
    /// The link is there, fresh.
    Linked,
    /// The link is not protected.
    Unprotected,
    /// The link is gone.
    Unlinked,
    /// The dataset is gone.
    Destroyed,
}

/// What a step does to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAction {
    /// Makes a directory with those above it; its own mode is set.
    Directory(PathBuf, u32),
    /// Writes a file whole, mode 0600.
    Write(PathBuf, String),
    /// Makes an empty file below a root unless something is there. Links lead nowhere else.
    Empty {
        /// The root.
        root: PathBuf,
        /// The file as who has that root sees it.
        path: PathBuf,
    },
}

/// A step: files first, then the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is for.
    pub what: &'static str,
    /// In which state of the zone it may be taken.
    pub needs: &'static str,
    /// What it leaves.
    pub leaves: &'static str,
    /// Files.
    pub files: Vec<FileAction>,
    /// The command.
    pub command: Option<Command>,
    /// What changes.
    pub effect: Effect,
    /// Its exit status alone proves nothing: the zone must be looked at.
    pub look: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is what it is to be.
    Done,
    /// This.
    Do(Box<Step>),
    /// It changes by itself: look again.
    Wait(&'static str),
    /// It will not become what it is to be.
    Stuck(String),
}

fn step(
    what: &'static str,
    needs: &'static str,
    leaves: &'static str,
    command: Command,
    effect: Effect,
) -> Step {
    Step {
        what,
        needs,
        leaves,
        files: Vec::new(),
        command: Some(command),
        effect,
        look: false,
    }
}

fn take(step: Step) -> Next {
    Next::Do(Box::new(step))
}

/// What to do next so that the zone of `layout` becomes `goal`.
pub fn next(goal: Goal, layout: &Layout, seen: &Seen) -> Next {
    let state = seen.zone.as_ref().map(|row| row.state);
    match goal {
        Goal::Installed => install(layout, seen, state),
        Goal::Running => boot(layout, seen, state),
        Goal::Halted => halt(layout, seen, state),
        Goal::Absent => remove(layout, seen, state),
    }
}

fn install(layout: &Layout, seen: &Seen, state: Option<HostState>) -> Next {
    match state {
        None | Some(HostState::Configured) if !seen.configured => take(Step {
            files: vec![
                FileAction::Directory(layout.control.clone(), 0o700),
                FileAction::Write(layout.file.clone(), layout.configuration.clone()),
            ],
            ..step(
                "configure the zone",
                "no zone, or configured",
                "configured",
                layout.configure(),
                Effect::Configured,
            )
        }),
        None | Some(HostState::Configured) => take(step(
            "install the zone as a clone of the sandbox",
            "configured; the mounts' directories and the snapshot are there",
            "installed",
            layout.install(),
            Effect::State(Some(HostState::Installed)),
        )),
        Some(HostState::Incomplete) => take(clean(layout)),
        // Where zones of its brand are made no more, it is booted as it is.
        Some(HostState::Installed) if seen.root == Root::Used && layout.sandbox.is_some() => {
            take(Step {
                what: "make a zone new that ran: its root is what somebody left there",
                needs: "installed, booted before; nothing is mounted below the zonepath",
                ..clean(layout)
            })
        }
        Some(HostState::Installed) if seen.root == Root::Installed => take(Step {
            files: layout
                .files
                .iter()
                .map(|path| FileAction::Empty {
                    root: layout.path.join("root"),
                    path: path.clone(),
                })
                .collect(),
            ..step(
                "limit what the zone's own root may hold: before the installation it would be lost",
                "installed, never booted",
                "installed",
                crate::storage::zfs::names::set(
                    &layout.dataset,
                    "quota",
                    &layout.quota.to_string(),
                ),
                Effect::Root(Root::Ready),
            )
        }),
        Some(_) => Next::Done,
    }
}

/// Undoes an installation that did not end.
fn clean(layout: &Layout) -> Step {
    Step {
        // Without its zonepath an lx zone cannot be uninstalled, ever.
        files: vec![FileAction::Directory(layout.path.clone(), 0o700)],
        ..step(
            "undo what was installed",
            "installed or incomplete; nothing is mounted below the zonepath",
            "configured",
            layout.uninstall(),
            Effect::State(Some(HostState::Configured)),
        )
    }
}

fn boot(layout: &Layout, seen: &Seen, state: Option<HostState>) -> Next {
    let state = match state {
        Some(HostState::Running) => return Next::Done,
        // It may be about to come up again by itself. But zoneadmd does not take up a halt that failed (of a reboot or
        // not: a mount or a link was busy), and says of such a zone that it is booted already: another halt ends it.
        Some(HostState::ShuttingDown | HostState::Down) if seen.overdue => {
            return take(end(layout));
        }
        Some(HostState::ShuttingDown | HostState::Down) => {
            return Next::Wait("it is shutting down");
        }
        Some(HostState::Mounted) => return take(unmount(layout)),
        // Made new, or about to be.
        Some(HostState::Configured | HostState::Incomplete) => {
            return install(layout, seen, state);
        }
        Some(HostState::Installed) => match install(layout, seen, state) {
            Next::Done => HostState::Installed,
            first => return first,
        },
        Some(HostState::Ready) => HostState::Ready,
        Some(HostState::Unknown) => return Next::Stuck("its state is not known".into()),
        None => return Next::Stuck("it is not configured".into()),
    };
    match &seen.vnic {
        Some(row) if !layout.vnic.is(row) => return Next::Stuck(stranger(layout, row)),
        None if state == HostState::Ready => {
            return Next::Stuck("it is ready without its link".into());
        }
        None => {
            return take(step(
                "make its link; it ends with the host's next boot",
                "the link below is there, the name is free",
                "the link, not protected",
                layout.vnic.create(),
                Effect::Linked,
            ));
        }
        // In a zone that is ready the link has what zoneadmd gave it.
        Some(_) if seen.used && state == HostState::Installed => {
            return take(step(
                "take protection off its link: a protected one is refused at boot",
                "the link is in no zone",
                "the link, not protected",
                layout.vnic.unprotect(),
                Effect::Unprotected,
            ));
        }
        Some(_) => {}
    }
    if !matches!(seen.root, Root::Marked | Root::Used) {
        return take(step(
            "note that it is booted: what runs in it may change its root",
            "its root is as it was made",
            "the mark, until the root is made new",
            crate::storage::zfs::names::set(&layout.dataset, BOOTED, "yes"),
            Effect::Root(Root::Marked),
        ));
    }
    take(Step {
        look: true,
        ..step(
            "boot the zone",
            "installed or ready; its link is free and not protected",
            "running, with allowed-ips and ip-nospoof on its link",
            layout.boot(),
            Effect::State(Some(HostState::Running)),
        )
    })
}

fn stranger(layout: &Layout, row: &VnicRow) -> String {
    format!(
        "there is a link {} that is not this zone's (over {}, {}, vlan {}); it is left alone: delete or rename it",
        layout.vnic.link, row.over, row.mac, row.vlan
    )
}

fn halt(layout: &Layout, seen: &Seen, state: Option<HostState>) -> Next {
    match state {
        Some(HostState::Running | HostState::Ready | HostState::ShuttingDown | HostState::Down) => {
            return take(end(layout));
        }
        Some(HostState::Mounted) => return take(unmount(layout)),
        Some(HostState::Unknown) => return Next::Stuck("its state is not known".into()),
        _ => {}
    }
    unplug(layout, seen).unwrap_or(Next::Done)
}

fn end(layout: &Layout) -> Step {
    Step {
        look: true,
        ..step(
            "halt the zone",
            "running, ready, shutting_down or down",
            "installed",
            layout.halt(),
            Effect::State(Some(HostState::Installed)),
        )
    }
}

fn unmount(layout: &Layout) -> Step {
    Step {
        look: true,
        ..step(
            "end the maintenance mount",
            "mounted",
            "installed",
            layout.unmount(),
            Effect::State(Some(HostState::Installed)),
        )
    }
}

/// Ends the link of a zone that is halted.
fn unplug(layout: &Layout, seen: &Seen) -> Option<Next> {
    // What is there under the name but is not ours stays.
    seen.vnic.as_ref().filter(|row| layout.vnic.is(row))?;
    Some(take(step(
        "end its link",
        "the zone is installed or less",
        "no link",
        layout.vnic.delete(),
        Effect::Unlinked,
    )))
}

fn remove(layout: &Layout, seen: &Seen, state: Option<HostState>) -> Next {
    match state {
        Some(HostState::Installed | HostState::Incomplete) => take(clean(layout)),
        Some(HostState::Configured) => take(Step {
            // Uninstalling it took its dataset along, or not: that is seen.
            look: true,
            ..step(
                "remove the configuration",
                "configured",
                "no zone",
                layout.unconfigure(),
                Effect::State(None),
            )
        }),
        None if seen.dataset => take(step(
            "end what is left of the zonepath's dataset",
            "no zone of that path",
            "nothing",
            crate::storage::zfs::names::destroy(&layout.dataset, true),
            Effect::Destroyed,
        )),
        None => Next::Done,
        Some(other) => Next::Stuck(format!("it is {}; halt it first", other.word())),
    }
}

/// How long a zone that nobody asked anything of may stay as it is before it is halted, to be booted again, and why it
/// is then. `answers`: its supervisor does.
pub fn may_stay(
    state: HostState,
    answers: bool,
    patience: &Patience,
) -> Option<(Duration, &'static str)> {
    match state {
        // lxinit waits for ever when it cannot go on; and a zone whose zoneadmd died does not reboot.
        HostState::Running if !answers => Some((patience.hello, "nothing in this zone answers")),
        HostState::ShuttingDown | HostState::Down => Some((
            patience.change,
            "this zone does not get through with going down",
        )),
        _ => None,
    }
}

impl Seen {
    /// Notes what a step that went well changed.
    pub fn apply(&mut self, layout: &Layout, effect: Effect) {
        match effect {
            Effect::State(None) => self.zone = None,
            Effect::State(Some(state)) => {
                if state == HostState::Configured {
                    // What is installed next is new.
                    self.root = Root::Installed;
                }
                self.zone = Some(self.row(layout, state));
            }
            Effect::Configured => {
                self.zone = Some(self.row(layout, HostState::Configured));
                self.configured = true;
            }
            Effect::Root(root) => self.root = root,
            Effect::Linked => {
                self.used = false;
                self.vnic = Some(VnicRow {
                    link: layout.vnic.link.clone(),
                    over: layout.vnic.over.clone(),
                    mac: layout.vnic.mac.clone(),
                    vlan: layout.vnic.vlan,
                });
            }
            Effect::Unprotected => self.used = false,
            Effect::Unlinked => self.vnic = None,
            Effect::Destroyed => self.dataset = false,
        }
    }

    fn row(&self, layout: &Layout, state: HostState) -> ZoneRow {
        ZoneRow {
            id: None,
            name: layout.zone.to_string(),
            state,
            path: layout.path.display().to_string(),
            brand: self
                .zone
                .as_ref()
                .map_or(String::new(), |row| row.brand.clone()),
            exclusive: true,
        }
    }
}

/// Every step that leads from what was seen to a goal, in order, if all of them go well.
///
/// # Errors
/// Why the goal is not reached.
pub fn plan(goal: Goal, layout: &Layout, seen: &mut Seen) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    loop {
        match next(goal, layout, seen) {
            Next::Done => return Ok(steps),
            Next::Wait(reason) => return Err(reason.to_owned()),
            Next::Stuck(reason) => return Err(reason),
            Next::Do(step) => {
                seen.apply(layout, step.effect);
                steps.push(*step);
            }
        }
    }
}

#[cfg(test)]
mod tests;
