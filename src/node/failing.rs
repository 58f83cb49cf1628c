//! Failures that last, in the log: when they begin, when they become others, and when they are over.

use std::fmt::Display;

/// Something that is tried again and again.
pub struct Attempts {
    what: String,
    /// Why it failed last; none where it succeeded.
    failure: Option<String>,
}

/// What there is to say about an attempt.
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

    /// Notes how one went: the first failure is a warning, and each that says something else; the first success after
    /// failures is told as well.
    pub fn note<T, E: Display>(&mut self, result: &Result<T, E>) {
        let failure = result.as_ref().err().map(ToString::to_string);
        match self.news(failure) {
            News::Fails => {
                let error = self.failure.as_deref();
                tracing::warn!(error, "{}; it is tried again", self.what);
            }
            News::Recovered => tracing::info!("over: {}", self.what),
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
