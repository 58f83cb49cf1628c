//! Which pods belong together, as services and owners say: pods of one workload are spread even where they do not
//! ask for it. Follows DefaultSelector of k8s.io/kubernetes/pkg/scheduler/framework/plugins/helper/spread.go.

use std::collections::HashMap;

use compact_str::CompactString;

use super::pod::{Owner, Pod};
use super::snapshot::Quick;
use crate::client::informer::Key;
use crate::meta::selector::Selector;

/// Services and owners of pods.
#[derive(Default)]
pub struct Workloads {
    services: HashMap<CompactString, HashMap<CompactString, Selector, Quick>, Quick>,
    owners: HashMap<(CompactString, Owner), Selector, Quick>,
}

impl Workloads {
    /// Takes in a service and what it selects; none where it is gone, or selects nothing.
    pub fn set_service(&mut self, key: &Key, selector: Option<Selector>) {
        let services = self.services.entry(key.namespace.clone()).or_default();
        match selector {
            Some(selector) => {
                services.insert(key.name.clone(), selector);
            }
            None => {
                services.remove(&key.name);
            }
        }
        if services.is_empty() {
            self.services.remove(&key.namespace);
        }
    }

    /// Takes in an owner of pods and what it selects; none where it is gone.
    pub fn set_owner(&mut self, kind: &str, key: &Key, selector: Option<Selector>) {
        let owner = Owner {
            kind: kind.into(),
            name: key.name.clone(),
        };
        let owner = (key.namespace.clone(), owner);
        match selector {
            Some(selector) => self.owners.insert(owner, selector),
            None => self.owners.remove(&owner),
        };
    }

    /// Whether a pod may belong with others, as far as that is told without looking at all that select.
    pub fn may_select(&self, pod: &Pod) -> bool {
        pod.owner.is_some() || self.services.contains_key(&pod.key.namespace)
    }

    /// What selects the pods that belong with this one; none where it belongs with none.
    pub fn selector_for(&self, pod: &Pod) -> Option<Selector> {
        let mut all = Selector::default();
        let services = self.services.get(&pod.key.namespace);
        for selector in services.into_iter().flat_map(HashMap::values) {
            if pod.labels.are_selected(selector) {
                all.0.extend(selector.0.iter().cloned());
            }
        }
        if let Some(owner) = &pod.owner {
            let key = (pod.key.namespace.clone(), owner.clone());
            if let Some(selector) = self.owners.get(&key) {
                all.0.extend(selector.0.iter().cloned());
            }
        }
        (!all.is_empty()).then_some(all)
    }
}
