//! Controller references, and adoption of objects that match a selector. Follows
//! k8s.io/kubernetes/pkg/controller/controller_ref_manager.go.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::errors::{FirstFailure, is_not_found, reason};

/// The owner reference with `controller: true`.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// The group of an owner; empty for the core group.
pub fn group_of(owner: &OwnerReference) -> &str {
    let group = owner.api_version.split_once('/');
    group.map_or("", |(group, _)| group)
}

/// Whether `owner` is the controller of an object.
pub fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|found| Some(&found.uid) == owner.uid.as_ref())
}

/// A controller reference to `owner`.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The relation of an object to a controller that may claim it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The controller owns it already.
    Owned,
    /// An orphan that matches: to be adopted.
    Adopt,
    /// The controller owns it, but it no longer matches: to be released.
    Release,
    /// It belongs to somebody else, or does not match.
    Foreign,
}

/// The relation of an object to `owner`; `fits` is whether the selector selects it.
pub fn claim(object: &ObjectMeta, owner: &ObjectMeta, fits: bool) -> Claim {
    let owner_ends = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(found) if Some(&found.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if fits => Claim::Owned,
        Some(_) if owner_ends => Claim::Foreign,
        Some(_) => Claim::Release,
        None if owner_ends || !fits || object.deletion_timestamp.is_some() => Claim::Foreign,
        None if object.namespace != owner.namespace => Claim::Foreign,
        None => Claim::Adopt,
    }
}

/// Adopts and releases objects of one kind in one namespace.
pub struct Claims<'a, O, K> {
    objects: Api<K>,
    owners: Api<O>,
    owner: &'a O,
    finalizer: Option<&'static str>,
}

impl<'a, O, K> Claims<'a, O, K>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    /// The claims of an owner on the objects of its namespace. Adopted objects get the finalizer, if any, and released
    /// ones lose it.
    pub fn of(client: &Client, owner: &'a O, finalizer: Option<&'static str>) -> Self {
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        Claims {
            objects: Api::namespaced(client.clone(), namespace),
            owners: Api::namespaced(client.clone(), namespace),
            owner,
            finalizer,
        }
    }

    /// Reads the owner from the API: whether it still exists and may adopt.
    async fn may_adopt(&self) -> Result<bool, kube::Error> {
        let name = self.owner.meta().name.as_deref().unwrap_or_default();
        let found = self.owners.get_metadata_opt(name).await?;
        Ok(found.is_some_and(|found| {
            found.metadata.uid == self.owner.meta().uid
                && found.metadata.deletion_timestamp.is_none()
        }))
    }

    /// Adopts matching orphans and releases owned objects that no longer match. Returns those of `candidates` that the
    /// owner owns then. One that cannot be changed does not keep the others from it.
    ///
    /// # Errors
    /// The API rejects a change, except because the object is gone.
    pub async fn take<C: Resource<DynamicType = ()>>(
        &self,
        candidates: Vec<Arc<C>>,
        fits: impl Fn(&C) -> bool,
    ) -> Result<Vec<Arc<C>>, kube::Error> {
        let mut own = Vec::new();
        let mut failed = FirstFailure::default();
        for object in candidates {
            let claim = claim(object.meta(), self.owner.meta(), fits(&object));
            let owned = failed.note(self.carry_out(claim, object.meta()).await);
            if owned == Some(true) {
                own.push(object);
            }
        }
        failed.or(own)
    }

    /// Adopts or releases an object if necessary. Returns whether the owner owns it then.
    ///
    /// # Errors
    /// The API rejects the change, except because the object is gone.
    pub async fn carry_out(&self, claim: Claim, object: &ObjectMeta) -> Result<bool, kube::Error> {
        let name = object.name.as_deref().unwrap_or_default();
        let owner = controller_reference(self.owner);
        let patch = match claim {
            Claim::Owned => return Ok(true),
            Claim::Foreign => return Ok(false),
            Claim::Adopt => {
                if !self.may_adopt().await? {
                    return Ok(false);
                }
                let mut meta = json!({"ownerReferences": [owner], "uid": object.uid});
                if let Some(finalizer) = self.finalizer {
                    meta["finalizers"] = json!([finalizer]);
                }
                json!({"metadata": meta})
            }
            Claim::Release => {
                let gone = json!({"$patch": "delete", "uid": owner.uid});
                let mut meta = json!({"ownerReferences": [gone], "uid": object.uid});
                if let Some(finalizer) = self.finalizer {
                    meta["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
                }
                json!({"metadata": meta})
            }
        };
        let params = PatchParams::default();
        match self
            .objects
            .patch(name, &params, &Patch::Strategic(patch))
            .await
        {
            Ok(_) => Ok(claim == Claim::Adopt),
            Err(error) if is_not_found(&error) => Ok(false),
            // It has another uid by now, or no longer has that owner.
            Err(error) if claim == Claim::Release && reason(&error) == "Invalid" => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn objects_are_claimed_by_reference_and_selector() {
        let owner = |ends: bool| ObjectMeta {
            uid: Some("me".to_owned()),
            namespace: Some("n".to_owned()),
            deletion_timestamp: ends.then_some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        let object = |uid: &str, ends: bool| ObjectMeta {
            owner_references: (!uid.is_empty()).then(|| {
                vec![OwnerReference {
                    uid: uid.to_owned(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]
            }),
            ..owner(ends)
        };
        for (uid, ends, owner_ends, fits, wanted) in [
            ("me", false, false, true, Claim::Owned),
            ("me", true, true, true, Claim::Owned),
            ("me", false, false, false, Claim::Release),
            ("me", false, true, false, Claim::Foreign),
            ("other", false, false, true, Claim::Foreign),
            ("", false, false, true, Claim::Adopt),
            ("", false, false, false, Claim::Foreign),
            ("", true, false, true, Claim::Foreign),
            ("", false, true, true, Claim::Foreign),
        ] {
            let found = claim(&object(uid, ends), &owner(owner_ends), fits);
            assert_eq!(found, wanted, "{uid} {ends} {owner_ends} {fits}");
        }
        let elsewhere = ObjectMeta {
            namespace: Some("m".to_owned()),
            ..object("", false)
        };
        assert_eq!(claim(&elsewhere, &owner(false), true), Claim::Foreign);
    }

    #[tokio::test]
    async fn one_object_that_cannot_be_adopted_does_not_keep_the_others() {
        use http_body_util::BodyExt as _;
        use k8s_openapi::api::apps::v1::ReplicaSet;
        use k8s_openapi::api::core::v1::Pod;

        let patched = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let noted = patched.clone();
        let transport = crate::client::Transport::new(move |request, _| {
            let name = request.uri().path().rsplit('/').next().unwrap_or_default();
            let (code, answer) = match name {
                "refused" => (
                    403,
                    r#"{"kind":"Status","status":"Failure","message":"no","reason":"Forbidden","code":403}"#,
                ),
                _ => (
                    200,
                    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"uid":"me"}}"#,
                ),
            };
            if request.method() == http::Method::PATCH {
                noted.lock().push(name.to_owned());
            }
            let mut answer = http::Response::new(http_body_util::Full::from(answer).boxed_unsync());
            *answer.status_mut() = http::StatusCode::from_u16(code).expect("a code");
            async move { answer }
        });
        let client = transport.client(crate::auth::User::new("test", &[]), "test");
        let owner = ReplicaSet {
            metadata: ObjectMeta {
                name: Some("owner".to_owned()),
                uid: Some("me".to_owned()),
                namespace: Some("n".to_owned()),
                ..ObjectMeta::default()
            },
            ..ReplicaSet::default()
        };
        let pod = |name: &str| {
            Arc::new(Pod {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    namespace: Some("n".to_owned()),
                    ..ObjectMeta::default()
                },
                ..Pod::default()
            })
        };
        let claims = Claims::<_, Pod>::of(&client, &owner, None);
        let taken = claims
            .take(vec![pod("refused"), pod("other")], |_| true)
            .await;
        assert!(taken.is_err());
        assert_eq!(*patched.lock(), ["refused", "other"]);
    }
}
