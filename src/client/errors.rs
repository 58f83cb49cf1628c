//! Classifies errors of the API. Follows k8s.io/apimachinery/pkg/api/errors.

/// The reason in the `Status` of an error; empty for other failures.
pub fn reason(error: &kube::Error) -> &str {
    match error {
        kube::Error::Api(status) => &status.reason,
        _ => "",
    }
}

/// The object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    reason(error) == "NotFound"
}

/// The object exists already.
pub fn is_already_exists(error: &kube::Error) -> bool {
    reason(error) == "AlreadyExists"
}

/// The object changed meanwhile, or was replaced by another one.
pub fn is_conflict(error: &kube::Error) -> bool {
    reason(error) == "Conflict"
}

/// The namespace is being deleted: nothing can be created in it.
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

/// The API does not know the resource, or does not support the verb.
pub fn is_unsupported(error: &kube::Error) -> bool {
    matches!(reason(error), "MethodNotAllowed" | "NotFound")
}

/// The API rejects the request for good, as opposed to being down, overloaded or unsure who asks: a client certificate
/// that is being replaced is not believed for a moment.
pub fn is_refused(error: &kube::Error) -> bool {
    let for_good = |code: u16| (400..500).contains(&code) && !matches!(code, 401 | 429);
    matches!(error, kube::Error::Api(status) if for_good(status.code))
}

/// The message of a failure, in the API's words if it is one of the API's.
pub fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The failures of steps that do not depend on each other: all are tried, whatever became of the ones before. Where
/// upstream returns an aggregate (k8s.io/apimachinery/pkg/util/errors), this keeps the first failure.
#[derive(Debug)]
pub struct FirstFailure<E>(Option<E>);

impl<E> Default for FirstFailure<E> {
    fn default() -> Self {
        FirstFailure(None)
    }
}

impl<E> FirstFailure<E> {
    /// Notes a step. Returns what it achieved; None if it failed.
    pub fn note<T>(&mut self, step: Result<T, E>) -> Option<T> {
        match step {
            Ok(achieved) => Some(achieved),
            Err(failure) => {
                self.0.get_or_insert(failure);
                None
            }
        }
    }

    /// `all` that was achieved, if every step was.
    ///
    /// # Errors
    /// The first failure.
    pub fn or<T>(self, all: T) -> Result<T, E> {
        match self.0 {
            Some(failure) => Err(failure),
            None => Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_tried_and_the_first_failure_is_told() {
        let mut failed = FirstFailure::default();
        let steps = [Ok(1), Err("a"), Ok(2), Err("b")];
        let done: Vec<i32> = steps
            .into_iter()
            .filter_map(|step| failed.note(step))
            .collect();
        assert_eq!(done, [1, 2]);
        assert_eq!(failed.or(()), Err("a"));
        assert_eq!(FirstFailure::<()>::default().or(3), Ok(3));
    }
}
