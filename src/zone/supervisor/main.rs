//! `/sbin/init` of lx zones: only what `reddwarf init` does, so that it is small and links statically.

fn main() -> std::process::ExitCode {
    reddwarf::cli::run_init()
}
