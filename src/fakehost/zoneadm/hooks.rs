//! The hooks of brands, which zoneadm runs as separate programs: `brand install|uninstall ZONE ZONEPATH BRAND ...`.
//!
//! Those of `lx` follow omniosorg's `lx_install`, `lx_uninstall` and `shared/image.ksh`. Those of `reddwarf` are in
//! [`ours`]. Other brands create an empty root.

use super::install::{below, dataset_at};
use super::ours;
use crate::fakehost::disk::{DiskOp, Kind};
use crate::fakehost::exit;
use crate::fakehost::getopt::getopt;
use crate::fakehost::run::{Run, Step};
use crate::fakehost::zfs::Made;

/// The hook failed.
const FATAL: i32 = 255;

/// `brand WHAT ZONE ZONEPATH BRAND args...`
pub fn brand(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let [what, _, path, brand, rest @ ..] = args else {
        run.complain("usage: brand install|uninstall ZONE ZONEPATH BRAND ARGS...");
        return Ok(exit::USAGE);
    };
    match what.as_str() {
        "install" if brand == "lx" => seed(run, path, rest),
        "install" if brand == ours::BRAND => ours::install(run, path, rest),
        "install" => empty_root(run, path),
        _ if brand == ours::BRAND => ours::uninstall(run, path),
        _ => uninstall(run, path, rest),
    }
}

fn give_up<T>(run: &mut Run, text: &str) -> Step<T> {
    run.end(FATAL, text)
}

fn seed(run: &mut Run, path: &str, args: &[String]) -> Step<i32> {
    let options = "Available options are:\n\t-s <dataset|snapshot|pathname>\tZone installation source\n\t(-t is a backwards compatible alias for -s)\n";
    let parsed = match getopt(args, "R:s:t:z:v", &[]) {
        Ok(parsed) => parsed,
        Err(_) => return give_up(run, options),
    };
    let Some(source) = parsed
        .value('s')
        .or_else(|| parsed.value('t'))
        .map(str::to_owned)
    else {
        let text = format!("The installation source must be specified.\n\n{options}");
        return give_up(run, &text);
    };
    let dataset = dataset_at(run, path);
    if source.starts_with('/') {
        unpack(run, &source, path)?;
    } else {
        let Some(dataset) = dataset.clone() else {
            let text = format!("ERROR: {path} is not a ZFS dataset, cannot install from {source}");
            return give_up(run, &text);
        };
        replace(run, &source, &dataset)?;
    }
    run.point("cloned")?;
    let root = format!("{path}/root");
    // The script checks no exit status here.
    match run.disk().kind(&root) {
        Some(Kind::Directory) => run.host().pending.push(DiskOp::Mode {
            at: root,
            mode: 0o755,
        }),
        _ => run.complain(&format!(
            "chmod: WARNING: can't access {root}\nchgrp: {root}: No such file or directory"
        )),
    }
    run.point("mode")?;
    run.complain(&format!(
        "rmdir: directory \"{path}/cores\": Directory does not exist"
    ));
    if let Some(dataset) = dataset_at(run, path) {
        let (host, disk) = run.view();
        if let Err((text, _)) = host.set_property(&dataset, "devices", Some("off"), disk) {
            run.complain(&text);
        }
    }
    run.point("devices")?;
    Ok(exit::OK)
}

/// `zfs destroy -fr` of the zonepath's dataset, replaced by a clone.
fn replace(run: &mut Run, source: &str, dataset: &str) -> Step {
    let (host, disk) = run.view();
    let snapshot = match source.contains('@') {
        true => source.to_owned(),
        false => {
            let name = jiff::Timestamp::now()
                .strftime("%Y%m%dT%H%M%SZ")
                .to_string();
            let made = host
                .open_zfs(source, false)
                .and_then(|()| host.snapshot(&[source.to_owned()], &name, &[], disk));
            if let Err(text) = made {
                return give_up(run, &text);
            }
            format!("{source}@{name}")
        }
    };
    if let Err(text) = run.host().open_zfs(&snapshot, true) {
        return give_up(run, &format!("ERROR: {text}"));
    }
    let inside = |name: &str| {
        name.strip_prefix(dataset)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@']))
    };
    let all = run.host().dependents(dataset, true);
    if all.iter().any(|name| !inside(name)) {
        return give_up(
            run,
            &format!("cannot destroy '{dataset}': filesystem has dependent clones"),
        );
    }
    for name in all {
        let (host, disk) = run.view();
        if !host.has_zfs(&name) {
            continue;
        }
        let result = match name.contains('@') {
            true => host.destroy_snapshot(&name, false),
            false => host.destroy_dataset(&name, true, disk),
        };
        if let Err(text) = result {
            return give_up(run, &text);
        }
    }
    run.point("destroyed")?;
    let (host, disk) = run.view();
    match host.create_dataset(dataset, Some(&snapshot), &[], disk) {
        Ok(Made::Whole) => Ok(()),
        Ok(Made::Unmounted(text)) | Err(text) => give_up(run, &text),
    }
}

/// Unpacks an archive of a root file system into `root` below the zonepath.
fn unpack(run: &mut Run, archive: &str, path: &str) -> Step {
    let real = run.disk().real(archive);
    let real = if real.exists() { real } else { archive.into() };
    let root = run.disk().real(path).join("root");
    let result = run.away(|_| {
        std::fs::create_dir_all(&root)?;
        let file = std::fs::File::open(&real)?;
        tar::Archive::new(file).unpack(&root)
    })?;
    match result {
        Ok(()) => Ok(()),
        Err(error) => give_up(run, &format!("ERROR: {archive}: {error}")),
    }
}

fn empty_root(run: &mut Run, path: &str) -> Step<i32> {
    for directory in [
        "dev", "etc/svc", "proc", "sys", "tmp", "var", "usr", "sbin", "lib",
    ] {
        run.host().pending.push(DiskOp::Directory {
            at: format!("{path}/root/{directory}"),
            mode: 0o755,
        });
    }
    run.point("root")?;
    Ok(exit::OK)
}

fn uninstall(run: &mut Run, path: &str, args: &[String]) -> Step<i32> {
    if getopt(args, "F", &[]).is_err() {
        return give_up(run, "usage: uninstall [-F]");
    }
    if run.disk().kind(path) != Some(Kind::Directory) {
        return give_up(
            run,
            &format!("ERROR: zonepath {path} does not exist or is not a directory"),
        );
    }
    let Some(dataset) = dataset_at(run, path) else {
        // Without a dataset the directory is removed with its contents, including mounts.
        let mounted = below(run, path);
        for at in mounted {
            let (host, disk) = run.view();
            let names: Vec<String> = host
                .datasets
                .iter()
                .filter(|(_, d)| d.mounted.as_deref() == Some(&at))
                .map(|(name, _)| name.clone())
                .collect();
            for name in names {
                // File systems mounted below lose their files.
                let _ = host.unmount(&name, disk, true);
                if let Some(d) = host.datasets.get(&name) {
                    let id = d.id;
                    host.pending.push(DiskOp::Discard { id });
                    host.pending.push(DiskOp::Fresh { id });
                }
            }
        }
        run.host().pending.push(DiskOp::RemoveTree {
            at: path.to_owned(),
        });
        return Ok(exit::OK);
    };
    for name in run.host().dependents(&dataset, false) {
        let (host, disk) = run.view();
        if !host.has_zfs(&name) {
            continue;
        }
        let cloned = host.clones(&name);
        let result = match name.contains('@') {
            true if !cloned.is_empty() => Err(format!(
                "cannot destroy '{dataset}': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\n{}",
                cloned.join("\n")
            )),
            true => host.destroy_snapshot(&name, false),
            false => host.destroy_dataset(&name, false, disk),
        };
        if let Err(text) = result {
            return give_up(run, &text);
        }
        run.point("destroyed")?;
    }
    Ok(exit::OK)
}
