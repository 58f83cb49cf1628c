//! `fakehost --root DIR TOOL ARGS...`, or a link with a tool's name and the directory in `FAKEHOST_ROOT`.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use reddwarf::fakehost::{Machine, exit};

const USAGE: &str = "usage: fakehost --root DIR TOOL ARGS...
       FAKEHOST_ROOT=DIR TOOL ARGS...   (through a link of the tool's name)
       fakehost --root DIR ctl help     (what can be told to the host)";

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(text) => {
            eprintln!("fakehost: {text}");
            ExitCode::from(exit::NOT_PLAYED as u8)
        }
    }
}

fn run() -> Result<i32, String> {
    let mut args: Vec<String> = std::env::args_os()
        .map(|arg| arg.into_string())
        .collect::<Result<_, _>>()
        .map_err(|arg| format!("{} is not UTF-8", arg.to_string_lossy()))?;
    let own = args.remove(0);
    let own = own.rsplit('/').next().unwrap_or(&own).to_owned();
    let mut root = std::env::var_os("FAKEHOST_ROOT").map(PathBuf::from);
    let tool = match own.as_str() {
        "fakehost" => {
            if args.first().is_some_and(|a| a == "--root") && args.len() > 1 {
                root = Some(PathBuf::from(args.remove(1)));
                args.remove(0);
            }
            if args.is_empty() {
                return Err(USAGE.to_owned());
            }
            args.remove(0)
        }
        tool => tool.to_owned(),
    };
    let root = root.ok_or(USAGE)?;
    if tool == "ctl" && args.first().is_some_and(|a| a == "init") {
        return reddwarf::fakehost::init(&root, &args[1..]);
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let machine =
        Machine::of_processes(&root, program).map_err(|e| format!("{}: {e}", root.display()))?;
    let stdin = match reddwarf::fakehost::reads_stdin(&tool, &args) {
        true => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|e| format!("standard input: {e}"))?;
            bytes
        }
        false => Vec::new(),
    };
    let reply = machine.run_here(&tool, &args, &stdin, Default::default(), None);
    // The caller may be gone.
    let _ = std::io::stdout().write_all(&reply.stdout);
    let _ = std::io::stderr().write_all(&reply.stderr);
    Ok(reply.code)
}
