//! The annotations that a deployment sets on its replica sets, and their revision numbers. Follows
//! k8s.io/kubernetes/pkg/controller/deployment/util/deployment_util.go.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// The label that distinguishes the pods of different templates.
pub(super) const HASH: &str = "pod-template-hash";
/// Requests a rollback to an older revision.
pub(super) const ROLLBACK: &str = "deprecated.deployment.rollback.to";
/// The maximum length of the annotation with former revisions.
const MOST_HISTORY: usize = 2000;
/// Annotations that replica sets do not copy.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
    ROLLBACK,
];

fn annotations(set: &mut ReplicaSet) -> &mut BTreeMap<String, String> {
    set.metadata.annotations.get_or_insert_default()
}

fn annotation<'a>(set: &'a ReplicaSet, key: &str) -> Option<&'a String> {
    set.metadata.annotations.as_ref()?.get(key)
}

/// The revision of a replica set: 0 if it has none, None if it is not a number.
pub(super) fn revision(set: &ReplicaSet) -> Option<i64> {
    match annotation(set, REVISION) {
        Some(text) => text.parse().ok(),
        None => Some(0),
    }
}

/// The newest revision.
pub(super) fn newest<'a>(sets: impl Iterator<Item = &'a ReplicaSet>) -> i64 {
    sets.filter_map(revision).max().unwrap_or(0)
}

/// The second-newest revision; 0 if there is none.
pub(super) fn last<'a>(sets: impl Iterator<Item = &'a ReplicaSet>) -> i64 {
    let mut all: Vec<i64> = sets.filter_map(revision).collect();
    all.sort_unstable();
    all.iter().rev().nth(1).copied().unwrap_or(0)
}

/// The deployment's number of replicas when it last scaled this set.
pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    number(set, DESIRED)
}

/// The largest allowed number of replicas when it last scaled this set.
pub(super) fn most(set: &ReplicaSet) -> Option<i32> {
    number(set, MOST)
}

fn number(set: &ReplicaSet, key: &str) -> Option<i32> {
    annotation(set, key)?
        .parse()
        .ok()
        .filter(|number| *number >= 0)
}

/// Sets the annotations with the desired and largest numbers of replicas.
pub(super) fn set_sizes(set: &mut ReplicaSet, desired: i32, most: i32) {
    let annotations = annotations(set);
    annotations.insert(DESIRED.to_owned(), desired.to_string());
    annotations.insert(MOST.to_owned(), most.to_string());
}

/// Updates the annotations of the current set: those copied from the deployment, and its revision.
pub(super) fn take_over(set: &mut ReplicaSet, deployment: &Deployment, newest: i64) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN.contains(&key.as_str()) {
            annotations(set).insert(key.clone(), value.clone());
        }
    }
    let had = annotation(set, REVISION).cloned();
    let old = match had.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(old) => old,
            Err(_) => return,
        },
    };
    if old >= newest {
        return;
    }
    annotations(set).insert(REVISION.to_owned(), newest.to_string());
    let Some(had) = had else { return };
    let history = annotations(set).entry(HISTORY.to_owned()).or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    revisions.push(&had);
    while revisions.len() > 1
        && revisions.iter().map(|text| text.len() + 1).sum::<usize>() > MOST_HISTORY + 1
    {
        revisions.remove(0);
    }
    *history = revisions.join(",");
}

/// Restores the deployment's annotations from one of its sets.
pub(super) fn give_back(deployment: &mut Deployment, set: &ReplicaSet) {
    let own = |key: &String| OWN.contains(&key.as_str());
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| own(key));
    for (key, value) in set.metadata.annotations.iter().flatten() {
        if !own(key) {
            annotations.insert(key.clone(), value.clone());
        }
    }
}
