//! Prints the whole life of a zone on an empty host, for people who know illumos.

use std::fmt::Write as _;

use super::layout::{Brand, Layout, Settings};
use super::native;
use super::plan::{FileAction, Goal, Seen, Step, plan};
use crate::illumos::Command;
use crate::net::illumos::{NetworkConfig, add_rule, remove_rule};
use crate::storage::StoragePoolConfig;
use crate::storage::zfs::names::{
    HomeDirectories, Names, create, destroy, make_delegated, make_home, make_root, snapshot,
};

/// A container of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The topmost layer of its image.
    pub layer: String,
}

/// Prints what the agent runs for a zone, in order: once for the host, then to create and boot it, start its
/// containers, halt it and remove it; for each command its precondition and effect, for each file its content.
///
/// # Errors
/// Why this zone cannot be created.
pub fn print(
    layout: &Layout,
    settings: &Settings,
    storage: &StoragePoolConfig,
    containers: &[Container],
) -> Result<String, String> {
    let mut page = Page::default();
    let names = Names(storage.clone());
    page.head("host: once, where it is missing");
    page.note("datasets to keep things in");
    for dataset in [
        &storage.pool,
        &storage.zones,
        &storage.images,
        &storage.volumes,
        &names.homes(),
    ] {
        if dataset.contains('/') {
            page.command("", &create(dataset, "base", &[]));
        }
    }
    if let NetworkConfig::Etherstub(config) = &settings.network {
        for command in config.host_side("", "", "")? {
            page.command(
                "the host's side of the pods' network; it ends with the host's next boot",
                &command,
            );
        }
    }
    for rule in settings.network.rules(None) {
        page.command(
            "the way out of the host (by the link's address, where 0/32 has ports), or from zone to zone, if it is not in `ipnat -l`",
            &add_rule(&rule),
        );
    }
    let ready = layout.sandbox.clone().unwrap_or_default();
    let sandbox = ready.split('@').next().unwrap_or_default();
    page.command(
        "what zones are installed from",
        &create(sandbox, "layer", &[]),
    );
    page.note(match layout.brand {
        Brand::Lx => "root/ in it: the supervisor as sbin/init, marker files, empty directories",
        Brand::Reddwarf => "root/ in it: empty directories; the supervisor is the brand's",
    });
    page.command("", &snapshot(&ready));
    let once = std::mem::take(&mut page.count);
    let mut seen = Seen::default();
    page.head("create");
    let ([home], after) = make_home(&names, &layout.owner, None);
    page.command("the pod's home", &home);
    let directories =
        HomeDirectories::of(&settings.zones_directory.join("pods").join(&layout.owner));
    page.note(&format!(
        "directories {} to {}, and {}",
        directories.slot(0).display(),
        directories
            .slot(crate::storage::zfs::names::SLOTS - 1)
            .display(),
        directories.data.display()
    ));
    for command in &after {
        page.command("", command);
    }
    for dataset in layout.datasets.values() {
        let volume = dataset.rsplit('/').nth(1).unwrap_or_default();
        let [outer, inner] = make_delegated(&names, volume, &[]);
        page.command(
            "a volume, with the limit of its size, where it is missing",
            &outer,
        );
        page.command("what is the zone's own of it", &inner);
    }
    page.steps(plan(Goal::Installed, layout, &mut seen)?);
    page.head("boot");
    for rule in &layout.rules {
        page.command(
            "lead a port of the host to the zone; ipfilter is online",
            &add_rule(rule),
        );
    }
    page.steps(plan(Goal::Running, layout, &mut seen)?);
    if layout.brand == Brand::Reddwarf {
        page.note(
            "the supervisor, which is the zone's init, brings the zone up: these run in the zone",
        );
        let (name, value) = native::IPMGMTD_ENVIRONMENT;
        page.inside(&format!("env {name}={value} {}", native::IPMGMTD));
        for command in native::network(&layout.interface, "", false) {
            page.inside(&command);
        }
        for (at, dataset) in &layout.datasets {
            for command in native::mount(dataset, at, None) {
                page.inside(&command);
            }
        }
    }
    page.note("the supervisor in the zone dials the agent and says hello");
    page.command("further protection of the link, which zoneadmd would refuse before and clears at each halt", &layout.vnic.protect());
    for (number, container) in containers.iter().enumerate() {
        page.head(&format!("start container {}", container.name));
        let root = format!("{}/{}-0", layout.owner, container.name);
        let command = make_root(
            &names,
            &root,
            Some(&container.layer),
            &directories.slot(number),
        );
        page.command(
            "its root: seen in the zone through the pod's home",
            &command,
        );
        page.note("the supervisor is told to start it");
    }
    page.head("halt");
    page.note("the supervisor ends the containers, with grace");
    page.steps(plan(Goal::Halted, layout, &mut seen)?);
    for rule in &layout.rules {
        page.command(
            "lead the port of the host there no more",
            &remove_rule(rule),
        );
    }
    page.head("remove");
    page.steps(plan(Goal::Absent, layout, &mut seen)?);
    page.command(
        "its home, with the roots of its containers",
        &destroy(&names.home(&layout.owner), true),
    );
    let _ = writeln!(
        page.text,
        "\n# {} commands for the zone's life, {once} for the host",
        page.count
    );
    Ok(page.text)
}

#[derive(Default)]
struct Page {
    text: String,
    count: u32,
}

impl Page {
    fn head(&mut self, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}## {title}");
    }
    fn note(&mut self, note: &str) {
        let _ = writeln!(self.text, "# {note}");
    }
    fn command(&mut self, why: &str, command: &Command) {
        if !why.is_empty() {
            self.note(why);
        }
        self.count += 1;
        let _ = writeln!(self.text, "{command}");
    }
    fn inside(&mut self, command: &impl std::fmt::Display) {
        let _ = writeln!(self.text, "#   in the zone, where it is missing: {command}");
    }
    fn steps(&mut self, steps: Vec<Step>) {
        for step in steps {
            self.note(step.what);
            let _ = writeln!(self.text, "#   needs: {}", step.needs);
            for file in &step.files {
                match file {
                    FileAction::Directory(path, mode) => {
                        let _ = writeln!(self.text, "#   directory {} {mode:o}", path.display());
                    }
                    FileAction::Empty { root, path } => {
                        let (root, path) = (root.display(), path.display());
                        let _ = writeln!(self.text, "#   empty file {root}{path}");
                    }
                    FileAction::Write(path, content) => {
                        let _ = writeln!(self.text, "#   file {}:", path.display());
                        for line in content.lines() {
                            let _ = writeln!(self.text, "#     {line}");
                        }
                    }
                }
            }
            if let Some(command) = &step.command {
                self.count += 1;
                let _ = writeln!(self.text, "{command}");
            }
            let _ = writeln!(self.text, "#   leaves: {}", step.leaves);
        }
    }
}
