//! Starting a supervisor: the part that all zones have in common, and the init of an illumos zone.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use super::control::Supervisor;
use super::{Configuration, Walls, ZONE, system};
use crate::zone::ZoneSpec;
use crate::zone::illumos::{CONTROL, READABLE};

/// The size of a zone's shared memory, in bytes: the default of other runtimes.
#[cfg(target_os = "linux")]
pub(super) const SHARED_MEMORY: u64 = 64 << 20;

pub(super) fn configuration(directory: &Path) -> io::Result<Configuration> {
    Ok(serde_json::from_slice(&std::fs::read(
        directory.join(ZONE),
    )?)?)
}

/// Supervises until the process ends. Children are processes of `program`, which is ours.
pub(super) fn supervise(
    walls: Walls,
    directory: PathBuf,
    configuration: Configuration,
    program: PathBuf,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisor = Rc::new(Supervisor::new(walls, directory, configuration, program));
    tokio::task::LocalSet::new().block_on(&runtime, supervisor.serve())
}

/// Makes the directories in memory of a zone.
pub(super) fn memory(spec: &ZoneSpec) -> io::Result<()> {
    for (path, size) in &spec.memory_directories {
        system::tmpfs(path, *size)?;
        open_to_all(path, spec.memory_group)?;
    }
    Ok(())
}

/// Lets everybody use a directory, and gives what is made in it to `group`.
fn open_to_all(path: &Path, group: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = match group {
        Some(group) => {
            std::os::unix::fs::chown(path, None, Some(group))?;
            0o2777
        }
        None => 0o777,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// The arguments of the shell by which zoneadm(8) shuts a zone down, if its brand has no own way.
const SHUTDOWN: [&str; 2] = ["-c", "exec /sbin/init 0"];
/// A shell's exit status if a program does not exist.
const NO_PROGRAM: u8 = 127;

/// The init of an illumos zone: `/sbin/init` of an lx zone, `/usr/lib/brand/reddwarf/init` of a reddwarf zone. It
/// supervises the zone and does not end; for `shutdown`, zoneadm(8) starts another process of the same program in the
/// zone, which asks the first to end the containers and the zone. In an lx zone that process runs as `/bin/sh`, but is
/// not a shell.
pub fn init(words: &[String]) -> ExitCode {
    if words.first().is_some_and(|word| word == SHUTDOWN[0]) && words != SHUTDOWN {
        eprintln!("this zone has no shell outside of its containers");
        return NO_PROGRAM.into();
    }
    if !is_of_a_zone(std::process::id(), Path::new(CONTROL)) {
        eprintln!(
            "reddwarf init: this is not a zone; it is only started by agents, in the zones that they create"
        );
        return ExitCode::FAILURE;
    }
    if let Some(supervisor) = system::supervisor(words) {
        let asked = rustix::process::kill_process(supervisor, rustix::process::Signal::TERM);
        return match asked {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("reddwarf init: the zone's supervisor cannot be asked: {error}");
                ExitCode::FAILURE
            }
        };
    }
    system::open_console();
    if let Err(error) = in_a_zone() {
        eprintln!("reddwarf init: {error}");
    }
    system::give_up()
}

/// Whether a process with this id, and this control directory, is in a zone. Outside of one there is an init that is
/// not ours. A first process always is: its end would be that of the zone.
fn is_of_a_zone(pid: u32, control: &Path) -> bool {
    pid == 1 || control.is_dir()
}

fn in_a_zone() -> io::Result<()> {
    let (readable, control) = (Path::new(READABLE), PathBuf::from(CONTROL));
    let at = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let configuration = configuration(readable).map_err(|error| at(&readable.join(ZONE), error))?;
    let spec = &configuration.spec;
    if let Err(error) = system::name_host(&spec.hostname) {
        eprintln!("reddwarf init: the host name {}: {error}", spec.hostname);
    }
    system::bring_up(&configuration)?;
    memory(spec)?;
    // A short path, because socket paths are limited.
    std::env::set_current_dir(&control).map_err(|error| at(&control, error))?;
    supervise(Walls::Roots, control, configuration, system::program()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_group_is_the_groups_with_all_that_is_made_in_it() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        // Without root, only the own group can be used.
        let group = rustix::process::getegid().as_raw();
        for (given, mode) in [(None, 0o777), (Some(group), 0o2777)] {
            open_to_all(directory.path(), given).expect("opened");
            let found = std::fs::metadata(directory.path()).expect("there");
            assert_eq!((found.mode() & 0o7777, found.gid()), (mode, group));
        }
    }

    #[test]
    fn the_init_of_others_is_left_alone() {
        let zone = tempfile::tempdir().expect("a directory");
        let none = zone.path().join("none");
        for (pid, control, expected) in [
            (1, none.as_path(), true),
            (1, zone.path(), true),
            (7, zone.path(), true),
            (7, none.as_path(), false),
        ] {
            assert_eq!(is_of_a_zone(pid, control), expected, "{pid} {control:?}");
        }
    }
}
