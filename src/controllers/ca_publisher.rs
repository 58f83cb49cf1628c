//! root-ca-certificate-publisher-controller: publishes the root certificates as a ConfigMap in every namespace. Follows
//! k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found, is_terminating};
use crate::client::informer::Cached;
use crate::client::kinds::Namespace;
use crate::client::queue::{Next, Queue};

/// The name of the ConfigMap.
const NAME: &str = "kube-root-ca.crt";
/// The key that holds the certificates.
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// Upstream's text of the annotation.
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

impl Cached for v1::ConfigMap {
    // Only the publisher's own ConfigMaps: others can be many and large, and no other controller uses them.
    const FIELDS: &'static str = "metadata.name=kube-root-ca.crt";
}

/// The ConfigMap to write instead of `found`; None if it is right already.
fn wanted(found: Option<&v1::ConfigMap>, root_ca: &str) -> Option<v1::ConfigMap> {
    let data = BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]);
    let described = |map: &v1::ConfigMap| {
        let annotations = map.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(DESCRIPTION))
            .is_some_and(|text| !text.is_empty())
    };
    if found.is_some_and(|found| found.data.as_ref() == Some(&data) && described(found)) {
        return None;
    }
    let mut map = found.cloned().unwrap_or_else(|| v1::ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            ..ObjectMeta::default()
        },
        ..v1::ConfigMap::default()
    });
    map.data = Some(data);
    map.metadata
        .annotations
        .get_or_insert_default()
        .insert(DESCRIPTION.to_owned(), TEXT.to_owned());
    Some(map)
}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<CompactString>::new());
    let maps = context.informers.of::<v1::ConfigMap>();
    let namespaces = context.informers.of::<Namespace>();
    maps.enqueue(&queue, |change| {
        let is_other = change.key.name == NAME && (change.old.is_some() || change.new.is_none());
        is_other.then(|| change.key.namespace.clone())
    });
    namespaces.enqueue(&queue, |change| {
        let active = change.new.is_some_and(|new| new.is_active());
        let lacks = active || (change.old.is_none() && change.new.is_some());
        lacks.then(|| change.key.name.clone())
    });
    let look = |namespace: CompactString| {
        let found = maps.get(&namespace, NAME);
        let map = wanted(found.as_deref(), &context.settings.root_ca);
        let api: Api<v1::ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
        async move {
            let Some(map) = map else {
                return Ok(Next::Done);
            };
            if found.is_some() {
                return match api.replace(NAME, &PostParams::default(), &map).await {
                    Ok(_) => Ok(Next::Done),
                    Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(Next::Retry),
                    Err(error) => Err(error),
                };
            }
            match api.create(&PostParams::default(), &map).await {
                Err(error) if !is_not_found(&error) && !is_terminating(&error) => Err(error),
                _ => Ok(Next::Done),
            }
        }
    };
    context.work(&queue, 1, look).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_made_and_what_matters_in_it_put_back() {
        let made = wanted(None, "PEM").unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some(NAME));
        assert_eq!(wanted(Some(&made), "PEM"), None);
        assert_eq!(
            wanted(Some(&made), "NEW").unwrap().data.unwrap()[KEY],
            "NEW"
        );
        let mut own = made.clone();
        let annotations = own.metadata.annotations.get_or_insert_default();
        annotations.insert(DESCRIPTION.to_owned(), "mine".to_owned());
        assert_eq!(wanted(Some(&own), "PEM"), None, "any description will do");
        own.metadata.annotations = None;
        own.metadata.labels = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let put_back = wanted(Some(&own), "PEM").unwrap();
        assert_eq!(put_back.metadata.annotations, made.metadata.annotations);
        assert_eq!(put_back.metadata.labels, own.metadata.labels);
    }
}
