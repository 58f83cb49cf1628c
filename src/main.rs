//! The `reddwarf` program.

/// Requests make and drop many small values on several threads, which glibc's allocator is slow at.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    reddwarf::cli::run()
}
