//! serviceaccount-controller: creates the service account `default` in every namespace. Follows
//! k8s.io/kubernetes/pkg/controller/serviceaccount.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use crate::client::Context;
use crate::client::errors::{is_already_exists, is_terminating};
use crate::client::kinds::Namespace;
use crate::client::queue::{Next, Queue};

crate::slim!(
    /// The existence of a service account.
    ServiceAccount of v1::ServiceAccount {}
);

/// The service account of every namespace.
const ENSURED: &str = "default";

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<CompactString>::new());
    let accounts = context.informers.of::<ServiceAccount>();
    let namespaces = context.informers.of::<Namespace>();
    accounts.enqueue(&queue, |change| {
        let is_gone = change.new.is_none();
        is_gone.then(|| change.key.namespace.clone())
    });
    namespaces.enqueue(&queue, |change| change.new.map(|_| change.key.name.clone()));
    let look = |namespace: CompactString| {
        let found = namespaces.get("", &namespace);
        let wanted = found.is_some_and(|found| found.is_active())
            && accounts.get(&namespace, ENSURED).is_none();
        let client = context.client.clone();
        async move {
            if !wanted {
                return Ok(Next::Done);
            }
            let account = v1::ServiceAccount {
                metadata: ObjectMeta {
                    name: Some(ENSURED.to_owned()),
                    ..ObjectMeta::default()
                },
                ..v1::ServiceAccount::default()
            };
            let api: Api<v1::ServiceAccount> = Api::namespaced(client, &namespace);
            match api.create(&PostParams::default(), &account).await {
                Err(error) if !is_already_exists(&error) && !is_terminating(&error) => Err(error),
                _ => Ok(Next::Done),
            }
        }
    };
    context.work(&queue, 1, look).await;
}
