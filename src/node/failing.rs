//! Logs recurring failures: when they begin, when they change, and when they are over.

use std::fmt::Display;

/// An operation that is tried again and again.
pub struct Attempts {
    what: String,
    /// Its last failure; None if it succeeded.
    failure: Option<String>,
}

/// What to log about an attempt.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Fails,
    Recovered,
    Nothing,
}

impl Attempts {
    /// Attempts of `what`, such as "the lease of node n cannot be renewed".
    pub fn new(what: impl Into<String>) -> Self {
        Attempts {
            what: what.into(),
            failure: None,
        }
    }

    /// Records the result of an attempt: the first failure is logged as a warning, as is each different one, and the
    /// first success after failures is logged, too.
    pub fn note<T, E: Display>(&mut self, result: &Result<T, E>) {
        let failure = result.as_ref().err().map(ToString::to_string);
        match self.news(failure) {
            News::Fails => {
                let error = self.failure.as_deref();
                tracing::warn!(error, "{}; retrying", self.what);
            }
            News::Recovered => tracing::info!("resolved: {}", self.what),
            News::Nothing => {}
        }
    }

    fn news(&mut self, failure: Option<String>) -> News {
        let before = std::mem::replace(&mut self.failure, failure);
        match (&before, &self.failure) {
            (_, Some(_)) if before != self.failure => News::Fails,
            (Some(_), None) => News::Recovered,
            _ => News::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_when_it_begins_changes_and_ends() {
        let mut attempts = Attempts::new("it fails");
        for (failure, news) in [
            (None, News::Nothing),
            (Some("a"), News::Fails),
            (Some("a"), News::Nothing),
            (Some("b"), News::Fails),
            (None, News::Recovered),
            (None, News::Nothing),
        ] {
            let told = attempts.news(failure.map(str::to_owned));
            assert_eq!(told, news, "{failure:?}");
        }
    }
}
