//! Setting, resetting and showing link properties.

use super::super::ofmt::{self, Table};
use super::show::chosen;
use super::values::{BAD_VALUE, PROPERTIES, READ_ONLY, UNKNOWN};
use super::*;

/// The possible values of a property, as they are shown.
fn possible(property: &str) -> &'static str {
    match property {
        "priority" => "low,medium,high",
        "protection" => "mac-nospoof,restricted,ip-nospoof,dhcp-nospoof",
        _ => "",
    }
}

pub(super) fn set_linkprop(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    let wanted: Vec<&str> = parsed.values('p').collect();
    let list = wanted.join(",");
    let [name] = parsed.rest.as_slice() else {
        return usage(run);
    };
    let Some(all) = pairs(&list).filter(|all| !all.is_empty()) else {
        return die(run, "link property must be specified");
    };
    must_exist(run, name)?;
    // Changes of a temporary link are always temporary.
    let temporary = parsed.has('t') || run.host().link(name).is_some_and(|link| link.temporary);
    let mut code = exit::OK;
    for (property, values) in all {
        let host = run.host();
        // Only the last one decides.
        code = exit::OK;
        match host.check_link_property(name, property, &values) {
            Ok(value) => set(host, name, property, &value, !temporary),
            Err(why) => {
                run.complain(&match (why, possible(property)) {
                    (UNKNOWN, _) => format!("dladm: warning: invalid link property '{property}'"),
                    (BAD_VALUE, "") => {
                        let value = values.first().copied().unwrap_or_default();
                        format!("dladm: warning: invalid link property '{value}'")
                    }
                    (BAD_VALUE, list) => {
                        format!("dladm: warning: link property '{property}' must be one of: {list}")
                    }
                    _ => format!(
                        "dladm: warning: cannot set link property '{property}' on '{name}': {why}"
                    ),
                });
                code = exit::ERROR;
            }
        }
        run.point("property")?;
    }
    Ok(code)
}

pub(super) fn reset_linkprop(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    let [name] = parsed.rest.as_slice() else {
        return usage(run);
    };
    let names: Vec<String> = match parsed.values('p').collect::<Vec<_>>().join(",") {
        list if list.is_empty() => PROPERTIES.iter().map(|p| (*p).to_owned()).collect(),
        list => list.split(',').map(str::to_owned).collect(),
    };
    must_exist(run, name)?;
    let mut code = exit::OK;
    for property in names {
        code = exit::OK;
        if !PROPERTIES.contains(&property.as_str()) {
            run.complain(&format!(
                "dladm: warning: invalid link property '{property}'"
            ));
            code = exit::ERROR;
            continue;
        }
        set(run.host(), name, &property, "", !parsed.has('t'));
    }
    Ok(code)
}

pub(super) fn show_linkprop(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    if let Some(name) = parsed.rest.first() {
        must_exist(run, name)?;
    }
    let host = run.host();
    let asked: Vec<String> = match parsed.values('p').collect::<Vec<_>>().join(",") {
        list if list.is_empty() => PROPERTIES
            .iter()
            .chain(READ_ONLY)
            .map(|p| (*p).to_owned())
            .collect(),
        list => list.split(',').map(str::to_owned).collect(),
    };
    if let Some(unknown) = asked
        .iter()
        .find(|p| !PROPERTIES.contains(&p.as_str()) && !READ_ONLY.contains(&p.as_str()))
    {
        let text = format!("warning: invalid property '{unknown}'");
        return die(run, &text);
    }
    let mut rows = Vec::new();
    for (name, link) in chosen(host, parsed, |_| true) {
        for property in &asked {
            let value = match parsed.has('P') {
                true => link.persistent.get(property).cloned().unwrap_or_default(),
                false => host.link_property(&link, property),
            };
            let possible = possible(property);
            let default = match property.as_str() {
                "mtu" => "1500",
                "priority" => "high",
                _ => "",
            };
            let permission = if READ_ONLY.contains(&property.as_str()) {
                "r-"
            } else {
                "rw"
            };
            let shown = match (value.as_str(), parsed.has('c')) {
                ("", false) => "--",
                (value, _) => value,
            };
            rows.push(
                [&name, property, permission, shown, default, possible]
                    .iter()
                    .map(|c| (*c).to_owned())
                    .collect(),
            );
        }
    }
    let columns = ["link", "property", "perm", "value", "default", "possible"];
    let table = Table {
        columns: &columns,
        usual: &columns,
        rows,
    };
    ofmt::print(run, "dladm", &table, parsed.has('c'), parsed.value('o'))
}
