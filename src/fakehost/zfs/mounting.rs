//! `zfs mount` and `zfs unmount`.

use super::super::exit;
use super::super::run::{Run, Step};
use super::{fail, import, one, options, usage, zoned};

pub(super) fn mount(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "mount", args, "avo:O")?;
    run.without(&parsed, "zfs mount", "voO")?;
    if parsed.has('a') && run.zone.is_none() {
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
    let zone = run.zone.clone();
    let (host, disk) = run.view();
    if let Err(text) = host.open_zfs(name, false) {
        return fail(run, &text);
    }
    if let Some(zone) = zone {
        return zoned::mount(run, &zone, name);
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

pub(super) fn unmount(run: &mut Run, args: &[String]) -> Step<i32> {
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
