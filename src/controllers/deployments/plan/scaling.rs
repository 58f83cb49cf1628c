//! Sizes of replica sets: after a change of the number of replicas, and during a rollout. Follows
//! k8s.io/kubernetes/pkg/controller/deployment (sync, rolling, recreate).

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt as _;

use super::super::annotations;
use super::super::sets::{actual, available, fenceposts, is_recreate, size, wanted};
use super::Work;
use crate::controllers::workload::scaled;

impl Work<'_> {
    /// The allowed size of the current set.
    pub(super) fn new_size(&self, current: &ReplicaSet) -> i32 {
        let desired = wanted(&self.deployment);
        if is_recreate(&self.deployment) {
            return desired;
        }
        let strategy = self.deployment.spec.strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = scaled(
            rolling.and_then(|rolling| rolling.max_surge.as_ref()),
            desired,
            true,
        );
        let room = desired + surge - self.total();
        if room <= 0 {
            return size(current);
        }
        size(current) + room.min(desired - size(current))
    }

    /// Resizes one set. Returns whether its size changed.
    pub(super) fn resize(&mut self, uid: Option<String>, new: i32) -> bool {
        let desired = wanted(&self.deployment);
        let (surge, _) = fenceposts(&self.deployment);
        let mut all = self.old.iter_mut().chain(&mut self.current);
        let Some(set) = all.find(|set| set.metadata.uid == uid) else {
            return false;
        };
        let had = size(set);
        annotations::set_sizes(set, desired, desired + surge);
        set.spec.replicas = Some(new);
        let name = set.name_any();
        if had == new {
            return false;
        }
        let way = if had < new { "up" } else { "down" };
        self.tell_scaled(name, way, had, new);
        true
    }

    /// Whether the number of replicas changed since the sets were scaled.
    pub(super) fn is_scaling(&self) -> bool {
        let desired = wanted(&self.deployment);
        self.all()
            .filter(|set| size(set) > 0)
            .any(|set| annotations::desired(set).is_some_and(|then| then != desired))
    }

    /// Distributes the number of replicas over the sets in proportion to their sizes.
    pub(super) fn scale(&mut self) {
        let desired = wanted(&self.deployment);
        let (surge, _) = fenceposts(&self.deployment);
        let active: Vec<Option<String>> = self
            .all()
            .filter(|set| size(set) > 0)
            .map(|set| set.metadata.uid.clone())
            .collect();
        if active.len() <= 1 {
            let latest = self.current.as_ref().or(self.old.last());
            let uid = active
                .into_iter()
                .next()
                .or(latest.map(|set| set.metadata.uid.clone()));
            if let Some(uid) = uid {
                let had = self.all().find(|set| set.metadata.uid == uid).map(size);
                if had != Some(desired) {
                    self.resize(uid, desired);
                }
            }
            return;
        }
        let saturated = self.current.as_ref().is_some_and(|set| {
            size(set) == desired
                && annotations::desired(set) == Some(desired)
                && available(set) == desired
        });
        if saturated {
            let old: Vec<_> = self.old.iter().filter(|set| size(set) > 0).collect();
            let old: Vec<_> = old
                .into_iter()
                .map(|set| set.metadata.uid.clone())
                .collect();
            for uid in old {
                self.resize(uid, 0);
            }
            return;
        }
        if is_recreate(&self.deployment) {
            return;
        }
        let allowed = if desired > 0 { desired + surge } else { 0 };
        let add = allowed
            - self
                .all()
                .filter(|set| size(set) > 0)
                .map(size)
                .sum::<i32>();
        let mut sets: Vec<&ReplicaSet> = self.all().filter(|set| size(set) > 0).collect();
        let created =
            |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        // The largest first; of equally large ones the newest when scaling up, else the oldest.
        sets.sort_by(|a, b| {
            let age = created(a)
                .cmp(&created(b))
                .then(a.name_any().cmp(&b.name_any()));
            let age = if add > 0 { age.reverse() } else { age };
            size(b).cmp(&size(a)).then(age)
        });
        let mut added = 0;
        let mut sizes: Vec<(Option<String>, i32)> = Vec::new();
        for set in sets {
            let mut new = size(set);
            if add != 0 {
                let share = self.share(set, add, added);
                new += share;
                added += share;
            }
            sizes.push((set.metadata.uid.clone(), new));
        }
        if add != 0
            && let Some((_, first)) = sizes.first_mut()
        {
            *first = (*first + add - added).max(0);
        }
        for (uid, new) in sizes {
            self.resize(uid, new);
        }
    }

    /// One set's share of `add`, of which `added` is distributed already.
    fn share(&self, set: &ReplicaSet, add: i32, added: i32) -> i32 {
        if size(set) == 0 || add == added {
            return 0;
        }
        let desired = wanted(&self.deployment);
        let part = if desired == 0 {
            -size(set)
        } else {
            let (surge, _) = fenceposts(&self.deployment);
            let status = self.facts.deployment.status.as_ref();
            let before = annotations::most(set)
                .filter(|most| *most > 0)
                .or(status.and_then(|status| status.replicas))
                .unwrap_or(0);
            if before == 0 {
                return 0;
            }
            let exact = f64::from(size(set)) * f64::from(desired + surge) / f64::from(before);
            // Half away from zero, like Go.
            exact.round() as i32 - size(set)
        };
        let rest = add - added;
        if add > 0 {
            part.min(rest)
        } else {
            part.max(rest)
        }
    }

    /// Does one step of a rolling update. Returns whether something was scaled.
    pub(super) fn roll(&mut self) -> bool {
        self.sync_current(true);
        let desired = wanted(&self.deployment);
        let Some(current) = &self.current else {
            return false;
        };
        let (uid, had) = (current.metadata.uid.clone(), size(current));
        if !self.created && had != desired {
            let new = if had > desired {
                desired
            } else {
                self.new_size(current)
            };
            if new != had && self.resize(uid, new) {
                return true;
            }
        }
        self.shrink_old()
    }

    /// Scales old sets down, as far as enough pods stay available.
    fn shrink_old(&mut self) -> bool {
        let desired = wanted(&self.deployment);
        let (_, below) = fenceposts(&self.deployment);
        let least = desired - below;
        if self.old.iter().map(size).sum::<i32>() == 0 {
            return false;
        }
        let Some(current) = &self.current else {
            return false;
        };
        let (new_size, new_available) = (
            size(current),
            if self.created { 0 } else { available(current) },
        );
        let room = self.total() - least - (new_size - new_available);
        if room <= 0 {
            return false;
        }
        let mut shrunk = false;
        // Unhealthy replicas first: deleting them costs no availability.
        let mut left = room;
        let sick: Vec<_> = self
            .old
            .iter()
            .filter(|set| size(set) > 0 && size(set) != available(set))
            .map(|set| (set.metadata.uid.clone(), size(set), available(set)))
            .collect();
        for (uid, had, healthy) in sick {
            let less = left.min(had - healthy);
            if less <= 0 {
                break;
            }
            shrunk |= self.resize(uid, had - less);
            left -= less;
        }
        let all_available: i32 = self.old.iter().map(available).sum::<i32>() + new_available;
        let mut left = all_available - least;
        let old: Vec<_> = self.old.iter().filter(|set| size(set) > 0).collect();
        let old: Vec<_> = old
            .into_iter()
            .map(|set| (set.metadata.uid.clone(), size(set)))
            .collect();
        for (uid, had) in old {
            let less = left.min(had);
            if less <= 0 {
                break;
            }
            shrunk |= self.resize(uid, had - less);
            left -= less;
        }
        shrunk
    }

    /// Does one step of strategy `Recreate`, which ends all old pods before it creates new ones. Returns whether old
    /// ones still exist.
    pub(super) fn recreate(&mut self) -> bool {
        let old: Vec<_> = self.old.iter().filter(|set| size(set) > 0).collect();
        let old: Vec<_> = old
            .into_iter()
            .map(|set| set.metadata.uid.clone())
            .collect();
        let mut scaled = false;
        for uid in old {
            scaled |= self.resize(uid, 0);
        }
        if scaled || self.old.iter().map(actual).sum::<i32>() > 0 || self.facts.old_pods_run {
            return true;
        }
        self.sync_current(true);
        let desired = wanted(&self.deployment);
        if let Some(current) = self
            .current
            .as_ref()
            .filter(|set| !self.created && size(set) != desired)
        {
            let uid = current.metadata.uid.clone();
            self.resize(uid, desired);
        }
        false
    }
}
