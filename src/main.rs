//! The `reddwarf` program.

/// Requests allocate and free many small values on several threads, where glibc's allocator is slow.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    reddwarf::cli::run()
}
