//! The brand `reddwarf`, whose files are in `illumos/brand`: the mounts of `platform.xml`, and the work of `brandctl`.

use super::install::dataset_at;
use crate::fakehost::disk::{Disk, DiskOp, Kind};
use crate::fakehost::exit;
use crate::fakehost::getopt::getopt;
use crate::fakehost::host::ZoneMount;
use crate::fakehost::run::{Run, Step};
use crate::fakehost::xml;
use crate::fakehost::zfs::Made;

/// The brand.
pub const BRAND: &str = "reddwarf";
/// Its configuration.
pub const CONFIG: &str = include_str!("../../../illumos/brand/config.xml");
/// The mounts of its zones.
pub const PLATFORM: &str = include_str!("../../../illumos/brand/platform.xml");
/// Its init, with the same path in the global zone and in its zones.
pub const INIT: &str = crate::zone::illumos::native::INIT;

/// The hook failed before it changed anything: back to configured.
const UNDO: i32 = 254;
const FATAL: i32 = 255;
const USAGE: i32 = 253;

/// The mounts of every zone of a brand: those done by the global zone together with the configured ones, or those done
/// inside the zone afterwards.
pub fn platform(disk: &Disk, brand: &str, in_the_zone: bool) -> Vec<ZoneMount> {
    let path = disk.real(&format!("/usr/lib/brand/{brand}/platform.xml"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let Some(document) = xml::parse(&text) else {
        return Vec::new();
    };
    let kind = if in_the_zone { "mount" } else { "global_mount" };
    document
        .named(kind)
        .map(|mount| ZoneMount {
            directory: mount.attr_or_empty("directory").to_owned(),
            special: mount.attr_or_empty("special").to_owned(),
            kind: mount.attr_or_empty("type").to_owned(),
            options: mount
                .attr_or_empty("opt")
                .split(',')
                .filter(|option| !option.is_empty())
                .map(str::to_owned)
                .collect(),
        })
        .collect()
}

/// `brandctl install ZONE ZONEPATH -s SNAPSHOT`
pub fn install(run: &mut Run, path: &str, args: &[String]) -> Step<i32> {
    let say = |run: &mut Run, code, text: &str| run.end(code, &format!("brandctl: {text}"));
    let Ok(parsed) = getopt(args, "s:", &[]) else {
        return say(run, USAGE, "usage: install -s SNAPSHOT");
    };
    let source = parsed.value('s').unwrap_or_default().to_owned();
    if source.split('@').count() != 2 {
        return say(run, USAGE, &format!("not a snapshot: {source}"));
    }
    let Some(dataset) = dataset_at(run, path) else {
        let text = format!("{path} is no dataset: is the dataset above it mounted?");
        return say(run, UNDO, &text);
    };
    if !destroyed(run, &dataset)? {
        return say(run, UNDO, &format!("cannot replace {dataset}"));
    }
    let (host, disk) = run.view();
    let made = host
        .open_zfs(&source, true)
        .and_then(|()| host.create_dataset(&dataset, Some(&source), &[], disk));
    match made {
        Ok(Made::Whole) => {}
        Ok(Made::Unmounted(text)) | Err(text) => {
            run.complain(&text);
            return say(run, FATAL, &format!("cannot clone {source}"));
        }
    }
    run.host().pending.push(DiskOp::Mode {
        at: path.to_owned(),
        mode: 0o700,
    });
    run.point("cloned")?;
    let root = format!("{path}/root");
    if run.disk().kind(&root) != Some(Kind::Directory) {
        return say(run, FATAL, &format!("{source} has no root/ in it"));
    }
    run.host().pending.push(DiskOp::Mode {
        at: root,
        mode: 0o755,
    });
    run.point("mode")?;
    let (host, disk) = run.view();
    if let Err((text, _)) = host.set_property(&dataset, "devices", Some("off"), disk) {
        run.complain(&text);
        return say(run, FATAL, &format!("cannot finish {dataset}"));
    }
    run.point("devices")?;
    Ok(exit::OK)
}

/// `brandctl uninstall ZONE ZONEPATH [-F]`
pub fn uninstall(run: &mut Run, path: &str) -> Step<i32> {
    if let Some(dataset) = dataset_at(run, path)
        && !destroyed(run, &dataset)?
    {
        return run.end(FATAL, &format!("brandctl: cannot end {dataset}"));
    }
    // At most an empty directory is left, which is removed, too.
    run.host().pending.push(DiskOp::RemoveDirectory {
        at: path.to_owned(),
    });
    Ok(exit::OK)
}

/// `zfs destroy -r`; returns whether it succeeded.
fn destroyed(run: &mut Run, dataset: &str) -> Step<bool> {
    for name in run.host().dependents(dataset, false) {
        let (host, disk) = run.view();
        if !host.has_zfs(&name) {
            continue;
        }
        let result = match name.contains('@') {
            true => host.destroy_snapshot(&name, false),
            false => host.destroy_dataset(&name, false, disk),
        };
        if let Err(text) = result {
            run.complain(&text);
            return Ok(false);
        }
        run.point("destroyed")?;
    }
    Ok(true)
}
