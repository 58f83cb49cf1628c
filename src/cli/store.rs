//! `reddwarf store`: the store of a server that does not run.

use std::path::PathBuf;

/// What `store` takes.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The data directory of the server.
    #[arg(long, global = true, default_value = "reddwarf-data")]
    data_dir: PathBuf,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Give back to the disk what the store's file does not use. A server that runs uses it again by itself.
    Compact,
}

/// Runs the command.
///
/// # Errors
/// A text that says what cannot be done, why, and what to do.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Command::Compact = arguments.command;
    let (before, after) =
        crate::store::compact(&arguments.data_dir).map_err(|error| error.to_string())?;
    super::say(&format!(
        "{}: {} KiB, of {} KiB before",
        arguments.data_dir.join("store.redb").display(),
        after >> 10,
        before >> 10
    ));
    Ok(())
}
