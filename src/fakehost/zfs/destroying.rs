//! `zfs destroy`: what is destroyed together, and in which order.

use super::super::exit;
use super::super::getopt::Parsed;
use super::super::run::{Run, Step};
use super::{fail, names, one, options};

pub(super) fn destroy(run: &mut Run, args: &[String]) -> Step<i32> {
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
    // Clones elsewhere were refused above, unless they are wanted.
    let (all, cycle) = run.host().dependents_until_cycle(name);
    let code = destroy_in_order(run, name, all, force, parsed.has('d'))?;
    match cycle {
        Some(at) => fail(
            run,
            &format!("cannot determine dependent datasets: recursive dependency at '{at}'"),
        ),
        None => Ok(code),
    }
}

/// Destroys one after another, up to the first failure. The pool's own file system stays.
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
        let zone = run.zone.clone();
        let (host, disk) = run.view();
        // Another command may have destroyed it.
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
            false => host.destroy_dataset_in(zone.as_deref(), &one, force, disk),
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

/// `dataset@a,b,c`, with `-r` also in all descendants.
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
