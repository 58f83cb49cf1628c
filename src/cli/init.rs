//! `reddwarf init`: what runs in every zone beside its containers. Started by the agent, not by people.

use std::path::PathBuf;
use std::process::ExitCode;

/// What `init` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// The control directory of the zone to make on this Linux and to supervise. Without it this is the init of a zone
    /// of illumos.
    #[arg(long)]
    zone: Option<PathBuf>,
    /// How many files each process of the zone may have open at first.
    #[arg(long, requires = "zone")]
    descriptors: Option<u64>,
    /// The namespaces of the zone are there already.
    #[arg(long)]
    inside: bool,
    /// Become a program: what it is comes over this descriptor.
    #[arg(long, conflicts_with = "zone")]
    stage: Option<i32>,
    /// What an init is told: by zoneadm(8) with `boot`, or `0` for `shutdown`.
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
            eprintln!("reddwarf init: only Linux makes zones from within: {zone} {inside}");
            ExitCode::FAILURE
        }
    }
}

/// Only zones have one.
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

/// The program of a zone's first process, by whatever words it is started (an lx zone: `/sbin/init`, with the words of
/// `zoneadm boot`), and of what that starts.
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
