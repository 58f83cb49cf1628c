//! What the pods of a node were given of its processors and memory, and who waits for more. Follows
//! pkg/kubelet/allocation/allocation_manager.go (the order of resizes that wait) and the fit of
//! pkg/scheduler/framework/plugins/noderesources (what an admitted resize needs).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::describe::together;
use crate::meta::amounts::Side;
use crate::meta::quantity::Quantity;

/// Thousandths of a processor, and bytes of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Thousandths of a processor.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

impl Share {
    /// What a pod asks for.
    pub fn of(pod: &Pod) -> Share {
        let asked = |resource| together(pod, Side::Requests, resource);
        Share {
            cpu: asked("cpu").map_or(0, |cpu| cpu.milli_value()),
            memory: asked("memory").map_or(0, |memory| memory.value()),
        }
    }
}

/// By what resizes that wait are gone through, the smallest first: those that need no more than they have, the more
/// important, guaranteed pods, those that wait the longest.
type Rank = (bool, Reverse<i32>, bool, Timestamp);

struct Holder {
    holds: Share,
    waits: Option<(Share, Rank)>,
    wakes: Arc<Notify>,
}

/// The room of a node.
#[derive(Default)]
pub struct Room {
    capacity: Share,
    pods: Mutex<BTreeMap<String, Holder>>,
}

impl Room {
    /// The room of a node with a capacity as its status tells it.
    pub fn new(capacity: &BTreeMap<String, String>) -> Room {
        let amount = |name| {
            capacity
                .get(name)
                .and_then(|text: &String| Quantity::parse(text).ok())
        };
        Room {
            capacity: Share {
                cpu: amount("cpu").map_or(0, |cpu| cpu.milli_value()),
                memory: amount("memory").map_or(0, |memory| memory.value()),
            },
            pods: Mutex::default(),
        }
    }

    /// Notes what a pod was given; it waits for nothing. `wakes` is told when that changes.
    pub fn holds(&self, uid: &str, share: Share, wakes: &Arc<Notify>) {
        let mut pods = self.pods.lock();
        let entry = Holder {
            holds: share,
            waits: None,
            wakes: wakes.clone(),
        };
        let before = pods.insert(uid.to_owned(), entry);
        if before.is_some_and(|before| before.holds != share) {
            self.settle(&mut pods, None);
        }
    }

    /// Takes a pod's share away: it is over.
    pub fn leave(&self, uid: &str) {
        let mut pods = self.pods.lock();
        if pods.remove(uid).is_some() {
            self.settle(&mut pods, None);
        }
    }

    /// Asks for another share for a pod that was given `has`. If there is no room it waits, and is woken when it was
    /// given it; then it asks again.
    ///
    /// # Errors
    /// What there is too little of, in upstream's words.
    pub fn ask(&self, pod: &Pod, has: Share, wants: Share, since: Timestamp) -> Result<(), String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.pods.lock();
        let Some(own) = pods.get_mut(uid) else {
            return Err("the node does not know the pod yet".to_owned());
        };
        if own.holds == wants {
            own.waits = None;
        } else {
            own.holds = has;
            let guaranteed = pod
                .status
                .as_ref()
                .and_then(|status| status.qos_class.as_deref())
                == Some("Guaranteed");
            let spec = pod.spec.as_ref();
            let priority = spec.and_then(|spec| spec.priority).unwrap_or(0);
            let more = wants.cpu > has.cpu || wants.memory > has.memory;
            own.waits = Some((wants, (more, Reverse(priority), !guaranteed, since)));
            self.settle(&mut pods, Some(uid));
        }
        match pods.get(uid).and_then(|own| own.waits) {
            None => Ok(()),
            Some((wants, _)) => self.fits(&pods, uid, wants),
        }
    }

    /// Gives those that wait what fits, in their order; wakes all of them but `asks`.
    fn settle(&self, pods: &mut BTreeMap<String, Holder>, asks: Option<&str>) {
        let mut waiting: Vec<(Rank, String)> = pods
            .iter()
            .filter_map(|(uid, pod)| Some((pod.waits?.1, uid.clone())))
            .collect();
        waiting.sort();
        for (_, uid) in waiting {
            let wants = pods.get(&uid).and_then(|pod| pod.waits);
            let Some((wants, _)) = wants.filter(|wants| self.fits(pods, &uid, wants.0).is_ok())
            else {
                continue;
            };
            if let Some(pod) = pods.get_mut(&uid) {
                pod.holds = wants;
                pod.waits = None;
                if asks != Some(&uid) {
                    pod.wakes.notify_one();
                }
            }
        }
    }

    fn fits(&self, pods: &BTreeMap<String, Holder>, uid: &str, wants: Share) -> Result<(), String> {
        let others = pods.iter().filter(|(other, _)| *other != uid);
        let used = others.fold(Share::default(), |sum, (_, pod)| Share {
            cpu: sum.cpu.saturating_add(pod.holds.cpu),
            memory: sum.memory.saturating_add(pod.holds.memory),
        });
        for (name, wants, used, capacity) in [
            ("cpu", wants.cpu, used.cpu, self.capacity.cpu),
            ("memory", wants.memory, used.memory, self.capacity.memory),
        ] {
            if wants > 0 && wants > capacity.saturating_sub(used) {
                return Err(format!(
                    "Node didn't have enough resource: {name}, requested: {wants}, used: {used}, capacity: {capacity}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_gets_what_becomes_free_in_order() {
        let capacity = BTreeMap::from([
            ("cpu".to_owned(), "2".to_owned()),
            ("memory".to_owned(), "1Gi".to_owned()),
        ]);
        let room = Room::new(&capacity);
        let share = |cpu, memory| Share { cpu, memory };
        let pod = |uid: &str, priority: i32| -> Pod {
            serde_json::from_value(serde_json::json!({
                "metadata": {"uid": uid}, "spec": {"containers": [], "priority": priority}}))
            .expect("a pod")
        };
        let wakes = Arc::new(Notify::new());
        for uid in ["a", "b", "c"] {
            room.holds(uid, share(600, 0), &wakes);
        }
        let at = |second| Timestamp::from_second(second).expect("a time");
        let ask = |uid: &str, priority, has, wants, since| {
            room.ask(
                &pod(uid, priority),
                share(has, 0),
                share(wants, 0),
                at(since),
            )
        };
        let short = |wants, used| {
            Err(format!(
                "Node didn't have enough resource: cpu, requested: {wants}, used: {used}, capacity: 2000"
            ))
        };
        assert_eq!(ask("a", 0, 600, 900, 1), short(900, 1200));
        assert_eq!(ask("b", 9, 600, 1000, 2), short(1000, 1200));
        assert_eq!(
            room.ask(&pod("c", 0), share(600, 0), share(600, 2 << 30), at(3)),
            Err("Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824".to_owned())
        );
        // Less is given at once, and what it leaves goes to the more important one.
        assert_eq!(ask("c", 0, 600, 400, 4), Ok(()));
        assert_eq!(ask("b", 9, 600, 1000, 2), Ok(()));
        assert_eq!(ask("a", 0, 600, 900, 1), short(900, 1400));
        room.leave("b");
        assert_eq!(ask("a", 0, 600, 900, 1), Ok(()));
        assert!(ask("nobody", 0, 0, 1, 1).is_err());
    }
}
