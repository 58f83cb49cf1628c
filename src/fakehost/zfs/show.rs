//! `zfs list`, `zfs get`, `zfs holds`.

use super::properties::{self, PROPERTIES, Property, Shape, Source};
use super::{exit, fail, options, usage};
use crate::fakehost::disk::Disk;
use crate::fakehost::host::Host;
use crate::fakehost::run::{Run, Step};

/// A value and its source; None if the property does not apply to the dataset.
fn value(
    host: &Host,
    disk: &Disk,
    name: &str,
    property: &str,
    exact: bool,
) -> Option<(String, Source)> {
    let Some(native) = properties::find(property) else {
        return host.property(name, property);
    };
    let bytes = |n: u64| match exact {
        true => n.to_string(),
        false => properties::nice(n),
    };
    if native.shape == Shape::ReadOnly {
        return computed(host, disk, name, native, exact).map(|text| (text, Source::None));
    }
    if native.name == "mountpoint" {
        return (!name.contains('@')).then(|| host.mountpoint(name));
    }
    let (value, source) = host.property(name, native.name)?;
    Some(match native.shape {
        Shape::Limit | Shape::Number => {
            let n = value.parse().unwrap_or(0);
            let text = match n {
                0 if !exact => "none".to_owned(),
                n => bytes(n),
            };
            (text, source)
        }
        _ => (value, source),
    })
}

fn computed(
    host: &Host,
    disk: &Disk,
    name: &str,
    native: &Property,
    exact: bool,
) -> Option<String> {
    let bytes = |n: u64| match exact {
        true => n.to_string(),
        false => properties::nice(n),
    };
    let (dataset, snapshot) = match name.split_once('@') {
        Some((dataset, snapshot)) => (dataset, Some(snapshot)),
        None => (name, None),
    };
    let d = host.datasets.get(dataset)?;
    let snapshot = match snapshot {
        Some(s) => Some(d.snapshots.iter().find(|one| one.name == s)?),
        None => None,
    };
    let date = |seconds: u64| match exact {
        true => seconds.to_string(),
        false => jiff::Timestamp::from_second(seconds as i64)
            .map(|t| t.strftime("%a %b %e %H:%M %Y").to_string())
            .unwrap_or_default(),
    };
    if let Some(s) = snapshot {
        return Some(match native.name {
            "type" => "snapshot".to_owned(),
            "creation" => date(s.created),
            "used" => bytes(0),
            "referenced" | "logicalreferenced" => bytes(host.referenced(name, disk)),
            "compressratio" | "refcompressratio" => "1.00x".to_owned(),
            "clones" => host.clones(name).join(","),
            "defer_destroy" => if s.deferred { "on" } else { "off" }.to_owned(),
            "userrefs" => s.holds.len().to_string(),
            "guid" => s.id.to_string(),
            "written" => bytes(0),
            _ => return None,
        });
    }
    let usage = || host.usage(name, disk);
    Some(match native.name {
        "type" => "filesystem".to_owned(),
        "creation" => date(d.created),
        "used" => bytes(usage().used),
        "available" => bytes(usage().available),
        "referenced" | "logicalreferenced" => bytes(host.referenced(name, disk)),
        "compressratio" | "refcompressratio" => match exact {
            true => "1.00".to_owned(),
            false => "1.00x".to_owned(),
        },
        "mounted" => match d.mounted.is_some() || host.mounted_in_zone(name).is_some() {
            true => "yes".to_owned(),
            false => "no".to_owned(),
        },
        "origin" => d.origin.clone()?,
        "version" => "5".to_owned(),
        "guid" => d.id.to_string(),
        "usedbysnapshots" => bytes(usage().snapshots),
        "usedbydataset" => {
            let u = usage();
            bytes(u.used - u.children - u.snapshots - u.reserved)
        }
        "usedbychildren" => bytes(usage().children),
        "usedbyrefreservation" => bytes(usage().reserved),
        "written" => bytes(host.referenced(name, disk)),
        "logicalused" => bytes(usage().used),
        _ => return None,
    })
}

/// The datasets that a command selects.
struct Pick {
    filesystems: bool,
    snapshots: bool,
    depth: Option<usize>,
}

/// The types selected by `-t`.
fn kinds(run: &mut Run, command: &str, text: Option<&str>) -> Step<Option<(bool, bool)>> {
    let Some(text) = text else { return Ok(None) };
    let (mut filesystems, mut snapshots) = (false, false);
    for word in text.split(',') {
        match word {
            "filesystem" | "fs" => filesystems = true,
            "snapshot" | "snap" => snapshots = true,
            "volume" | "vol" | "bookmark" => {}
            "all" => (filesystems, snapshots) = (true, true),
            other => {
                let wrong = format!("invalid type '{other}'");
                return usage(run, command, &wrong);
            }
        }
    }
    Ok(Some((filesystems, snapshots)))
}

/// A dataset and its descendants down to a depth, parents first.
fn walk(host: &Host, top: &str, pick: &Pick) -> Vec<String> {
    if top.contains('@') {
        return vec![top.to_owned()];
    }
    let level = |name: &str| name.split('/').count();
    let mut all = Vec::new();
    for name in host.tree(top) {
        let depth = level(&name) - level(top);
        if pick.depth.is_some_and(|most| depth > most) {
            continue;
        }
        if pick.filesystems {
            all.push(name.clone());
        }
        if pick.snapshots && pick.depth.is_none_or(|most| depth < most) {
            all.extend(
                host.datasets[&name]
                    .snapshots
                    .iter()
                    .map(|s| format!("{name}@{}", s.name)),
            );
        }
    }
    all
}

/// The datasets named by the arguments; missing ones are reported.
fn targets(run: &mut Run, words: &[String], pick: &Pick, recursive: bool) -> (Vec<String>, i32) {
    let zone = run.zone.clone();
    let host = run.host();
    let sees = |name: &str| {
        let dataset = name.split('@').next().unwrap_or(name);
        zone.as_ref().is_none_or(|zone| host.sees(zone, dataset))
    };
    if words.is_empty() {
        let pools: Vec<String> = host
            .pools
            .keys()
            .filter(|p| host.has_pool(p))
            .cloned()
            .collect();
        let all = pools
            .iter()
            .flat_map(|pool| walk(host, pool, pick))
            .filter(|name| sees(name))
            .collect();
        return (all, exit::OK);
    }
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for word in words {
        if word.starts_with('/') {
            // Only what is mounted by ZFS has a dataset (`zfs_path_to_zhandle`).
            let mounted = host.datasets.iter().filter_map(|(name, d)| {
                let at = d.mounted.as_deref()?;
                super::mount::path_is_below(word, at).then_some((at.len(), name))
            });
            match mounted.max() {
                Some((_, name)) => all.push(name.clone()),
                None => wrong.push(format!("'{word}': not a ZFS filesystem")),
            }
            continue;
        }
        if let Err(text) = host.open_zfs(word, word.contains('@')) {
            wrong.push(text);
            continue;
        }
        if !sees(word) {
            wrong.push(format!("cannot open '{word}': dataset does not exist"));
            continue;
        }
        let found = match recursive || pick.depth.is_some() {
            true => walk(host, word, pick),
            false => vec![word.clone()],
        };
        for name in found {
            if !all.contains(&name) && sees(&name) {
                all.push(name);
            }
        }
    }
    let code = if wrong.is_empty() {
        exit::OK
    } else {
        exit::ERROR
    };
    wrong.iter().for_each(|text| run.complain(text));
    (all, code)
}

fn depth(run: &mut Run, command: &str, text: Option<&str>) -> Step<Option<usize>> {
    match text {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(depth) => Ok(Some(depth)),
            Err(_) => {
                let wrong = format!("{text} is not an integer");
                usage(run, command, &wrong)
            }
        },
    }
}

/// Prints rows as a table, or separated by tabs.
fn table(run: &mut Run, header: &[String], rows: &[Vec<String>], plain: bool) {
    if plain {
        rows.iter().for_each(|row| run.say(&row.join("\t")));
        return;
    }
    let widths: Vec<usize> = (0..header.len())
        .map(|at| {
            rows.iter()
                .map(|row| row[at].len())
                .chain([header[at].len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &[String]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    run.say(&line(header));
    rows.iter().for_each(|row| run.say(&line(row)));
}

pub(super) fn list(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "list", args, "HS:d:o:prs:t:")?;
    run.without(&parsed, "zfs list", "sS")?;
    let columns: Vec<String> = match parsed.value('o') {
        None => ["name", "used", "available", "referenced", "mountpoint"]
            .map(str::to_owned)
            .to_vec(),
        Some(text) => text
            .split(',')
            .flat_map(|c| match c {
                "space" => vec![
                    "name",
                    "avail",
                    "used",
                    "usedsnap",
                    "usedds",
                    "usedrefreserv",
                    "usedchild",
                ],
                c => vec![c],
            })
            .map(str::to_owned)
            .collect(),
    };
    if let Some(unknown) = columns
        .iter()
        .find(|c| *c != "name" && properties::find(c).is_none() && !properties::is_user(c))
    {
        let wrong = format!("bad property list: invalid property '{unknown}'");
        return usage(run, "list", &wrong);
    }
    let depth = depth(run, "list", parsed.value('d'))?;
    let kinds = kinds(run, "list", parsed.value('t'))?;
    let (filesystems, snapshots) = kinds.unwrap_or((true, false));
    // With only snapshots selected, the named datasets' snapshots are listed.
    let depth = depth.or((kinds.is_some() && !parsed.has('r') && snapshots).then_some(1));
    let pick = Pick {
        filesystems,
        snapshots,
        depth,
    };
    let (mut names, code) = targets(run, &parsed.rest, &pick, parsed.has('r'));
    names.retain(|name| match name.contains('@') {
        true => snapshots || parsed.rest.contains(name),
        false => filesystems,
    });
    if names.is_empty() {
        if code == exit::OK && !parsed.has('H') {
            run.complain("no datasets available");
        }
        return Ok(code);
    }
    let exact = parsed.has('p');
    let (host, disk) = run.view();
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            columns
                .iter()
                .map(|column| match column.as_str() {
                    "name" => name.clone(),
                    column => value(host, disk, name, column, exact)
                        .map_or("-".to_owned(), |(text, _)| text),
                })
                .collect()
        })
        .collect();
    let header: Vec<String> = columns
        .iter()
        .map(|c| {
            properties::find(c)
                .map_or(c.as_str(), |p| p.column)
                .to_ascii_uppercase()
        })
        .collect();
    table(run, &header, &rows, parsed.has('H'));
    Ok(code)
}

pub(super) fn get(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "get", args, "d:o:s:rt:Hp")?;
    let fields: Vec<String> = match parsed.value('o') {
        None | Some("all") => ["name", "property", "value", "source"]
            .map(str::to_owned)
            .to_vec(),
        Some(text) => text.split(',').map(str::to_owned).collect(),
    };
    if let Some(unknown) = fields
        .iter()
        .find(|f| !["name", "property", "value", "source", "received"].contains(&f.as_str()))
    {
        let wrong = format!("invalid column name '{unknown}'");
        return usage(run, "get", &wrong);
    }
    let sources: Option<Vec<String>> = parsed
        .value('s')
        .map(|text| text.split(',').map(str::to_owned).collect());
    let Some((list, words)) = parsed.rest.split_first() else {
        return usage(run, "get", "missing property argument");
    };
    let asked: Option<Vec<String>> = match list.as_str() {
        "all" => None,
        list => Some(list.split(',').map(str::to_owned).collect()),
    };
    if let Some(unknown) = asked
        .iter()
        .flatten()
        .find(|c| *c != "name" && properties::find(c).is_none() && !properties::is_user(c))
    {
        let wrong = format!("bad property list: invalid property '{unknown}'");
        return usage(run, "get", &wrong);
    }
    let depth = depth(run, "get", parsed.value('d'))?;
    let kinds = kinds(run, "get", parsed.value('t'))?;
    let (filesystems, snapshots) = kinds.unwrap_or((true, true));
    let pick = Pick {
        filesystems,
        snapshots,
        depth,
    };
    let (names, code) = targets(run, words, &pick, parsed.has('r'));
    let exact = parsed.has('p');
    let mut rows = Vec::new();
    let (host, disk) = run.view();
    for name in &names {
        let mut properties: Vec<String> = match &asked {
            Some(asked) => asked.clone(),
            None => PROPERTIES.iter().map(|p| p.name.to_owned()).collect(),
        };
        if asked.is_none() {
            let mut above = Some(name.split('@').next().unwrap_or(name));
            while let Some(at) = above {
                let user = host
                    .datasets
                    .get(at)
                    .into_iter()
                    .flat_map(|d| d.properties.keys());
                properties.extend(user.filter(|p| p.contains(':')).cloned());
                above = super::names::parent(at);
            }
            properties.sort_by_key(|p| p.contains(':'));
            properties.dedup();
        }
        for property in properties {
            let found = value(host, disk, name, &property, exact);
            let (text, source) = match found {
                Some(found) => found,
                None if asked.is_none() => continue,
                None => ("-".to_owned(), Source::None),
            };
            let kind = match &source {
                Source::Local => "local",
                Source::Default => "default",
                Source::Inherited(_) => "inherited",
                Source::None => "none",
            };
            if sources
                .as_ref()
                .is_some_and(|s| !s.iter().any(|s| s == kind))
            {
                continue;
            }
            let full = properties::find(&property).map_or(property.as_str(), |p| p.name);
            rows.push(
                fields
                    .iter()
                    .map(|field| match field.as_str() {
                        "name" => name.clone(),
                        "property" => full.to_owned(),
                        "value" => text.clone(),
                        "received" => "-".to_owned(),
                        _ => source.to_string(),
                    })
                    .collect::<Vec<String>>(),
            );
        }
    }
    let header: Vec<String> = fields.iter().map(|f| f.to_ascii_uppercase()).collect();
    if !rows.is_empty() {
        table(run, &header, &rows, parsed.has('H'));
    }
    Ok(code)
}

pub(super) fn holds(run: &mut Run, args: &[String]) -> Step<i32> {
    let parsed = options(run, "holds", args, "rHp")?;
    if parsed.rest.is_empty() {
        return usage(run, "holds", "missing snapshot argument");
    }
    let mut rows = Vec::new();
    for full in &parsed.rest {
        let Some((dataset, name)) = full.split_once('@') else {
            return fail(run, &format!("'{full}' is not a snapshot"));
        };
        let host = run.host();
        if let Err(text) = host.open_zfs(full, true) {
            return fail(run, &text);
        }
        let Some(snapshot) = host.datasets[dataset]
            .snapshots
            .iter()
            .find(|s| s.name == name)
        else {
            continue;
        };
        for (tag, time) in &snapshot.holds {
            let date = match parsed.has('p') {
                true => time.to_string(),
                false => jiff::Timestamp::from_second(*time as i64)
                    .map(|t| t.strftime("%a %b %e %H:%M %Y").to_string())
                    .unwrap_or_default(),
            };
            rows.push(vec![full.clone(), tag.clone(), date]);
        }
    }
    let header = ["NAME", "TAG", "TIMESTAMP"].map(str::to_owned);
    if !rows.is_empty() {
        table(run, &header, &rows, parsed.has('H'));
    }
    Ok(exit::OK)
}
