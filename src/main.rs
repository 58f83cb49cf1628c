//! The `reddwarf` program.

fn main() -> std::process::ExitCode {
    reddwarf::cli::run()
}
