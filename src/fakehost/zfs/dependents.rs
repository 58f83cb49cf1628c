//! What depends on a file system or snapshot (`zfs_iter_dependents`).

use super::names;
use crate::fakehost::host::Host;

/// A walk to everything that depends on a file system or snapshot.
struct Walk<'h> {
    host: &'h Host,
    clones: bool,
    /// The file systems on the way to the current one.
    way: Vec<String>,
    found: Vec<String>,
    /// The first file system that was met on the way to itself, and how many others were found before.
    cycle: Option<(usize, String)>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str) {
        if self.found.iter().any(|found| found == name) {
            return;
        }
        if name.contains('@') {
            if self.clones {
                for clone in self.host.clones(name) {
                    self.visit(&clone);
                }
            }
        } else {
            if self.way.iter().any(|above| above == name) {
                self.cycle
                    .get_or_insert_with(|| (self.found.len(), name.to_owned()));
                return;
            }
            self.way.push(name.to_owned());
            let children = self.host.datasets.keys();
            for child in children.filter(|child| names::parent(child) == Some(name)) {
                self.visit(child);
            }
            for snapshot in &self.host.datasets[name].snapshots {
                self.visit(&format!("{name}@{}", snapshot.name));
            }
            self.way.pop();
        }
        self.found.push(name.to_owned());
    }
}

impl Host {
    fn walk(&self, name: &str, clones: bool) -> Walk<'_> {
        let mut walk = Walk {
            host: self,
            clones,
            way: Vec::new(),
            found: Vec::new(),
            cycle: None,
        };
        walk.visit(name);
        walk
    }

    /// Everything that is destroyed with a file system or snapshot, in order, itself last: with `clones` also the
    /// clones of its snapshots, wherever they are. A file system that depends on itself is visited once.
    pub fn dependents(&self, name: &str, clones: bool) -> Vec<String> {
        self.walk(name, clones).found
    }

    /// The same with clones, up to the first file system that depends on itself, whose name is returned, too: such a walk
    /// fails there.
    pub fn dependents_until_cycle(&self, name: &str) -> (Vec<String>, Option<String>) {
        let mut walk = self.walk(name, true);
        match walk.cycle {
            Some((before, at)) => {
                walk.found.truncate(before);
                (walk.found, Some(at))
            }
            None => (walk.found, None),
        }
    }
}
