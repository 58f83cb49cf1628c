//! Decides what to do next for a zone: a pure function of its desired and its observed state.
//!
//! ```text
//!             zonecfg -f       install          boot             halt            uninstall -F     delete -F
//!   (none) -----------> configured -> installed ----> running ---------> installed ----> configured ---> (none)
//!                            ^  |  incomplete --.        |  ^                ^
//!                            |  '-----^    uninstall -F  |  |                |
//!                            '------------------'        '--'  shutting_down, down: waited for, then halted
//! ```
//! The driver carries out a step, records its effect, and asks again; after a failure it observes the host first. So
//! every step may be the first of an agent that knows nothing: the host is the only memory.
//!
//! Processes in a zone may have changed its root, where the global zone writes before a boot and zoneadmd mounts: a
//! zone that was booted once is reinstalled before it boots again. Its root contains no user data.

use std::path::PathBuf;
use std::time::Duration;

use super::Patience;
use super::layout::Layout;
use crate::illumos::Command;
use crate::illumos::parse::{HostState, VnicRow, ZoneRow};

/// The property of a zonepath's dataset that shows that the zone was booted. It disappears with the dataset: an
/// installation creates another one.
pub const BOOTED: &str = "reddwarf:booted";

/// The desired state of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Installed, or further.
    Installed,
    /// Running.
    Running,
    /// Installed or less, without links.
    Halted,
    /// Nonexistent.
    Absent,
}

/// The observed state of a zone and its surroundings; what was not looked at has the default value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The zone.
    pub zone: Option<ZoneRow>,
    /// The link with its name.
    pub vnic: Option<VnicRow>,
    /// Whether the link was not created just now, so it may be protected.
    pub used: bool,
    /// Whether this layout's configuration was just written.
    pub configured: bool,
    /// The state of its root.
    pub root: Root,
    /// Whether the zonepath's dataset exists without a zone.
    pub dataset: bool,
    /// Whether it has been waited for as long as a zone may take to change by itself.
    pub overdue: bool,
}

/// The state of an installed zone's root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Root {
    /// As left by the installation.
    #[default]
    Installed,
    /// With all that it needs to boot.
    Ready,
    /// The same, and now marked as booted; it may be booted.
    Marked,
    /// Booted before: processes of the zone may have changed it.
    Used,
    /// Not there, although the zone is installed: what zones there are is recorded in the boot environment, which may be
    /// an earlier one than that of the pool's datasets.
    Gone,
}

/// The effect of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The new state of the zone; None if it is gone.
    State(Option<HostState>),
    /// Like `State(Configured)`, with this layout's configuration.
    Configured,
    /// The new state of the root.
    Root(Root),
    /// The link exists and is new.
    Linked,
    /// The link is not protected.
    Unprotected,
    /// The link is gone.
    Unlinked,
    /// The dataset is gone.
    Destroyed,
}

/// A file operation of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAction {
    /// Creates a directory and its parents; sets the mode of the last one.
    Directory(PathBuf, u32),
    /// Replaces a file, with mode 0600.
    Write(PathBuf, String),
    /// Creates an empty file below a root unless something exists there. Links do not lead out of the root.
    Empty {
        /// The root.
        root: PathBuf,
        /// The path of the file inside that root.
        path: PathBuf,
    },
}

/// A step: files first, then the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its purpose.
    pub what: &'static str,
    /// The state of the zone that it requires.
    pub needs: &'static str,
    /// The state that it results in.
    pub leaves: &'static str,
    /// The file operations.
    pub files: Vec<FileAction>,
    /// The command.
    pub command: Option<Command>,
    /// The effect.
    pub effect: Effect,
    /// Whether the zone must be observed afterwards, because the exit status alone proves nothing.
    pub look: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the goal is reached.
    Done,
    /// This step.
    Do(Box<Step>),
    /// Wait: it changes by itself.
    Wait(&'static str),
    /// The goal cannot be reached.
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

/// Decides the next step for the zone of `layout` to reach `goal`.
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
        // If zones of its brand are no longer created, it is booted as it is.
        Some(HostState::Installed) if seen.root == Root::Gone && layout.sandbox.is_some() => {
            take(Step {
                what: "make a zone new whose dataset is gone",
                needs: "installed; nothing is mounted below the zonepath",
                ..clean(layout)
            })
        }
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

/// Undoes an incomplete installation.
fn clean(layout: &Layout) -> Step {
    Step {
        // An lx zone cannot be uninstalled without its zonepath.
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
        // It may come up again by itself. But zoneadmd does not resume a halt that failed (during a reboot or not,
        // because a mount or link was busy), and says that such a zone is booted already: another halt ends it.
        Some(HostState::ShuttingDown | HostState::Down) if seen.overdue => {
            return take(end(layout));
        }
        Some(HostState::ShuttingDown | HostState::Down) => {
            return Next::Wait("it is shutting down");
        }
        Some(HostState::Mounted) => return take(unmount(layout)),
        // Reinstalled, or about to be.
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
        // In a zone in state `ready` the link has the properties set by zoneadmd.
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

/// Removes the link of a halted zone.
fn unplug(layout: &Layout, seen: &Seen) -> Option<Next> {
    // A link with that name that is not ours stays.
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
            // Whether uninstalling removed its dataset has to be observed.
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

/// How long a zone that nobody asked to change may stay in its state before it is halted and booted again, and the
/// reason. `answers`: its supervisor is connected.
pub fn may_stay(
    state: HostState,
    answers: bool,
    patience: &Patience,
) -> Option<(Duration, &'static str)> {
    match state {
        // lxinit waits forever when it cannot continue; and a zone whose zoneadmd died does not reboot.
        HostState::Running if !answers => Some((patience.hello, "nothing in this zone answers")),
        HostState::ShuttingDown | HostState::Down => Some((
            patience.change,
            "this zone does not get through with going down",
        )),
        _ => None,
    }
}

impl Seen {
    /// Records the effect of a successful step.
    pub fn apply(&mut self, layout: &Layout, effect: Effect) {
        match effect {
            Effect::State(None) => self.zone = None,
            Effect::State(Some(state)) => {
                if state == HostState::Configured {
                    // The next installation is new.
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

/// All steps from an observed state to a goal, in order, if each succeeds.
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
