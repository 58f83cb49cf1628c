//! The command line: one file a subcommand.

mod agent;
mod cluster;
mod doctor;
mod host;
mod identity;
mod illumos;
mod image;
mod init;
mod names;
mod nodes;
mod serve;
mod store;
mod zone;

use clap::{Parser, Subcommand};

/// The Kubernetes API for a host of illumos zones.
#[derive(Parser)]
#[command(name = "reddwarf", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the Kubernetes API.
    Serve(Box<serve::Arguments>),
    /// Run this host as a node, with the API server in the same process.
    #[command(alias = "node")]
    Agent(Box<agent::Arguments>),
    /// Make the file of a store smaller while no server runs on it.
    Store(store::Arguments),
    /// Load, list and remove the images of this host.
    Image(image::Arguments),
    /// Check whether this illumos host can run pods, and say what to do where it cannot.
    Doctor(Box<doctor::Arguments>),
    /// Print what an illumos host would get for a pod.
    Zone(zone::Arguments),
    /// Supervise a zone from within; the agent starts it.
    #[command(hide = true)]
    Init(init::Arguments),
}

/// Runs this program as the init of a zone: what `/sbin/init` there is. The result is the process's exit code.
pub fn run_init() -> std::process::ExitCode {
    init::program(std::env::args().skip(1))
}

/// Runs the command line; the result is the process's exit code.
pub fn run() -> std::process::ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("REDDWARF_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::store::panics_are_errors() {
            tell(panic);
        }
    }));
    let result = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(*arguments).map_err(|error| error.to_string()),
        Command::Init(arguments) => return init::run(&arguments),
        Command::Doctor(arguments) => doctor::run(*arguments),
        Command::Zone(arguments) => zone::run(arguments),
        Command::Store(arguments) => store::run(arguments),
        Command::Image(arguments) => image::run(arguments),
        Command::Agent(arguments) => agent::run(*arguments).map_err(|error| error.to_string()),
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
}
