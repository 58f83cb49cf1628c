//! The commands that show links.

use super::super::getopt::Parsed;
use super::super::host::{Host, Link, LinkClass};
use super::super::ofmt::{self, Table};
use super::super::run::{Run, Step};
use super::{die, must_be, must_exist};

/// The links to show: the named one, or all of a kind.
pub(super) fn chosen(
    host: &Host,
    parsed: &Parsed,
    wanted: impl Fn(&Link) -> bool,
) -> Vec<(String, Link)> {
    host.links
        .iter()
        .filter(|(name, link)| match parsed.has('P') {
            true => !link.temporary && parsed.rest.first().is_none_or(|n| n == *name),
            false => link.active && parsed.rest.first().is_none_or(|n| n == *name),
        })
        .filter(|(_, link)| wanted(link))
        .map(|(name, link)| (name.clone(), link.clone()))
        .collect()
}

pub(super) fn show_vnic(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    must_be(run, parsed, LinkClass::Vnic, "a")?;
    let host = run.host();
    if let Some(over) = parsed.value('l').filter(|over| host.link(over).is_none()) {
        return die(
            run,
            &format!("invalid link name '{over}': object not found"),
        );
    }
    let rows = chosen(host, parsed, |link| {
        link.class == LinkClass::Vnic
            && parsed
                .value('l')
                .is_none_or(|over| link.over.as_deref() == Some(over))
    });
    let rows = rows
        .into_iter()
        .map(|(name, link)| {
            let zone = link.zone.clone().unwrap_or_default();
            vec![
                name,
                link.over.unwrap_or_default(),
                "1000".to_owned(),
                link.mac,
                link.mac_kind,
                link.vlan.to_string(),
                zone,
            ]
        })
        .collect();
    let mut columns = vec!["link", "over", "speed", "macaddress", "macaddrtype", "vid"];
    let usual = columns.clone();
    columns.push("zone");
    let table = Table {
        columns: &columns,
        usual: &usual,
        rows,
    };
    ofmt::print(run, "dladm", &table, parsed.has('p'), parsed.value('o'))
}

pub(super) fn show_etherstub(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    must_be(run, parsed, LinkClass::Etherstub, "an")?;
    let host = run.host();
    let rows = chosen(host, parsed, |link| link.class == LinkClass::Etherstub);
    let rows = rows.into_iter().map(|(name, _)| vec![name]).collect();
    let table = Table {
        columns: &["link"],
        usual: &["link"],
        rows,
    };
    ofmt::print(
        run,
        "dladm",
        &table,
        parsed.has('p'),
        Some(parsed.value('o').unwrap_or("link")),
    )
}

/// Ends with an error if parsable output is requested without fields, or with all of them.
fn must_say_fields(run: &mut Run, parsed: &Parsed) -> Step {
    let why = match (parsed.has('p'), parsed.value('o')) {
        (true, None) => "-p requires -o",
        (true, Some(all)) if all.eq_ignore_ascii_case("all") => "\"-o all\" is invalid with -p",
        _ => return Ok(()),
    };
    die(run, why)
}

pub(super) fn show_link(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    if let Some(name) = parsed.rest.first() {
        must_exist(run, name)?;
    }
    must_say_fields(run, parsed)?;
    let host = run.host();
    let rows = chosen(host, parsed, |_| true)
        .into_iter()
        .map(|(name, link)| {
            let mtu = host.link_property(&link, "mtu");
            let zone = link.zone.clone().unwrap_or_default();
            let state = match link.class {
                LinkClass::Etherstub => "unknown",
                _ => "up",
            };
            vec![
                name,
                zone,
                link.class.word().to_owned(),
                mtu,
                state.to_owned(),
                "--".to_owned(),
                link.over.unwrap_or_else(|| "--".to_owned()),
            ]
        })
        .collect();
    let columns = ["link", "zone", "class", "mtu", "state", "bridge", "over"];
    let usual = ["link", "class", "mtu", "state", "bridge", "over"];
    let table = Table {
        columns: &columns,
        usual: &usual,
        rows,
    };
    ofmt::print(run, "dladm", &table, parsed.has('p'), parsed.value('o'))
}

pub(super) fn show_phys(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    must_say_fields(run, parsed)?;
    if let Some(name) = parsed.rest.first() {
        must_exist(run, name)?;
    }
    let host = run.host();
    let rows = chosen(host, parsed, |link| link.class == LinkClass::Phys)
        .into_iter()
        .map(|(name, _)| {
            ["", "Ethernet", "up", "1000", "full", ""]
                .iter()
                .map(|c| match *c {
                    "" => name.clone(),
                    c => c.to_owned(),
                })
                .collect()
        })
        .collect();
    let columns = ["link", "media", "state", "speed", "duplex", "device"];
    let table = Table {
        columns: &columns,
        usual: &columns,
        rows,
    };
    ofmt::print(run, "dladm", &table, parsed.has('p'), parsed.value('o'))
}
