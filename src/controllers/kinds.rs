//! What controllers keep of the objects of a kind, where more than one controller looks at it.

use k8s_openapi::api::core::v1;

crate::slim!(
    /// A namespace and whether it ends.
    Namespace of v1::Namespace {
        /// Its finalizers.
        spec: v1::NamespaceSpec,
        /// Its phase.
        status: v1::NamespaceStatus,
    }
);

impl Namespace {
    /// Whether new objects may be made in it.
    pub fn is_active(&self) -> bool {
        self.status.phase.as_deref() != Some("Terminating")
            && self.metadata.deletion_timestamp.is_none()
    }
}

crate::slim!(
    /// That there is such a definition.
    CustomResourceDefinition of k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {}
);
