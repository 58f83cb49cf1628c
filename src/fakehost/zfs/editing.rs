//! Subcommands that change existing datasets: `zfs set`, `inherit`, `rename`, `promote`, `hold` and `release`.

use super::super::exit;
use super::super::run::{Run, Step, now};
use super::{fail, make_above, one, options, properties, two, usage};

pub(super) fn set(run: &mut Run, args: &[String]) -> Step<i32> {
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
            let zone = run.zone.clone();
            let (host, disk) = run.view();
            let set = match zone {
                Some(zone) => host.set_in_zone(&zone, name, property, value, disk),
                None => {
                    let set = host.set_property(name, property, Some(value), disk);
                    set.map_err(|(text, _)| text)
                }
            };
            if let Err(text) = set {
                run.complain(&text);
                code = exit::ERROR;
                break;
            }
            run.point("set")?;
        }
    }
    Ok(code)
}

pub(super) fn inherit(run: &mut Run, args: &[String]) -> Step<i32> {
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

pub(super) fn rename(run: &mut Run, args: &[String]) -> Step<i32> {
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

pub(super) fn promote(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "promote", args, "")?;
    let name = one(run, "promote", &parsed, "clone filesystem")?;
    let host = run.host();
    let result = host.open_zfs(name, false).and_then(|()| host.promote(name));
    match result {
        Ok(()) => Ok(exit::OK),
        Err(text) => fail(run, &text),
    }
}

pub(super) fn hold(run: &mut Run, command: &str, args: &[String]) -> Step<i32> {
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
