//! zfs(8) and zpool(8).

mod change;
mod mount;
mod names;
mod pools;
mod properties;
mod show;
mod space;

#[cfg(test)]
pub(super) mod tests;

pub use change::Made;
pub use mount::import;
pub use pools::zpool;
pub use properties::{Source, number};

use super::exit;
use super::getopt::{Bad, Parsed, getopt};
use super::run::{Run, Step, Stop, now};

/// The usage of each subcommand that is played.
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

/// Subcommands of the real tool that the fake host does not play.
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

/// Ends with the usage of a subcommand after what is wrong with the command line.
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
        Err(Bad::Unknown(letter)) => format!("invalid option '{letter}'"),
        Err(Bad::Argument(letter)) => format!("missing argument for '{letter}' option"),
    };
    usage(run, command, &wrong)
}

/// The one word that a subcommand takes.
fn one<'a>(run: &mut Run, command: &str, parsed: &'a Parsed, what: &str) -> Step<&'a String> {
    match parsed.rest.as_slice() {
        [word] => Ok(word),
        [] => usage(run, command, &format!("missing {what} argument")),
        _ => usage(run, command, "too many arguments"),
    }
}

/// The source and the target that a subcommand takes.
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
    match command {
        "create" => create(run, args),
        "clone" => clone(run, args),
        "snapshot" => snapshot(run, args),
        "destroy" => destroy(run, args),
        "set" => set(run, args),
        "inherit" => inherit(run, args),
        "rename" => rename(run, args),
        "promote" => promote(run, args),
        "mount" => mount_command(run, args),
        "unmount" => unmount(run, args),
        "hold" | "release" => hold(run, command, args),
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

/// Ends with why something failed.
fn fail<T>(run: &mut Run, text: &str) -> Step<T> {
    run.end(exit::ERROR, text)
}

/// The `-o property=value` of a command line.
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

/// What `-p` asks for: makes what is missing above a dataset, and ends well if the dataset itself is there.
fn ancestors(run: &mut Run, name: &str) -> Step {
    if names::wrong(name, false).is_some() {
        return Ok(());
    }
    if run.host().has_dataset(name) {
        return Err(Stop::Ended(exit::OK));
    }
    make_above(run, name)
}

/// Makes what is missing above a dataset.
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

/// Makes a file system, and mounts it in a step of its own.
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

fn destroy(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "destroy", args, "vpndfrR")?;
    let name = one(run, "destroy", &parsed, "dataset")?;
    let clones = parsed.has('R');
    let (recursive, force) = (clones || parsed.has('r'), parsed.has('f'));
    run.without(&parsed, "zfs destroy", "nvp")?;
    if let Some((dataset, list)) = name.split_once('@') {
        return destroy_snapshots(run, dataset, list, &parsed);
    }
    if let Err(text) = run.host().open_zfs(name, false) {
        return fail(run, &text);
    }
    if !recursive && names::parent(name).is_none() {
        let text = format!(
            "cannot destroy '{name}': operation does not apply to pools\nuse 'zfs destroy -r {name}' to destroy all datasets in the pool\nuse 'zpool destroy {name}' to destroy the pool itself"
        );
        return fail(run, &text);
    }
    let inside = |n: &str| names::is_below(n.split('@').next().unwrap_or(n), name);
    let all = run.host().dependents(name, true);
    if !recursive && all.iter().any(|n| n != name && inside(n)) {
        run.complain(&format!("cannot destroy '{name}': filesystem has children"));
        run.complain("use '-r' to destroy the following datasets:");
        let listed: Vec<String> = all
            .iter()
            .rev()
            .filter(|n| *n != name && inside(n))
            .cloned()
            .collect();
        listed.iter().for_each(|n| run.complain(n));
        return Ok(exit::ERROR);
    }
    if recursive && !clones && all.iter().any(|n| !inside(n)) {
        run.complain(&format!(
            "cannot destroy '{name}': filesystem has dependent clones"
        ));
        run.complain("use '-R' to destroy the following datasets:");
        let listed: Vec<String> = all.iter().filter(|n| !inside(n)).cloned().collect();
        listed.iter().for_each(|n| run.complain(n));
        return Ok(exit::ERROR);
    }
    let all = run.host().dependents(name, clones);
    destroy_in_order(run, name, all, force, parsed.has('d'))
}

/// Destroys one after another; the first that cannot be ends it. The pool's own file system stays.
fn destroy_in_order(
    run: &mut Run,
    top: &str,
    all: Vec<String>,
    force: bool,
    defer: bool,
) -> Step<i32> {
    for one in all {
        if names::parent(&one).is_none() && !one.contains('@') {
            continue;
        }
        let (host, disk) = run.view();
        // Another command may have been faster.
        if !host.has_zfs(&one) {
            if one == top {
                return fail(
                    run,
                    &format!("cannot destroy '{one}': dataset does not exist"),
                );
            }
            continue;
        }
        let result = match one.contains('@') {
            true => host.destroy_snapshot(&one, defer),
            false => host.destroy_dataset(&one, force, disk),
        };
        if let Err(text) = result {
            return fail(run, &text);
        }
        if one != top {
            run.point("destroyed")?;
        }
    }
    Ok(exit::OK)
}

/// `dataset@a,b,c`, with `-r` in all datasets below too.
fn destroy_snapshots(run: &mut Run, dataset: &str, list: &str, parsed: &Parsed) -> Step<i32> {
    if let Err(text) = run.host().open_zfs(dataset, false) {
        return fail(run, &text);
    }
    let host = run.host();
    let datasets = match parsed.has('r') {
        true => host.tree(dataset),
        false => vec![dataset.to_owned()],
    };
    let found: Vec<String> = datasets
        .iter()
        .flat_map(|d| list.split(',').map(move |s| format!("{d}@{s}")))
        .filter(|full| host.has_zfs(full))
        .collect();
    if found.is_empty() {
        return fail(
            run,
            "could not find any snapshots to destroy; check snapshot names.",
        );
    }
    let (clones, defer) = (parsed.has('R'), parsed.has('d'));
    for full in &found {
        let needed = run.host().clones(full);
        if clones || defer || needed.is_empty() {
            continue;
        }
        run.complain(&format!(
            "cannot destroy '{full}': snapshot has dependent clones"
        ));
        run.complain("use '-R' to destroy the following datasets:");
        needed.iter().for_each(|n| run.complain(n));
        return Ok(exit::ERROR);
    }
    for full in found {
        let all = run.host().dependents(&full, clones);
        let code = destroy_in_order(run, &full, all, parsed.has('f'), defer)?;
        if code != exit::OK {
            return Ok(code);
        }
        run.point("destroyed")?;
    }
    Ok(exit::OK)
}

fn set(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "set", args, "")?;
    let pairs: Vec<&String> = parsed.rest.iter().take_while(|a| a.contains('=')).collect();
    let datasets = &parsed.rest[pairs.len()..];
    if parsed.rest.is_empty() || pairs.is_empty() {
        let wrong = match parsed.rest.is_empty() {
            true => "missing arguments",
            false => "missing property=value argument(s)",
        };
        return usage(run, "set", wrong);
    }
    if datasets.is_empty() {
        return usage(run, "set", "missing dataset name(s)");
    }
    let mut code = exit::OK;
    for name in datasets {
        if let Err(text) = run.host().open_zfs(name, name.contains('@')) {
            run.complain(&text);
            code = exit::ERROR;
            continue;
        }
        for pair in &pairs {
            let Some((property, value)) = pair.split_once('=') else {
                continue;
            };
            let (host, disk) = run.view();
            if let Err((text, _)) = host.set_property(name, property, Some(value), disk) {
                run.complain(&text);
                code = exit::ERROR;
                break;
            }
            run.point("set")?;
        }
    }
    Ok(code)
}

fn inherit(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "inherit", args, "rS")?;
    let Some((property, datasets)) = parsed.rest.split_first() else {
        return usage(run, "inherit", "missing property argument");
    };
    if datasets.is_empty() {
        return usage(run, "inherit", "missing dataset argument");
    }
    match properties::find(property) {
        Some(native) if native.shape == properties::Shape::ReadOnly || native.fixed => {
            return fail(run, &format!("{property} property is read-only"));
        }
        Some(native) if !native.inherits && !parsed.has('S') => {
            run.complain(&format!("'{property}' property cannot be inherited"));
            if native.shape == properties::Shape::Limit {
                run.complain(&format!("use 'zfs set {property}=none' to clear"));
                run.complain(&format!(
                    "use 'zfs inherit -S {property}' to revert to received value"
                ));
            }
            return Ok(exit::ERROR);
        }
        None if !properties::is_user(property) => {
            return usage(run, "inherit", &format!("invalid property '{property}'"));
        }
        _ => {}
    }
    let mut code = exit::OK;
    for name in datasets {
        if let Err(text) = run.host().open_zfs(name, name.contains('@')) {
            run.complain(&text);
            code = exit::ERROR;
            continue;
        }
        let names = match parsed.has('r') && !name.contains('@') {
            true => run.host().tree(name),
            false => vec![name.clone()],
        };
        for name in names {
            let (host, disk) = run.view();
            if let Err((text, _)) = host.set_property(&name, property, None, disk) {
                run.complain(&text);
                code = exit::ERROR;
            }
        }
    }
    Ok(code)
}

fn rename(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "rename", args, "prf")?;
    let (from, to) = two(run, "rename", &parsed)?;
    if parsed.has('r') && !from.contains('@') {
        return usage(
            run,
            "rename",
            "source dataset for recursive rename must be a snapshot",
        );
    }
    if let Err(text) = run.host().open_zfs(from, from.contains('@')) {
        return fail(run, &text);
    }
    if parsed.has('p') {
        make_above(run, to)?;
    }
    let mut sources = vec![from.clone()];
    if parsed.has('r')
        && let Some((dataset, snapshot)) = from.split_once('@')
    {
        sources = run
            .host()
            .tree(dataset)
            .into_iter()
            .map(|d| format!("{d}@{snapshot}"))
            .collect();
        let host = run.host();
        sources.retain(|s| host.has_zfs(s));
    }
    for source in sources {
        let target = match (parsed.has('r'), source.split_once('@'), to.split_once('@')) {
            (true, Some((dataset, _)), Some((_, name))) => format!("{dataset}@{name}"),
            _ => to.clone(),
        };
        let (host, disk) = run.view();
        if let Err(text) = host.rename(&source, &target, disk) {
            return fail(run, &text);
        }
    }
    Ok(exit::OK)
}

fn promote(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "promote", args, "")?;
    let name = one(run, "promote", &parsed, "clone filesystem")?;
    let host = run.host();
    let result = host.open_zfs(name, false).and_then(|()| host.promote(name));
    match result {
        Ok(()) => Ok(exit::OK),
        Err(text) => fail(run, &text),
    }
}

fn mount_command(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "mount", args, "avo:O")?;
    run.without(&parsed, "zfs mount", "voO")?;
    if parsed.has('a') {
        let (host, disk) = run.view();
        let wrong = import(host, disk);
        return match wrong.is_empty() {
            true => Ok(exit::OK),
            false => fail(run, &wrong.join("\n")),
        };
    }
    let [name] = parsed.rest.as_slice() else {
        if parsed.rest.len() > 1 {
            return usage(run, "mount", "too many arguments");
        }
        let mounted: Vec<String> = run
            .host()
            .datasets
            .iter()
            .filter_map(|(name, d)| Some(format!("{name:<30}  {}", d.mounted.as_ref()?)))
            .collect();
        mounted.iter().for_each(|line| run.say(line));
        return Ok(exit::OK);
    };
    let (host, disk) = run.view();
    if let Err(text) = host.open_zfs(name, false) {
        return fail(run, &text);
    }
    let (mountpoint, _) = host.mountpoint(name);
    let wrong = if host.is_on(name, "zoned") {
        Some("dataset is exported to a local zone".to_owned())
    } else if mountpoint == "legacy" {
        Some("legacy mountpoint\nuse mount(8) to mount this filesystem".to_owned())
    } else if mountpoint == "none" {
        Some("no mountpoint set".to_owned())
    } else if host
        .property(name, "canmount")
        .is_some_and(|(v, _)| v == "off")
    {
        Some("'canmount' property is set to 'off'".to_owned())
    } else if host.datasets[name].mounted.is_some() {
        Some("filesystem already mounted".to_owned())
    } else {
        host.writable(name)
            .err()
            .filter(|why| why.contains("suspended"))
            .map(str::to_owned)
    };
    let result = match wrong {
        Some(why) => Err(format!("cannot mount '{name}': {why}")),
        None => host.mount(name, disk),
    };
    match result {
        Ok(()) => Ok(exit::OK),
        Err(text) => fail(run, &text),
    }
}

fn unmount(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "unmount", args, "af")?;
    run.without(&parsed, "zfs unmount", "a")?;
    let name = one(run, "unmount", &parsed, "filesystem")?;
    let (host, disk) = run.view();
    let name = match name.starts_with('/') {
        true => {
            let found = host
                .datasets
                .iter()
                .find(|(_, d)| d.mounted.as_deref() == Some(name))
                .map(|(n, _)| n.clone());
            match found {
                Some(found) => found,
                None => {
                    return fail(
                        run,
                        &format!("cannot unmount '{name}': not currently mounted"),
                    );
                }
            }
        }
        false => {
            if let Err(text) = host.open_zfs(name, false) {
                return fail(run, &text);
            }
            name.clone()
        }
    };
    if host.datasets[&name].mounted.is_none() {
        return fail(
            run,
            &format!("cannot unmount '{name}': not currently mounted"),
        );
    }
    match host.unmount(&name, disk, parsed.has('f')) {
        Ok(()) => {
            host.remove_mountpoint(&name);
            Ok(exit::OK)
        }
        Err(text) => fail(run, &text),
    }
}

fn hold(run: &mut Run, command: &str, args: &[String]) -> Step<i32> {
    let parsed = options(run, command, args, "r")?;
    let Some((tag, snapshots)) = parsed.rest.split_first().filter(|(_, s)| !s.is_empty()) else {
        return usage(run, command, "missing argument");
    };
    if command == "hold" && tag.starts_with('.') {
        return fail(run, &format!("'{tag}' may not start with '.'"));
    }
    let mut code = exit::OK;
    for full in snapshots {
        let what = match command {
            "hold" => format!("cannot hold snapshot '{full}'"),
            _ => format!("cannot release hold from snapshot '{full}'"),
        };
        let Some((dataset, name)) = full.split_once('@') else {
            run.complain(&format!("'{full}' is not a snapshot"));
            code = exit::ERROR;
            continue;
        };
        let host = run.host();
        if let Err(text) = host.open_zfs(dataset, false) {
            run.complain(&text);
            code = exit::ERROR;
            continue;
        }
        let datasets = match parsed.has('r') {
            true => host.tree(dataset),
            false => vec![dataset.to_owned()],
        };
        let mut seen = false;
        for dataset in datasets {
            let host = run.host();
            let found = host
                .datasets
                .get_mut(&dataset)
                .and_then(|d| d.snapshots.iter_mut().find(|s| s.name == name));
            let Some(snapshot) = found else { continue };
            seen = true;
            let wrong = match command {
                "hold" if snapshot.holds.contains_key(tag) => {
                    Some("tag already exists on this dataset")
                }
                "hold" => {
                    snapshot.holds.insert(tag.clone(), now());
                    None
                }
                _ if snapshot.holds.remove(tag).is_none() => Some("no such tag on this dataset"),
                _ => {
                    host.release_deferred(&format!("{dataset}@{name}"));
                    None
                }
            };
            if let Some(wrong) = wrong {
                run.complain(&format!("{what}: {wrong}"));
                code = exit::ERROR;
            }
        }
        if !seen {
            run.complain(&format!("{what}: dataset does not exist"));
            code = exit::ERROR;
        }
    }
    Ok(code)
}
