//! `reddwarf init`: what runs in every zone beside its containers. Started by the agent, not by people.

use std::path::PathBuf;
use std::process::ExitCode;

/// What `init` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// The control directory of the zone to supervise.
    #[arg(long, required_unless_present = "stage")]
    zone: Option<PathBuf>,
    /// The namespaces of the zone are there already.
    #[arg(long)]
    inside: bool,
    /// Become a program: what it is comes over this descriptor.
    #[arg(long, conflicts_with = "zone")]
    stage: Option<i32>,
}

/// Supervises a zone, or becomes a program in it.
#[cfg(target_os = "linux")]
pub fn run(arguments: &Arguments) -> ExitCode {
    use crate::zone::supervisor;
    match (&arguments.zone, arguments.stage) {
        (_, Some(fd)) => supervisor::run_stage(fd),
        (Some(zone), None) => supervisor::run(zone, arguments.inside),
        (None, None) => ExitCode::FAILURE,
    }
}

/// Only zones have one.
#[cfg(not(target_os = "linux"))]
pub fn run(arguments: &Arguments) -> ExitCode {
    let _ = (&arguments.zone, arguments.inside, arguments.stage);
    eprintln!(
        "reddwarf init: this build has no supervisor for {}",
        std::env::consts::OS
    );
    ExitCode::FAILURE
}
