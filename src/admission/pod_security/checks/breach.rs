//! Violations, and the words in which they are reported.

/// A violation by a pod.
pub(in super::super) struct Breach {
    /// A short reason.
    pub reason: String,
    /// The details.
    pub detail: String,
}

/// Violations as shown in errors and warnings.
pub(in super::super) fn told(breaches: &[Breach]) -> String {
    let each = breaches.iter().map(|breach| {
        if breach.detail.is_empty() {
            breach.reason.clone()
        } else {
            format!("{} ({})", breach.reason, breach.detail)
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

pub(super) struct Names(pub(super) Vec<String>);

impl Names {
    pub(super) fn containers(&self) -> String {
        let noun = plural(self.0.len(), "container", "containers");
        format!("{noun} {}", quote(&self.0))
    }
}

pub(super) fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
pub(super) fn quote<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| format!("\"{}\"", item.as_ref()))
        .collect();
    items.join(", ")
}

pub(super) fn breach(reason: impl Into<String>, detail: impl Into<String>) -> Option<Breach> {
    Some(Breach {
        reason: reason.into(),
        detail: detail.into(),
    })
}
