//! `reddwarf init`: the supervisor that runs in every zone. Started by the agent, not by people.

use std::path::PathBuf;
use std::process::ExitCode;

/// The flags of `init`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The control directory of the zone to create on Linux and to supervise. Without it this is the init of a zone on
    /// illumos.
    #[arg(long)]
    zone: Option<PathBuf>,
    /// The soft limit of open files for processes of the zone.
    #[arg(long, requires = "zone")]
    descriptors: Option<u64>,
    /// The namespaces of the zone exist already.
    #[arg(long)]
    inside: bool,
    /// Become the program whose description comes over this descriptor.
    #[arg(long, conflicts_with = "zone")]
    stage: Option<i32>,
    /// Arguments of an init: those of zoneadm(8) `boot`, or `0` for `shutdown`.
    #[arg(hide = true)]
    words: Vec<String>,
}

/// Supervises a zone, or becomes a program in it.
#[cfg(target_os = "linux")]
pub fn run(arguments: &Arguments) -> ExitCode {
    use crate::zone::supervisor;
    if let Some(most) = arguments.descriptors {
        crate::descriptors::keep(most);
    }
    match (&arguments.zone, arguments.stage) {
        (_, Some(fd)) => supervisor::run_stage(fd),
        (Some(zone), None) => supervisor::run(zone, arguments.inside),
        (None, None) => supervisor::init(&arguments.words),
    }
}

/// Supervises a reddwarf zone, or becomes a program in it.
#[cfg(target_os = "illumos")]
pub fn run(arguments: &Arguments) -> ExitCode {
    use crate::zone::supervisor;
    match (&arguments.zone, arguments.stage) {
        (_, Some(fd)) => supervisor::run_stage(fd),
        (None, None) => supervisor::init(&arguments.words),
        (Some(zone), None) => {
            let (zone, inside) = (zone.display(), arguments.inside);
            eprintln!("reddwarf init: zones are set up from within only on Linux: {zone} {inside}");
            ExitCode::FAILURE
        }
    }
}

/// Only Linux and illumos have zones.
#[cfg(not(any(target_os = "linux", target_os = "illumos")))]
pub fn run(arguments: &Arguments) -> ExitCode {
    let _ = (
        &arguments.zone,
        arguments.inside,
        arguments.stage,
        &arguments.words,
    );
    eprintln!(
        "reddwarf init: this build has no supervisor for {}",
        std::env::consts::OS
    );
    ExitCode::FAILURE
}

/// The main function of a zone's first process, with any arguments (for `/sbin/init` of an lx zone those of `zoneadm
/// boot`), and of the processes that it starts.
pub fn program(words: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<String> = words.collect();
    let stage = match words.as_slice() {
        [init, stage, fd] if init == "init" && stage == "--stage" => fd.parse().ok(),
        _ => None,
    };
    run(&Arguments {
        zone: None,
        descriptors: None,
        inside: false,
        stage,
        words,
    })
}
