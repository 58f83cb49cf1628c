//! Runs the tools of a Linux host that set up networks: ip(8) and nft(8).

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs a tool with this input; returns its output, or its error messages.
pub(super) fn tool(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program}: {error}"),
    };
    let mut child = Command::new(program)
        .args(arguments)
        // Some of its messages are parsed.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let stdin = child.stdin.take();
    let done = std::thread::scope(|scope| {
        // Concurrently with reading its output, so that neither has to fit into a pipe.
        scope.spawn(move || {
            // A tool that ends early reports why on standard error.
            stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
        });
        child.wait_with_output().map_err(missing)
    })?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&done.stderr)
                .trim()
                .replace('\n', "; ")
        )),
    }
}

/// Whether nft(8) only complains that an element does not exist.
pub(super) fn is_gone(complaint: &str) -> bool {
    complaint.contains("No such file or directory")
}
