//! install, uninstall, clone, move, detach, attach.

use super::check;
use super::{Target, allowed, fail, sub_usage};
use crate::fakehost::disk::{DiskOp, Kind};
use crate::fakehost::exit;
use crate::fakehost::getopt::getopt;
use crate::fakehost::run::{Run, Step};
use crate::fakehost::store::{ConfigStore, IndexState};
use crate::fakehost::zfs::Made;

/// What a hook says by its exit status.
const HOOK_USAGE: i32 = 253;
const HOOK_UNDO: i32 = 254;

/// Words that a shell leaves alone: what zoneadm hands to its hooks goes through one.
fn is_plain(word: &str) -> bool {
    word.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_./:@-=+,%".contains(&b))
}

fn lock_name(zone: &str) -> String {
    format!("{zone}.zoneadm.lock")
}

/// Runs a hook of the brand in a process of its own.
fn hook(run: &mut Run, target: &Target, what: &str, args: &[String]) -> Step<i32> {
    if let Some(word) = args.iter().find(|word| !is_plain(word)) {
        // The real shell would expand it; what comes of that is not played.
        run.complain(&format!("sh: syntax error or expansion in '{word}'"));
        return Ok(exit::USAGE);
    }
    let mut words = vec![
        what.to_owned(),
        target.name.clone(),
        target.configured.path.clone(),
        target.configured.brand.clone(),
    ];
    words.extend(args.iter().cloned());
    let child = run.machine.helper("brand", &words, false)?;
    let reply = run.wait_for(child)?;
    run.out.push_str(&String::from_utf8_lossy(&reply.stdout));
    run.err.push_str(&String::from_utf8_lossy(&reply.stderr));
    Ok(match reply.killed {
        true => {
            run.complain(&format!(
                "zoneadm: zone '{}': '{what}' terminated with signal 9.",
                target.name
            ));
            exit::ERROR
        }
        false => reply.code,
    })
}

/// A uuid that was not given out before.
fn uuid(run: &mut Run) -> String {
    let n = run.host().number();
    format!("6f1c4f2e-0000-4000-8000-{n:012x}")
}

/// The dataset whose mountpoint a directory is.
pub(super) fn dataset_at(run: &mut Run, directory: &str) -> Option<String> {
    run.host()
        .datasets
        .iter()
        .find(|(_, d)| d.mounted.as_deref() == Some(directory))
        .map(|(name, _)| name.clone())
}

/// Makes the zonepath: a dataset if its parent directory is one's mountpoint, else a directory.
fn make_zonepath(run: &mut Run, target: &Target, dataset: bool) -> Step {
    let path = &target.configured.path;
    let (parent, base) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = if parent.is_empty() { "/" } else { parent };
    if let Some(above) = dataset_at(run, parent).filter(|_| dataset) {
        let name = format!("{above}/{base}");
        let (host, disk) = run.view();
        if host.has_dataset(&name) {
            return Ok(());
        }
        let off = |property: &str| (property.to_owned(), "off".to_owned());
        let set = [off("sharenfs"), off("sharesmb")];
        match host.create_dataset(&name, None, &set, disk) {
            Ok(Made::Whole) => {
                host.pending.push(DiskOp::Mode {
                    at: path.clone(),
                    mode: 0o700,
                });
                run.say("A ZFS file system has been created for this zone.");
            }
            Ok(Made::Unmounted(text)) | Err(text) => {
                run.complain(&format!(
                    "{text}\nWARNING: the ZFS file system {name} could not be created"
                ));
            }
        }
    } else {
        run.host().pending.push(DiskOp::Directory {
            at: path.clone(),
            mode: 0o700,
        });
    }
    Ok(())
}

pub(super) fn install(
    run: &mut Run,
    store: &ConfigStore,
    target: &Target,
    args: &[String],
) -> Step<i32> {
    let mut args = args.to_vec();
    let mut dataset = true;
    if args.first().is_some_and(|a| a == "-x") {
        if args.get(1).is_none_or(|a| a != "nodataset") {
            return sub_usage(run, "install");
        }
        dataset = false;
        args.drain(..2);
    }
    if args.first().is_some_and(|a| a == "-?") {
        return sub_usage(run, "install");
    }
    allowed(run, target, "install")?;
    let _lock = run.lock_file(&lock_name(&target.name))?;
    if !check::verify(run, target) {
        return Ok(exit::ERROR);
    }
    make_zonepath(run, target, dataset)?;
    run.point("zonepath")?;
    let uuid = uuid(run);
    store.set_state(&target.name, IndexState::Incomplete, Some(&uuid))?;
    run.point("incomplete")?;
    match hook(run, target, "install", &args)? {
        0 => {
            store.set_state(&target.name, IndexState::Installed, None)?;
            run.point("installed")?;
            Ok(exit::OK)
        }
        HOOK_UNDO => {
            store.set_state(&target.name, IndexState::Configured, None)?;
            Ok(exit::ERROR)
        }
        code => {
            if code == HOOK_USAGE {
                sub_usage(run, "install")?;
            }
            Ok(exit::ERROR)
        }
    }
}

pub(super) fn uninstall(
    run: &mut Run,
    store: &ConfigStore,
    target: &Target,
    args: &[String],
) -> Step<i32> {
    let force = args.iter().any(|a| a == "-F");
    if args.iter().any(|a| a == "-?") {
        return sub_usage(run, "uninstall");
    }
    allowed(run, target, "uninstall")?;
    if !force {
        let text =
            "Input not from terminal and -F not specified:  uninstall command ignored, exiting.";
        return fail(run, &target.name, text);
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    if run.host().zones.contains_key(&target.name) {
        return fail(
            run,
            &target.name,
            "uninstall operation is invalid for running zones.",
        );
    }
    let root = target.configured.root();
    let mounted: Vec<String> = below(run, &root);
    if !mounted.is_empty() {
        run.complain(&format!(
            "These file systems are mounted on subdirectories of {root}."
        ));
        mounted
            .iter()
            .for_each(|at| run.complain(&format!("\t{at}")));
        return fail(
            run,
            &target.name,
            "could not uninstall: file systems are mounted",
        );
    }
    store.set_state(&target.name, IndexState::Incomplete, None)?;
    run.point("incomplete")?;
    let code = hook(run, target, "uninstall", args)?;
    if code != exit::OK {
        return Ok(exit::ERROR);
    }
    run.host().pending.push(DiskOp::RemoveDirectory {
        at: target.configured.path.clone(),
    });
    store.set_state(&target.name, IndexState::Configured, None)?;
    run.point("configured")?;
    Ok(exit::OK)
}

/// What is mounted in the global zone below a directory.
pub(super) fn below(run: &mut Run, directory: &str) -> Vec<String> {
    let prefix = format!("{directory}/");
    run.host()
        .datasets
        .values()
        .filter_map(|d| d.mounted.clone())
        .filter(|at| at.starts_with(&prefix) || at == directory)
        .collect()
}

pub(super) fn clone(
    run: &mut Run,
    store: &ConfigStore,
    target: &Target,
    args: &[String],
) -> Step<i32> {
    let parsed = match getopt(args, "m:s:", &[]) {
        Ok(parsed) if parsed.rest.len() == 1 => parsed,
        _ => return sub_usage(run, "clone"),
    };
    allowed(run, target, "clone")?;
    let source = &parsed.rest[0];
    let Some(entry) = store.entry(source) else {
        return fail(run, source, "No such zone configured");
    };
    if run.host().zones.contains_key(source) {
        return fail(run, source, "clone operation is invalid for running zones.");
    }
    if entry.state != IndexState::Installed {
        return fail(run, source, "must be installed before clone.");
    }
    let document = store.load(source).ok().flatten();
    if document.is_none_or(|d| d.attr_or_empty("brand") != target.configured.brand) {
        return fail(run, source, "must be the same brand as the target zone");
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    if !check::verify(run, target) {
        return Ok(exit::ERROR);
    }
    let path = target.configured.path.clone();
    let (parent, base) = path.rsplit_once('/').unwrap_or(("", &path));
    let (from, above) = (dataset_at(run, &entry.path), dataset_at(run, parent));
    let (Some(from), Some(above), None) = (from, above, parsed.value('m')) else {
        return run.not_played("zoneadm clone without ZFS");
    };
    let uuid = uuid(run);
    store.set_state(&target.name, IndexState::Incomplete, Some(&uuid))?;
    run.point("incomplete")?;
    let (host, disk) = run.view();
    let snapshot = match parsed.value('s') {
        Some(given) => given.to_owned(),
        None => {
            let name = (1..)
                .map(|n| format!("SUNWzone{n}"))
                .find(|name| !host.has_zfs(&format!("{from}@{name}")))
                .unwrap_or_default();
            if let Err(text) = host.snapshot(std::slice::from_ref(&from), &name, &[], disk) {
                return fail(run, &target.name, &text);
            }
            format!("{from}@{name}")
        }
    };
    run.point("snapshot")?;
    let (host, disk) = run.view();
    let opened = host.open_zfs(&snapshot, true);
    let made = opened
        .and_then(|()| host.create_dataset(&format!("{above}/{base}"), Some(&snapshot), &[], disk));
    match made {
        Ok(Made::Whole) => {}
        Ok(Made::Unmounted(text)) | Err(text) => return fail(run, &target.name, &text),
    }
    run.say(&format!("Cloning snapshot {snapshot}\nInstead of copying, a ZFS clone has been created for this zone."));
    store.set_state(&target.name, IndexState::Installed, None)?;
    Ok(exit::OK)
}

pub(super) fn relocate(
    run: &mut Run,
    store: &ConfigStore,
    target: &Target,
    args: &[String],
) -> Step<i32> {
    let [to] = args else {
        return sub_usage(run, "move");
    };
    allowed(run, target, "move")?;
    if !to.starts_with('/') {
        return fail(run, &target.name, &format!("{to} is not an absolute path."));
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    if run.disk().kind(to).is_some() {
        return fail(run, &target.name, &format!("{to} already exists"));
    }
    let (parent, base) = to.rsplit_once('/').unwrap_or(("", to));
    let (from, above) = (
        dataset_at(run, &target.configured.path),
        dataset_at(run, parent),
    );
    let (Some(from), Some(above)) = (from, above) else {
        return run.not_played("zoneadm move without ZFS");
    };
    let (host, disk) = run.view();
    if let Err(text) = host.rename(&from, &format!("{above}/{base}"), disk) {
        return fail(run, &target.name, &text);
    }
    let mut document = target.document.clone();
    document.set("zonepath", to);
    store.save(&document, false)?;
    Ok(exit::OK)
}

pub(super) fn detach(
    run: &mut Run,
    store: &ConfigStore,
    target: &Target,
    args: &[String],
) -> Step<i32> {
    let Ok(parsed) = getopt(args, "n", &[]) else {
        return sub_usage(run, "detach");
    };
    run.without(&parsed, "zoneadm detach", "n")?;
    allowed(run, target, "detach")?;
    let _lock = run.lock_file(&lock_name(&target.name))?;
    store.set_state(&target.name, IndexState::Configured, None)?;
    Ok(exit::OK)
}

pub(super) fn attach(
    run: &mut Run,
    store: &ConfigStore,
    target: &Target,
    args: &[String],
) -> Step<i32> {
    let Ok(parsed) = getopt(args, "Fn:u", &[]) else {
        return sub_usage(run, "attach");
    };
    run.without(&parsed, "zoneadm attach", "nu")?;
    allowed(run, target, "attach")?;
    let _lock = run.lock_file(&lock_name(&target.name))?;
    if run.disk().kind(&target.configured.root()) != Some(Kind::Directory) {
        return fail(run, &target.name, "the zonepath has no root directory");
    }
    let uuid = uuid(run);
    store.set_state(&target.name, IndexState::Installed, Some(&uuid))?;
    Ok(exit::OK)
}
