//! Counts the open watches that a change is sent to. Follows k8s.io/apiserver/pkg/util/flowcontrol/watch_tracker.go.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use parking_lot::Mutex;

use crate::api::query::Query;
use crate::api::request_info::Info;

/// What is watched: group, resource, namespace and name; the last two may be empty for all.
type Key = [CompactString; 4];

/// The open watches by what they watch. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<HashMap<Key, usize>>>);

/// An open watch; counted until dropped.
pub struct Open {
    watched: Watched,
    key: Key,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.watched.0.lock();
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

impl Watched {
    /// Counts a watch. Watches of the pods of one node see few changes and are not counted.
    pub fn open(&self, info: &Info, query: &Query) -> Option<Open> {
        let of_one_node = info.resource == "pods" && {
            let selected = query.listing().ok();
            let node = selected
                .as_ref()
                .and_then(|listing| listing.fields.exact("spec.nodeName"));
            node.is_some_and(|node| !node.is_empty())
        };
        if of_one_node {
            return None;
        }
        let key = key(info, &info.namespace, &info.name);
        *self.0.lock().entry(key.clone()).or_default() += 1;
        Some(Open {
            watched: self.clone(),
            key,
        })
    }

    /// How many watches see what the request changes.
    pub fn count(&self, info: &Info) -> usize {
        let open = self.0.lock();
        let watching =
            |namespace, name| open.get(&key(info, namespace, name)).copied().unwrap_or(0);
        let mut count = watching("", "");
        if !info.namespace.is_empty() {
            count += watching(&info.namespace, "");
        }
        if !info.name.is_empty() {
            count += watching(&info.namespace, &info.name);
        }
        count
    }
}

fn key(info: &Info, namespace: &str, name: &str) -> Key {
    [&info.group, &info.resource, namespace, name].map(CompactString::from)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_change_is_told_to_those_who_watch_it() {
        let watched = Watched::default();
        let info = |method: Method, path: &str| {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let query = Query::parse(query);
            (Info::of(&method, path, &query), query)
        };
        let open: Vec<Option<Open>> = [
            "/api/v1/pods?watch=1",
            "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn",
            "/api/v1/namespaces/a/pods?watch=1",
            "/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dp",
            "/api/v1/namespaces/b/pods?watch=1",
            "/api/v1/namespaces/a/secrets?watch=1",
        ]
        .iter()
        .map(|path| {
            let (info, query) = info(Method::GET, path);
            watched.open(&info, &query)
        })
        .collect();
        let count = |method, path| watched.count(&info(method, path).0);
        assert_eq!(count(Method::PUT, "/api/v1/namespaces/a/pods/p"), 3);
        assert_eq!(count(Method::PUT, "/api/v1/namespaces/a/pods/other"), 2);
        assert_eq!(count(Method::POST, "/api/v1/namespaces/b/pods"), 2);
        assert_eq!(count(Method::POST, "/api/v1/namespaces/c/secrets"), 0);
        drop(open);
        assert_eq!(count(Method::PUT, "/api/v1/namespaces/a/pods/p"), 0);
        assert!(watched.0.lock().is_empty());
    }
}
