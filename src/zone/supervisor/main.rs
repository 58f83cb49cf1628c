//! `/sbin/init` of lx zones: what `reddwarf init` is, and nothing else, so that it is small and links statically.

fn main() -> std::process::ExitCode {
    reddwarf::cli::run_init()
}
