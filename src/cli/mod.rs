//! The command line; one file per subcommand.

mod agent;
mod cluster;
mod discover;
mod doctor;
mod host;
mod identity;
mod illumos;
mod image;
mod init;
mod join;
mod names;
mod nodes;
mod patient;
mod serve;
mod store;
mod token;
mod zone;

use std::io::IsTerminal as _;

use clap::{Parser, Subcommand};

use crate::descriptors;

/// Kubernetes for hosts of illumos zones: API server, scheduler, controllers and node agent.
#[derive(Parser)]
#[command(name = "reddwarf", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the Kubernetes API, with controllers and scheduler.
    Serve(Box<serve::Arguments>),
    /// Run this host as a node, with the API server in the same process.
    #[command(alias = "node")]
    Agent(Box<agent::Arguments>),
    /// Create tokens with which other hosts join.
    Token(token::Arguments),
    /// Shrink the file of a store while no server uses it.
    Store(store::Arguments),
    /// Load, pull, list and remove the images of this host.
    Image(image::Arguments),
    /// Check whether this illumos host can run pods, and say what to do if it cannot.
    Doctor(Box<doctor::Arguments>),
    /// Print what the agent would do for a pod on an illumos host.
    Zone(zone::Arguments),
    /// Supervise a zone from within; the agent starts it.
    #[command(hide = true)]
    Init(init::Arguments),
}

/// Runs this program as `/sbin/init` of a zone. Returns the process's exit code.
pub fn run_init() -> std::process::ExitCode {
    init::program(std::env::args().skip(1))
}

/// Prints a line to standard output, ignoring errors: the reader may be gone.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// An error message for the terminal: shortened and escaped, because errors of parsers quote the file.
fn brief(error: &dyn std::fmt::Display) -> String {
    const MOST: usize = 200;
    let whole = error.to_string();
    let mut shown = String::new();
    for c in whole.chars().take(MOST) {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    if whole.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Runs the command line. Returns the process's exit code.
pub fn run() -> std::process::ExitCode {
    // Files for pods must have exactly the modes that the code asks for, whatever the umask was; private ones set their
    // own mode.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let filter = tracing_subscriber::EnvFilter::try_from_env("REDDWARF_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::store::panics_are_errors() {
            tell(panic);
        }
    }));
    let result = match Arguments::parse().command {
        Command::Serve(arguments) => {
            descriptors::raise();
            serve::run(*arguments).map_err(|error| error.to_string())
        }
        Command::Init(arguments) => return init::run(&arguments),
        Command::Doctor(arguments) => doctor::run(*arguments),
        Command::Zone(arguments) => zone::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Store(arguments) => store::run(arguments),
        Command::Image(arguments) => image::run(arguments),
        Command::Agent(arguments) => {
            descriptors::raise();
            agent::run(*arguments).map_err(|error| error.to_string())
        }
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reddwarf: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn files_are_not_printed_for_what_is_wrong_with_them() {
        assert_eq!(super::brief(&"it has no \"kind\""), "it has no \"kind\"");
        assert_eq!(super::brief(&"a\nb\0"), "a\\nb\\u{0}");
        assert_eq!(super::brief(&"x".repeat(300)).len(), 203);
    }
}
