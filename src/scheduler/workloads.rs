//! Groups of pods by Services and controllers: pods of one workload are spread even without constraints of their
//! own. Follows DefaultSelector of k8s.io/kubernetes/pkg/scheduler/framework/plugins/helper/spread.go.

use std::collections::HashMap;

use compact_str::CompactString;

use super::pod::{Owner, Pod};
use super::snapshot::Quick;
use crate::client::informer::Key;
use crate::meta::selector::Selector;

/// Services and controllers of pods.
#[derive(Default)]
pub struct Workloads {
    services: HashMap<CompactString, HashMap<CompactString, Selector, Quick>, Quick>,
    owners: HashMap<(CompactString, Owner), Selector, Quick>,
}

impl Workloads {
    /// Sets a Service's selector; `None` if it was deleted, or selects nothing.
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

    /// Sets a controller's selector; `None` if it was deleted.
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

    /// Whether some workload may select a pod, without evaluating selectors.
    pub fn may_select(&self, pod: &Pod) -> bool {
        pod.owner.is_some() || self.services.contains_key(&pod.key.namespace)
    }

    /// The combined selector of the workloads of a pod; `None` if there are none.
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
