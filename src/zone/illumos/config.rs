//! Writes the command file that configures a zone, for `zonecfg -z ZONE -f FILE`, which stops at the first error.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::layout::{Brand, Layout, READABLE, SHARES, Settings, caps};
use crate::zone::Limits;

/// The attribute that marks a zone as ours: its value is the owner's uid.
pub const MARK: &str = "rd-uid";
/// The prefix of attributes that hold the caller's labels.
const LABEL: &str = "rd-label-";
/// The longest value of an attribute, in bytes.
const LONGEST: usize = 255;
/// The least memory that zonecfg(8) accepts for a zone, and the least swap, in bytes.
const LEAST_MEMORY: u64 = 1 << 20;
const LEAST_SWAP: u64 = 50 << 20;

/// A quoted value. The grammar has no escapes: other values are rejected.
fn quoted(value: &str) -> Result<String, String> {
    let bad = |c: char| c == '"' || c.is_control();
    match !value.is_empty() && !value.contains(bad) {
        true => Ok(format!("\"{value}\"")),
        false => Err(format!(
            "{value:?} cannot be written in a zone's configuration"
        )),
    }
}

/// The configuration, with a final newline, without which the last line would be ignored.
///
/// # Errors
/// A value cannot be quoted.
pub fn write(
    layout: &Layout,
    settings: &Settings,
    limits: &Limits,
    labels: &BTreeMap<String, String>,
) -> Result<String, String> {
    let mut text = String::new();
    let mut attributes = vec![(MARK.to_owned(), layout.owner.clone())];
    let kept = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .filter(|label| label.len() <= LONGEST);
    attributes.extend(
        kept.enumerate()
            .map(|(number, label)| (format!("{LABEL}{number}"), label)),
    );
    if layout.brand == Brand::Lx {
        attributes.push(("kernel-version".into(), settings.kernel_version.clone()));
    }
    // After an error the earlier lines stay in effect: the mark comes first, so that the remains are recognized as
    // ours.
    let mut lines = vec!["create -F -b".to_owned()];
    for (name, value) in attributes {
        lines.extend([
            "add attr".to_owned(),
            format!("set name={name}"),
            "set type=string".to_owned(),
            format!("set value={}", quoted(&value)?),
            "end".to_owned(),
        ]);
    }
    // The brand decides whether a zone may have a network stack of its own.
    lines.push(format!("set brand={}", layout.brand.name()));
    let path = layout.path.display().to_string();
    lines.push(format!("set zonepath={}", quoted(&path)?));
    lines.push("set autoboot=false".into());
    lines.push("set ip-type=exclusive".into());
    for (name, value) in caps(limits) {
        lines.push(format!("set {name}={value}"));
    }
    lines.extend([
        "add net".to_owned(),
        format!("set physical={}", layout.vnic.link),
        format!(
            "set allowed-address={}/{}",
            layout.interface.address, layout.interface.prefix
        ),
        format!("set defrouter={}", layout.interface.gateway),
        "end".to_owned(),
    ]);
    if let Some(millis) = limits.cpu_millis {
        let hundredths = millis.div_ceil(10).max(1);
        lines.extend([
            "add capped-cpu".to_owned(),
            format!("set ncpus={}.{:02}", hundredths / 100, hundredths % 100),
            "end".to_owned(),
        ]);
    }
    if let Some(bytes) = limits.memory {
        lines.extend([
            "add capped-memory".to_owned(),
            format!("set physical={}", bytes.max(LEAST_MEMORY)),
            format!("set swap={}", bytes.max(LEAST_SWAP)),
            "end".to_owned(),
        ]);
    }
    for (target, source) in &layout.mounts {
        let target = target.display().to_string();
        let options = match target.as_str() {
            READABLE => "[ro,nodevices,nosetuid]",
            // Programs in images may be set-user-id.
            _ if !target.starts_with(SHARES) => "[nodevices]",
            _ => "[nodevices,nosetuid]",
        };
        lines.extend([
            "add fs".to_owned(),
            format!("set dir={}", quoted(&target)?),
            format!("set special={}", quoted(&source.display().to_string())?),
            "set type=lofs".to_owned(),
            format!("set options={options}"),
            "end".to_owned(),
        ]);
    }
    for dataset in layout.datasets.values() {
        lines.extend([
            "add dataset".to_owned(),
            format!("set name={}", quoted(dataset)?),
            "end".to_owned(),
        ]);
    }
    lines.push("commit".into());
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

/// The limits of a zone as resource controls, with the values that its configuration would set.
pub fn controls(limits: &Limits) -> Vec<(&'static str, String)> {
    let names = |name: &str| match name {
        "cpu-shares" => Some("zone.cpu-shares"),
        "max-lwps" => Some("zone.max-lwps"),
        _ => None,
    };
    let mut all: Vec<(&'static str, String)> = caps(limits)
        .into_iter()
        .filter_map(|(name, value)| Some((names(name)?, value)))
        .collect();
    if let Some(millis) = limits.cpu_millis {
        all.push(("zone.cpu-cap", millis.div_ceil(10).max(1).to_string()));
    }
    if let Some(bytes) = limits.memory {
        let memory = bytes.max(LEAST_MEMORY).to_string();
        all.push(("zone.max-physical-memory", memory));
        all.push(("zone.max-swap", bytes.max(LEAST_SWAP).to_string()));
    }
    all
}

/// The labels in the output of `zonecfg info attr`.
pub fn labels(text: &str) -> BTreeMap<String, String> {
    (0..)
        .map_while(|number| crate::illumos::parse::attribute(text, &format!("{LABEL}{number}")))
        .filter_map(|label| {
            let (name, value) = label.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}
