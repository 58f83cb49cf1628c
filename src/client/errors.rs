//! What the API refused, as controllers look at it. Follows k8s.io/apimachinery/pkg/api/errors.

/// The reason of a refusal; empty for other failures.
pub fn reason(error: &kube::Error) -> &str {
    match error {
        kube::Error::Api(status) => &status.reason,
        _ => "",
    }
}

/// The object is not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    reason(error) == "NotFound"
}

/// The object is there already.
pub fn is_already_exists(error: &kube::Error) -> bool {
    reason(error) == "AlreadyExists"
}

/// The object changed meanwhile, or is another one.
pub fn is_conflict(error: &kube::Error) -> bool {
    reason(error) == "Conflict"
}

/// The namespace ends: nothing can be made in it.
pub fn is_terminating(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status
            .details
            .iter()
            .flat_map(|details| &details.causes)
            .any(|cause| cause.reason == "NamespaceTerminating"),
        _ => false,
    }
}

/// The API does not do this with the resource, or does not know it.
pub fn is_unsupported(error: &kube::Error) -> bool {
    matches!(reason(error), "MethodNotAllowed" | "NotFound")
}

/// What a failure says, as the API words it.
pub fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
