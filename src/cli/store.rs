//! `reddwarf store`: maintains the store of a stopped server.

use std::path::PathBuf;

/// The flags of `store`.
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
    /// Shrink the store's file by its unused space. A running server reuses that space by itself.
    Compact,
}

/// Runs the command.
///
/// # Errors
/// A text that says what failed, why, and what to do.
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
