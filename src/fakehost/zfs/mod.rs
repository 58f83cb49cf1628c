//! zfs(8) and zpool(8).

mod change;
mod dependents;
mod destroying;
mod editing;
mod mount;
mod mounting;
mod names;
mod pools;
mod properties;
mod show;
mod space;
mod zoned;

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
pub use tests::with_zone;

pub use change::Made;
pub use mount::import;
pub use pools::zpool;
pub use properties::{Source, number};

use super::exit;
use super::getopt::{Bad, Parsed, getopt};
use super::run::{Run, Step, Stop};

/// The usage of each supported subcommand.
const USAGE: &[(&str, &str)] = &[
    ("create", "create [-p] [-o property=value] ... <filesystem>"),
    (
        "clone",
        "clone [-p] [-o property=value] ... <snapshot> <filesystem|volume>",
    ),
    (
        "destroy",
        "destroy [-fnpRrv] <filesystem|volume>\n\tdestroy [-dnpRrv] <filesystem|volume>@<snap>[%<snap>][,...]",
    ),
    (
        "get",
        "get [-rHp] [-d max] [-o \"all\" | field[,...]]\n\t    [-t type[,...]] [-s source[,...]]\n\t    <\"all\" | property[,...]> [filesystem|volume|snapshot|bookmark] ...",
    ),
    ("hold", "hold [-r] <tag> <snapshot> ..."),
    ("holds", "holds [-r] <snapshot> ..."),
    (
        "inherit",
        "inherit [-rS] <property> <filesystem|volume|snapshot> ...",
    ),
    (
        "list",
        "list [-Hp] [-r|-d max] [-o property[,...]] [-s property]...\n\t    [-S property]... [-t type[,...]] [filesystem|volume|snapshot] ...",
    ),
    ("mount", "mount\n\tmount [-vO] [-o opts] <-a | filesystem>"),
    ("promote", "promote <clone-filesystem>"),
    ("release", "release [-r] <tag> <snapshot> ..."),
    (
        "rename",
        "rename [-f] <filesystem|volume|snapshot> <filesystem|volume|snapshot>\n\trename [-f] -p <filesystem|volume> <filesystem|volume>\n\trename -r <snapshot> <snapshot>",
    ),
    (
        "set",
        "set <property=value> ... <filesystem|volume|snapshot> ...",
    ),
    (
        "snapshot",
        "snapshot [-r] [-o property=value] ... <filesystem|volume>@<snap> ...",
    ),
    ("unmount", "unmount [-f] <-a | filesystem|mountpoint>"),
];

/// Subcommands that the fake host does not implement.
const NOT_PLAYED: &[&str] = &[
    "allow",
    "bookmark",
    "diff",
    "groupspace",
    "program",
    "receive",
    "recv",
    "rollback",
    "send",
    "share",
    "unallow",
    "unshare",
    "upgrade",
    "userspace",
    "load-key",
    "unload-key",
    "change-key",
];

/// Ends with an error about the command line, and the usage of a subcommand.
fn usage<T>(run: &mut Run, command: &str, wrong: &str) -> Step<T> {
    let text = USAGE
        .iter()
        .find(|(name, _)| *name == command)
        .map_or("", |(_, text)| text);
    if !wrong.is_empty() {
        run.complain(wrong);
    }
    run.complain(&format!("usage:\n\t{text}\n"));
    run.complain("For the property list, run: zfs set|get");
    run.end(
        exit::USAGE,
        "\nFor the delegated permission list, run: zfs allow|unallow",
    )
}

fn options(run: &mut Run, command: &str, args: &[String], known: &str) -> Step<Parsed> {
    let wrong = match getopt(args, known, &[]) {
        Ok(parsed) => return Ok(parsed),
        Err(bad @ (Bad::Unknown(_) | Bad::Long(_))) => {
            format!("invalid option '{}'", bad.letter())
        }
        Err(Bad::Argument(letter)) => format!("missing argument for '{letter}' option"),
    };
    usage(run, command, &wrong)
}

/// The single argument of a subcommand.
fn one<'a>(run: &mut Run, command: &str, parsed: &'a Parsed, what: &str) -> Step<&'a String> {
    match parsed.rest.as_slice() {
        [word] => Ok(word),
        [] => usage(run, command, &format!("missing {what} argument")),
        _ => usage(run, command, "too many arguments"),
    }
}

/// The source and the target arguments of a subcommand.
fn two<'a>(run: &mut Run, command: &str, parsed: &'a Parsed) -> Step<(&'a String, &'a String)> {
    match parsed.rest.as_slice() {
        [from, to] => Ok((from, to)),
        [] => usage(run, command, "missing source dataset argument"),
        [_] => usage(run, command, "missing target dataset argument"),
        _ => usage(run, command, "too many arguments"),
    }
}

/// `zfs args...`
pub fn zfs(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Some(command) = args.first() else {
        return run.end(exit::USAGE, "missing command\nusage: zfs command args ...");
    };
    let command = match command.as_str() {
        "snap" => "snapshot",
        "umount" => "unmount",
        other => other,
    };
    let args = &args[1..];
    zoned::permit(run, command, args)?;
    match command {
        "create" => create(run, args),
        "clone" => clone(run, args),
        "snapshot" => snapshot(run, args),
        "destroy" => destroying::destroy(run, args),
        "set" => editing::set(run, args),
        "inherit" => editing::inherit(run, args),
        "rename" => editing::rename(run, args),
        "promote" => editing::promote(run, args),
        "mount" => mounting::mount(run, args),
        "unmount" => mounting::unmount(run, args),
        "hold" | "release" => editing::hold(run, command, args),
        "holds" => show::holds(run, args),
        "list" => show::list(run, args),
        "get" => show::get(run, args),
        other if NOT_PLAYED.contains(&other) => run.not_played(&format!("zfs {other}")),
        other => run.end(
            exit::USAGE,
            &format!("unrecognized command '{other}'\nusage: zfs command args ..."),
        ),
    }
}

/// Ends with an error message.
fn fail<T>(run: &mut Run, text: &str) -> Step<T> {
    run.end(exit::ERROR, text)
}

/// The `-o property=value` options of a command line.
fn settings(run: &mut Run, parsed: &Parsed) -> Step<Vec<(String, String)>> {
    let mut settings: Vec<(String, String)> = Vec::new();
    for pair in parsed.values('o') {
        let Some((name, value)) = pair.split_once('=') else {
            return fail(run, "missing '=' for -o option");
        };
        if settings.iter().any(|(n, _)| n == name) {
            let text = format!("property '{name}' specified multiple times");
            return fail(run, &text);
        }
        settings.push((name.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

/// `-p`: creates missing ancestors of a dataset, and succeeds if the dataset itself exists.
fn ancestors(run: &mut Run, name: &str) -> Step {
    if names::wrong(name, false).is_some() {
        return Ok(());
    }
    if run.host().has_dataset(name) {
        return Err(Stop::Ended(exit::OK));
    }
    make_above(run, name)
}

/// Creates missing ancestors of a dataset.
fn make_above(run: &mut Run, name: &str) -> Step {
    let missing: Vec<String> = name
        .match_indices('/')
        .map(|(at, _)| name[..at].to_owned())
        .filter(|above| !run.host().has_dataset(above))
        .collect();
    for above in missing {
        let (host, disk) = run.view();
        match host.create_dataset(&above, None, &[], disk) {
            Ok(Made::Whole) => {}
            Ok(Made::Unmounted(text)) | Err(text) => return fail(run, &text),
        }
        run.point("ancestor")?;
    }
    Ok(())
}

fn create(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "create", args, "V:b:so:p")?;
    let settings = settings(run, &parsed)?;
    run.without(&parsed, "zfs create", "V")?;
    if parsed.has('s') || parsed.has('b') {
        let wrong = "'-s' and '-b' can only be used when creating a volume";
        return usage(run, "create", wrong);
    }
    let name = one(run, "create", &parsed, "filesystem")?;
    if parsed.has('p') {
        ancestors(run, name)?;
    }
    make(run, name, None, &settings)
}

/// Creates a file system, and mounts it in a separate step.
fn make(run: &mut Run, name: &str, origin: Option<&str>, set: &[(String, String)]) -> Step<i32> {
    let (host, disk) = run.view();
    match host.create_dataset(name, origin, set, disk) {
        Ok(Made::Whole) => {}
        Ok(Made::Unmounted(text)) => {
            run.complain(&text);
            if origin.is_none() {
                run.complain("filesystem successfully created, but not mounted");
            }
            return Ok(exit::ERROR);
        }
        Err(text) => return fail(run, &text),
    }
    if let Some(zone) = run.zone.clone() {
        run.host().place_in_zone(&zone, name, true);
    }
    run.point("made")?;
    Ok(exit::OK)
}

fn clone(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "clone", args, "o:p")?;
    let settings = settings(run, &parsed)?;
    let (snapshot, name) = two(run, "clone", &parsed)?;
    if let Err(text) = run.host().open_zfs(snapshot, true) {
        return fail(run, &text);
    }
    if parsed.has('p') {
        ancestors(run, name)?;
    }
    make(run, name, Some(snapshot), &settings)
}

fn snapshot(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "snapshot", args, "ro:")?;
    let settings = settings(run, &parsed)?;
    if parsed.rest.is_empty() {
        return usage(run, "snapshot", "missing snapshot argument");
    }
    for full in &parsed.rest {
        let Some((dataset, name)) = full.split_once('@') else {
            return usage(run, "snapshot", "");
        };
        let (host, disk) = run.view();
        if let Err(text) = host.open_zfs(dataset, false) {
            return usage(run, "snapshot", &text);
        }
        let datasets = match parsed.has('r') {
            true => host.tree(dataset),
            false => vec![dataset.to_owned()],
        };
        if let Err(text) = host.snapshot(&datasets, name, &settings, disk) {
            run.complain(&text);
            run.complain("no snapshots were created");
            return Ok(exit::ERROR);
        }
        run.point("snapshot")?;
    }
    Ok(exit::OK)
}
