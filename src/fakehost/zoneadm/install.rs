//! install, uninstall, clone, move, detach, attach.

use super::check;
use super::{Configured, State, Target, allowed, fail, sub_usage};
use crate::fakehost::disk::{DiskOp, Kind};
use crate::fakehost::exit;
use crate::fakehost::getopt::getopt;
use crate::fakehost::run::{Run, Step};
use crate::fakehost::store::{ConfigStore, IndexState};
use crate::fakehost::zfs::Made;
use crate::fakehost::zonecfg::DETACHED;

/// A hook's exit status for a usage error.
const HOOK_USAGE: i32 = 253;
const HOOK_UNDO: i32 = 254;
const HOOK_FATAL: i32 = 255;

/// Words without special characters for a shell, which passes the arguments to hooks.
fn is_plain(word: &str) -> bool {
    word.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_./:@-=+,%".contains(&b))
}

pub(super) fn lock_name(zone: &str) -> String {
    format!("{zone}.zoneadm.lock")
}

/// Runs a hook of the brand as a separate process.
fn hook(run: &mut Run, target: &Target, what: &str, args: &[String]) -> Step<i32> {
    if let Some(word) = args.iter().find(|word| !is_plain(word)) {
        // The real shell would expand it, which is not implemented.
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
            let work = match what {
                "install" => "installation",
                other => other,
            };
            run.complain(&format!(
                "zoneadm: zone '{}': 'brand-specific {work}' terminated by signal SIGKILL.",
                target.name
            ));
            HOOK_FATAL
        }
        false => reply.code,
    })
}

/// A new uuid.
fn uuid(run: &mut Run) -> String {
    let n = run.host().number();
    format!("6f1c4f2e-0000-4000-8000-{n:012x}")
}

/// The dataset with this mountpoint.
pub(super) fn dataset_at(run: &mut Run, directory: &str) -> Option<String> {
    run.host()
        .datasets
        .iter()
        .find(|(_, d)| d.mounted.as_deref() == Some(directory))
        .map(|(name, _)| name.clone())
}

/// Creates a dataset for the zonepath, an existing directory, if its parent directory is a mountpoint.
fn make_zonepath(run: &mut Run, target: &Target) -> Step {
    let path = &target.configured.path;
    let (parent, base) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = if parent.is_empty() { "/" } else { parent };
    let Some(above) = dataset_at(run, parent) else {
        return Ok(());
    };
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
        // If it cannot be mounted, it is destroyed again.
        Ok(Made::Unmounted(text)) => {
            let gone = host.destroy_dataset(&name, false, disk);
            run.complain(&format!("cannot mount ZFS dataset {name}: {text}"));
            if let Err(text) = gone {
                run.complain(&text);
            }
        }
        Err(text) => run.complain(&format!("cannot create ZFS dataset {name}: {text}")),
    }
    Ok(())
}

/// Removes the zonepath and its dataset after a hook has undone its work (`cleanup_zonepath`).
fn clean_zonepath(run: &mut Run, target: &Target) -> Step {
    let path = target.configured.path.clone();
    if let Some(dataset) = dataset_at(run, &path) {
        let (host, disk) = run.view();
        if host.dependents(&dataset, true).len() == 1
            && host.destroy_dataset(&dataset, false, disk).is_ok()
        {
            run.say("The ZFS file system for this zone has been destroyed.");
            return Ok(());
        }
    }
    for part in ["dev", "lastexited", "logs", "lu", "root", "etc"] {
        run.host().pending.push(DiskOp::RemoveTree {
            at: format!("{path}/{part}"),
        });
    }
    run.host()
        .pending
        .push(DiskOp::RemoveDirectory { at: path });
    Ok(())
}

pub(super) fn install(
    run: &mut Run,
    store: &ConfigStore,
    target: &Target,
    args: &[String],
) -> Step<i32> {
    // This option is also one of the brand's.
    let mut pairs = args.windows(2);
    let own = pairs.position(|pair| pair[0] == "-x" && pair[1] == "nodataset");
    allowed(run, target, "install")?;
    if !check::verify(run, target, "install")? {
        return Ok(exit::ERROR);
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    let uuid = uuid(run);
    store.set_state(&target.name, IndexState::Incomplete, Some(&uuid))?;
    run.point("incomplete")?;
    if own.is_none() {
        make_zonepath(run, target)?;
    }
    run.point("zonepath")?;
    let hooks = match own {
        None => args.to_vec(),
        Some(at) => [&args[..at], &args[at + 2..]].concat(),
    };
    match hook(run, target, "install", &hooks)? {
        0 => {
            store.set_state(&target.name, IndexState::Installed, None)?;
            run.point("installed")?;
            Ok(exit::OK)
        }
        HOOK_UNDO => {
            clean_zonepath(run, target)?;
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
    allowed(run, target, "uninstall")?;
    if !force {
        let text = "Input not from terminal and -F not specified: uninstall not done.";
        return fail(run, &target.name, text);
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    let root = target.configured.root();
    let mounted: Vec<String> = below(run, &root);
    if !mounted.is_empty() {
        let text = format!(
            "These file systems are mounted on subdirectories of {root}.\n\n\t{}",
            mounted.join("\n\t")
        );
        return fail(run, &target.name, &text);
    }
    store.set_state(&target.name, IndexState::Incomplete, None)?;
    run.point("incomplete")?;
    let code = hook(run, target, "uninstall", args)?;
    if code != exit::OK {
        if code == HOOK_USAGE {
            sub_usage(run, "uninstall")?;
        }
        return Ok(exit::ERROR);
    }
    store.set_state(&target.name, IndexState::Configured, None)?;
    run.point("configured")?;
    Ok(exit::OK)
}

/// The file systems mounted in the global zone below a directory.
pub(super) fn below(run: &mut Run, directory: &str) -> Vec<String> {
    let prefix = format!("{directory}/");
    run.host()
        .datasets
        .values()
        .filter_map(|d| d.mounted.clone())
        .filter(|at| at.starts_with(&prefix))
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
    if !check::verify(run, target, "clone")? {
        return Ok(exit::ERROR);
    }
    let source = &parsed.rest[0];
    let wrong = |run: &mut Run, why: &str| {
        fail(
            run,
            &target.name,
            &format!("clone operation is invalid {why}"),
        )
    };
    if source == "global" {
        return wrong(run, "for the global zone.");
    }
    if source.starts_with("SUNW") {
        return wrong(run, "for zones starting with SUNW.");
    }
    let Some(entry) = store.entry(source) else {
        run.complain(&format!(
            "zoneadm: {source}: could not get state: No such zone configured"
        ));
        return Ok(exit::ERROR);
    };
    match run.state_of(&entry) {
        State::Kernel(status) => {
            return wrong(run, &format!("for {} zones.", status.word()));
        }
        State::Index(IndexState::Installed) => {}
        State::Index(state) => {
            run.complain(&format!(
                "zoneadm: zone {source} is {}; installed is required.",
                state.word()
            ));
            return Ok(exit::ERROR);
        }
    }
    let document = store.load(source).ok().flatten();
    let brand = document
        .map(|d| Configured::read(&d).brand)
        .unwrap_or_default();
    if brand != target.configured.brand {
        run.complain(&format!(
            "zoneadm: Zones '{source}' and '{}' have different brand types.",
            target.name
        ));
        return Ok(exit::ERROR);
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
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
    if !check::verify(run, target, "move")? {
        return Ok(exit::ERROR);
    }
    if !to.starts_with('/') {
        run.complain(&format!("{to} is not an absolute path."));
        return Ok(exit::ERROR);
    }
    let disk = run.disk();
    let empty = std::fs::read_dir(disk.real(to)).map(|mut all| all.next().is_none());
    if !empty.unwrap_or(true) {
        run.complain(&format!("could not move zone to {to}: directory not empty"));
        return Ok(exit::ERROR);
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    let path = target.configured.path.clone();
    let Some(dataset) = dataset_at(run, &path) else {
        return run.not_played("zoneadm move without ZFS");
    };
    // The dataset stays, with another mountpoint.
    let (host, disk) = run.view();
    if let Err((text, _)) = host.set_property(&dataset, "mountpoint", Some(to), disk) {
        return fail(run, &target.name, &text);
    }
    run.host()
        .pending
        .push(DiskOp::RemoveDirectory { at: path });
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
    if !check::verify(run, target, "detach")? {
        return Ok(exit::ERROR);
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    let path = &target.configured.path;
    let mounted = below(run, path);
    if !mounted.is_empty() {
        run.complain(&format!(
            "These file systems are mounted on subdirectories of {path}.\n\t{}",
            mounted.join("\n\t")
        ));
        return Ok(exit::ERROR);
    }
    let kept = run.disk().real(&format!("{path}/{DETACHED}"));
    std::fs::write(kept, ConfigStore::text(&target.document))?;
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
    if !check::verify(run, target, "attach")? {
        return Ok(exit::ERROR);
    }
    let _lock = run.lock_file(&lock_name(&target.name))?;
    if run.disk().kind(&target.configured.root()) != Some(Kind::Directory) {
        return fail(run, &target.name, "the zonepath has no root directory");
    }
    let kept = format!("{}/{DETACHED}", target.configured.path);
    let _ = std::fs::remove_file(run.disk().real(&kept));
    let uuid = uuid(run);
    store.set_state(&target.name, IndexState::Installed, Some(&uuid))?;
    Ok(exit::OK)
}
