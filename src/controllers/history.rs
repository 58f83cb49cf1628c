//! The revisions of stateful sets and daemon sets: which is the newest, and which are no longer needed. Follows
//! k8s.io/kubernetes/pkg/controller/history.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Api, DeleteParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::workload;
use crate::client::errors::{FirstFailure, is_already_exists, is_not_found};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::owners::{Claim, Claims, claim, controller_of, controller_reference};
use crate::client::queue::Queue;
use crate::client::selector::selects;

/// The label with the hash of a stateful set's revision.
pub const HASH: &str = "controller.kubernetes.io/hash";
/// The label of pods with the name of their revision; for daemon sets, the label with the hash of the revision.
pub const POD_HASH: &str = "controller-revision-hash";

impl Cached for ControllerRevision {}

/// A history together with its owner.
pub struct Past<'a, O> {
    /// A client.
    pub client: &'a Client,
    /// The cache of revisions.
    pub cache: &'a Informer<ControllerRevision>,
    /// The owner.
    pub owner: &'a O,
    /// Selects the revisions that may be adopted.
    pub selector: &'a LabelSelector,
    /// The label of a revision with its hash.
    pub label: &'static str,
}

fn hash(data: &Value, collisions: i32) -> String {
    workload::hash(&[format!("{data}{collisions}").as_bytes()])
}

/// The data of a revision: a patch that restores a template.
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Value::Object(members) = &mut template {
        members.insert("$patch".to_owned(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template in a revision.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.0.get("spec")?.get("template")?;
    serde_json::from_value(template.clone()).ok()
}

/// The number of a revision.
pub fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// The outcome of looking for the revision of a template.
#[derive(Debug, PartialEq)]
enum Newest {
    /// The revision at this index already is the newest.
    Is(usize),
    /// The older revision at this index becomes the newest, with this number.
    Again(usize, i64),
    /// A new revision with this number.
    New(i64),
}

/// Finds the revision of a template among the revisions, ordered by number.
fn newest(revisions: &[ControllerRevision], data: &Value, template: &PodTemplateSpec) -> Newest {
    let next = revisions.last().map_or(1, |last| number(last) + 1);
    // Templates that another version serialized differently may still be equal.
    let same = |revision: &ControllerRevision| {
        revision.data.0 == *data || self::template(revision).as_ref() == Some(template)
    };
    match revisions.iter().rposition(same) {
        Some(found) if found + 1 == revisions.len() => Newest::Is(found),
        Some(found) => Newest::Again(found, next),
        None => Newest::New(next),
    }
}

/// Removes and returns the older revisions whose data equals that of the newest one, which is the last.
pub fn doubles(revisions: &mut Vec<ControllerRevision>) -> Vec<ControllerRevision> {
    let Some(last) = revisions.pop() else {
        return Vec::new();
    };
    let doubles = revisions
        .extract_if(.., |revision| revision.data.0 == last.data.0)
        .collect();
    revisions.push(last);
    doubles
}

impl<O> Past<'_, O>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    fn namespace(&self) -> &str {
        self.owner.meta().namespace.as_deref().unwrap_or_default()
    }

    fn api(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    /// The revisions of the owner, ordered by number; matching orphans are adopted.
    ///
    /// # Errors
    /// The API rejects a request.
    pub async fn revisions(&self) -> Result<Vec<ControllerRevision>, kube::Error> {
        let claims = Claims::<O, ControllerRevision>::of(self.client, self.owner, None);
        let mut own = Vec::new();
        let mut failed = FirstFailure::default();
        for (_, revision) in self.cache.list(self.namespace()) {
            let fits = selects(self.selector, revision.metadata.labels.as_ref()).unwrap_or(false);
            let claim = claim(&revision.metadata, self.owner.meta(), fits);
            let taken = match claim {
                Claim::Owned | Claim::Adopt => claims.carry_out(claim, &revision.metadata).await,
                Claim::Release | Claim::Foreign => Ok(false),
            };
            if failed.note(taken) == Some(true) {
                own.push((*revision).clone());
            }
        }
        own.sort_by_cached_key(|revision| {
            let created = revision
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0);
            (number(revision), created, revision.name_any())
        });
        failed.or(own)
    }

    /// The revision of the owner's template, which is created or renumbered if necessary; it is the last of `revisions`
    /// then. `collisions` is increased if another template has the same hash.
    ///
    /// # Errors
    /// The API rejects a request.
    pub async fn update(
        &self,
        revisions: &mut Vec<ControllerRevision>,
        template: &PodTemplateSpec,
        collisions: &mut i32,
    ) -> Result<ControllerRevision, kube::Error> {
        let data = data(template);
        let params = PostParams::default();
        let written = match newest(revisions, &data, template) {
            Newest::Is(found) => return Ok(revisions[found].clone()),
            Newest::Again(found, number) => {
                let mut again = revisions.remove(found);
                again.revision = Some(number);
                self.api()
                    .replace(&again.name_any(), &params, &again)
                    .await?
            }
            Newest::New(number) => loop {
                let new = self.make(template, &data, number, *collisions);
                match self.api().create(&params, &new).await {
                    Ok(made) => break made,
                    Err(error) if is_already_exists(&error) => {
                        let found = self.api().get(&new.name_any()).await?;
                        if found.data.0 == data {
                            break found;
                        }
                        *collisions += 1;
                    }
                    Err(error) => return Err(error),
                }
            },
        };
        self.cache
            .reach(written.resource_version().as_deref())
            .await;
        revisions.push(written.clone());
        Ok(written)
    }

    fn make(
        &self,
        template: &PodTemplateSpec,
        data: &Value,
        number: i64,
        collisions: i32,
    ) -> ControllerRevision {
        let hash = hash(data, collisions);
        let name = self.owner.name_any();
        let labels = template
            .metadata
            .as_ref()
            .and_then(|meta| meta.labels.clone());
        let mut labels = labels.unwrap_or_default();
        labels.insert(self.label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", &name[..name.len().min(223)])),
                namespace: self.owner.namespace(),
                labels: Some(labels),
                annotations: self.owner.meta().annotations.clone(),
                owner_references: Some(vec![controller_reference(self.owner)]),
                ..ObjectMeta::default()
            },
            data: RawExtension(data.clone()),
            revision: Some(number),
        }
    }

    /// Deletes the oldest revisions that are not `live`, except `limit` of them.
    ///
    /// # Errors
    /// The API rejects a request.
    pub async fn truncate(
        &self,
        revisions: &[ControllerRevision],
        live: &BTreeSet<String>,
        limit: i32,
    ) -> Result<(), kube::Error> {
        let old: Vec<String> = revisions
            .iter()
            .map(|revision| revision.name_any())
            .filter(|name| !live.contains(name))
            .collect();
        let surplus = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        for name in &old[..surplus] {
            match self.api().delete(name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Enqueues the owner of a kind when one of its revisions is deleted: it may have to be created again.
pub fn wake<O: Resource<DynamicType = ()>>(
    cache: &Informer<ControllerRevision>,
    queue: &Arc<Queue<Key>>,
) {
    cache.enqueue(queue, |change| {
        let gone = change.old.filter(|_| change.new.is_none())?;
        let owner = controller_of(&gone.metadata)?;
        (owner.kind == O::kind(&())).then(|| Key::new(&change.key.namespace, &owner.name))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_found_among_its_revisions() {
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_str(&format!(
                r#"{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}}}}"#
            ))
            .unwrap()
        };
        let revision = |image: &str, number: i64| ControllerRevision {
            data: RawExtension(data(&template(image))),
            revision: Some(number),
            ..ControllerRevision::default()
        };
        let revisions = [revision("a", 1), revision("b", 4)];
        let found = |image: &str| newest(&revisions, &data(&template(image)), &template(image));
        assert_eq!(found("b"), Newest::Is(1));
        assert_eq!(found("a"), Newest::Again(0, 5));
        assert_eq!(found("c"), Newest::New(5));
        assert_eq!(
            newest(&[], &data(&template("a")), &template("a")),
            Newest::New(1)
        );
        assert_eq!(super::template(&revisions[0]), Some(template("a")));
        assert_ne!(
            hash(&data(&template("a")), 0),
            hash(&data(&template("a")), 1)
        );
    }
}
