//! The pod that is checked: its containers and security contexts.

use super::Judge;
use super::breach::{Breach, Names};
use crate::schema::Value;

/// A pod or pod template.
#[derive(Clone, Copy)]
pub(in super::super) struct Pod<'a> {
    pub(super) meta: &'a Value,
    pub(super) spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// The pod, or the pod of a template.
    pub fn of(object: &'a Value) -> Self {
        Pod {
            meta: object.at("metadata"),
            spec: object.at("spec"),
        }
    }

    pub(super) fn containers(self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| self.spec.list(list))
    }

    /// The containers for which `is` holds, as shown in messages; `None` if there are none.
    pub(super) fn named(self, mut is: impl FnMut(&Value) -> bool) -> Option<Names> {
        let names: Vec<String> = self
            .containers()
            .filter(|container| is(container))
            .map(|container| container.str("name").to_owned())
            .collect();
        (!names.is_empty()).then_some(Names(names))
    }

    /// The security contexts for which `is` holds: `pod and containers "a", "b"`; `None` if there are none.
    pub(super) fn setters(self, mut is: impl FnMut(&Value) -> bool) -> Option<String> {
        let mut setters = Vec::new();
        if is(self.spec.at("securityContext")) {
            setters.push("pod".to_owned());
        }
        if let Some(names) = self.named(|container| is(container.at("securityContext"))) {
            setters.push(names.containers());
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }

    pub(super) fn annotation(self, key: &str) -> Option<&'a str> {
        self.meta.at("annotations").at(key).as_str()
    }

    pub(super) fn unless_windows(self, judge: Judge) -> Option<Breach> {
        if self.spec.at("os").str("name") == "windows" {
            return None;
        }
        judge(self)
    }

    /// Relaxes a check for pods with their own user namespace.
    pub(super) fn unless_own_users(self, judge: Judge) -> Option<Breach> {
        if self.spec.at("hostUsers").as_bool() == Some(false) {
            return None;
        }
        judge(self)
    }
}
