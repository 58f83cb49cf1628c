//! Carries out steps, and observes the host after each one that failed or whose success proves nothing.

use std::fs;
use std::io;
use std::time::Instant;

use super::Inner;
use super::home::Home;
use super::plan::{self, Effect, FileAction, Goal, Next, Root, Seen, Step};
use crate::blocking::blocking;
use crate::illumos::parse::{self, HostState};
use crate::illumos::{Class, Failure};
use crate::net::illumos::show_vnics;
use crate::private::write_whole;
use crate::storage::beneath;
use crate::storage::zfs::names;
use crate::zone::ZoneError;

/// How often a step is retried after a temporary failure.
const TRIES: u32 = 4;
/// More steps than any zone needs from one state to another. Waits do not count, because they are limited by time.
const STEPS: u32 = 60;

fn carry_out(actions: &[FileAction]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for action in actions {
        let (path, done) = match action {
            FileAction::Directory(path, mode) => {
                let made = fs::create_dir_all(path)
                    .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(*mode)));
                (path, made)
            }
            FileAction::Write(path, text) => (path, write_whole(path, text.as_bytes())),
            FileAction::Empty { root, path } => {
                let root = beneath::root(root);
                let made = root.and_then(|root| beneath::ensure(root, path, false));
                (path, made.map(drop).map_err(io::Error::from))
            }
        };
        done.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

impl Inner {
    /// Observes a zone and its surroundings, as far as they matter for a goal.
    async fn observe(&self, home: &Home, goal: Goal) -> Result<Seen, Failure> {
        let layout = &home.layout;
        let rows = match self.tools.run(&layout.show()).await {
            Ok(output) => parse::zones(&output.stdout),
            Err(failure) if failure.not_found() => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let zone = rows
            .into_iter()
            .find(|row| row.name == layout.zone.as_str());
        home.see(zone.clone());
        let mut seen = Seen {
            zone,
            ..Seen::default()
        };
        if matches!(goal, Goal::Running | Goal::Halted) {
            let vnics = self.tools.run(&show_vnics()).await?;
            let vnics = parse::vnics(&vnics.stdout);
            seen.vnic = vnics.into_iter().find(|row| row.link == layout.vnic.link);
            seen.used = seen.vnic.is_some();
        }
        let state = seen.zone.as_ref().map(|row| row.state);
        if matches!(goal, Goal::Installed | Goal::Running)
            && matches!(state, Some(HostState::Installed | HostState::Ready))
        {
            let show = names::show(&layout.dataset, &["quota", plan::BOOTED]);
            seen.root = match self.tools.run(&show).await {
                Ok(output) => root(&output.stdout, layout.quota),
                Err(failure) if failure.not_found() => Root::Gone,
                Err(failure) => return Err(failure),
            };
        }
        if goal == Goal::Absent {
            let list = names::list(&layout.dataset, false);
            seen.dataset = match self.tools.run(&list).await {
                Ok(_) => true,
                Err(failure) if failure.not_found() => false,
                Err(failure) => return Err(failure),
            };
        }
        Ok(seen)
    }

    /// Brings a zone to a goal. The caller holds its lock.
    pub(super) async fn reach(
        &self,
        operation: &'static str,
        home: &Home,
        goal: Goal,
    ) -> Result<(), ZoneError> {
        let what = || format!("zone {}", home.layout.zone);
        let failed = |cause: String| ZoneError::failed(operation, what(), cause);
        let mut begun = Instant::now();
        let mut seen = None;
        let mut left = TRIES;
        let mut steps = STEPS;
        // The last step, which should have changed the zone's state.
        let mut done = None;
        let (mut overdue, mut hurried) = (false, false);
        loop {
            let known = match seen.take() {
                Some(known) => known,
                None => match self.observe(home, goal).await {
                    Ok(known) => Seen { overdue, ..known },
                    Err(failure) => {
                        left -= 1;
                        if left == 0 || !passing(&failure) {
                            return Err(failed(failure.to_string()));
                        }
                        tokio::time::sleep(self.patience.again).await;
                        continue;
                    }
                },
            };
            let step = match plan::next(goal, &home.layout, &known) {
                Next::Done => return Ok(()),
                Next::Stuck(state) => {
                    return Err(ZoneError::State {
                        operation,
                        what: what(),
                        state,
                    });
                }
                Next::Wait(_) if begun.elapsed() <= self.patience.change => {
                    tokio::time::sleep(self.patience.again).await;
                    continue;
                }
                Next::Wait(reason) if hurried => {
                    return Err(failed(format!("{reason}, and that does not end")));
                }
                Next::Wait(_) => {
                    (overdue, hurried) = (true, true);
                    continue;
                }
                Next::Do(step) => step,
            };
            if steps == 0 {
                return Err(failed(
                    "it does not settle: something else changes it too".into(),
                ));
            }
            steps -= 1;
            if done.take() == Some(step.what) {
                left -= 1;
                if left == 0 {
                    return Err(failed("it does not change its state".into()));
                }
                tokio::time::sleep(self.patience.again).await;
            }
            match self.perform(&step).await {
                Ok(()) => {
                    let mut known = known;
                    known.apply(&home.layout, step.effect);
                    if let Effect::State(_) | Effect::Configured = step.effect {
                        home.see(known.zone.clone());
                    }
                    if step.look {
                        done = Some(step.what);
                        (begun, overdue) = (Instant::now(), false);
                    } else {
                        seen = Some(known);
                    }
                }
                Err(failure) => {
                    tracing::debug!(zone = %home.layout.zone, %failure, step = step.what, "a step of a zone failed");
                    left -= 1;
                    if let Some(owner) = step.command.as_ref().and_then(|one| one.owner.as_deref())
                    {
                        let settled = self.tools.settle(owner).await;
                        settled.map_err(|failure| failed(failure.to_string()))?;
                    }
                    if left == 0 || !passing(&failure) {
                        // The error depends on the current state.
                        let _ = self.observe(home, Goal::Installed).await;
                        return Err(match failure.class {
                            Class::Usage | Class::Brand => ZoneError::Refused {
                                operation,
                                what: what(),
                                reason: failure.to_string(),
                            },
                            _ => failed(failure.to_string()),
                        });
                    }
                    tokio::time::sleep(self.patience.again).await;
                }
            }
        }
    }

    async fn perform(&self, step: &Step) -> Result<(), Failure> {
        if !step.files.is_empty() {
            let files = step.files.clone();
            blocking(move || carry_out(&files))
                .await
                .map_err(|error| Failure {
                    class: Class::Other,
                    command: step.what.to_owned(),
                    said: error.to_string(),
                })?;
        }
        match &step.command {
            Some(command) => self.tools.run(command).await.map(drop),
            None => Ok(()),
        }
    }
}

/// The state of a zone's root according to the columns `quota` and [`plan::BOOTED`] of its zonepath's dataset: the
/// quota is set last in an installation.
fn root(columns: &str, quota: u64) -> Root {
    match parse::columns(columns.trim_end())[..] {
        [_, Some(_)] => Root::Used,
        [Some(known), None] if known.parse() == Ok(quota) => Root::Ready,
        _ => Root::Installed,
    }
}

/// Whether retrying may help.
fn passing(failure: &Failure) -> bool {
    matches!(
        failure.class,
        Class::Busy
            | Class::State
            | Class::Exists
            | Class::NotFound
            | Class::TimedOut
            | Class::Killed
            | Class::Other
    )
}
