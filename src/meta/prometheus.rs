//! Metrics and Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use parking_lot::RwLock;

/// Upper bounds of a histogram's buckets: `N` of them, from `first`, each `factor` times the one before.
pub const fn exponential<const N: usize>(first: f64, factor: f64) -> [f64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * factor;
        at += 1;
    }
    bounds
}

/// A histogram: observed values counted by bucket.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    buckets: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    /// An empty histogram with these upper bounds of its buckets, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram {
            bounds,
            buckets: vec![0; bounds.len()],
            sum: 0.0,
            count: 0,
        }
    }

    /// Adds an observation.
    pub fn add(&mut self, amount: f64) {
        let first = self.bounds.partition_point(|bound| *bound < amount);
        if let Some(bucket) = self.buckets.get_mut(first) {
            *bucket += 1;
        }
        self.sum += amount;
        self.count += 1;
    }

    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Metric families in text format.
#[derive(Default)]
pub struct Families(String);

impl Families {
    /// Begins a family of a type such as `counter`; its series follow.
    pub fn begin<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Family<'a> {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { out: self, name }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// One family.
pub struct Family<'a> {
    out: &'a mut Families,
    name: &'a str,
}

impl Family<'_> {
    /// Writes a series: its labels (`a="b",c="d"`, or nothing) and its value.
    pub fn series(&mut self, labels: impl fmt::Display, value: impl fmt::Display) -> &mut Self {
        self.line("", labels, "", value)
    }

    /// Writes a series with the time of its measurement, in milliseconds since 1970.
    pub fn measured(
        &mut self,
        labels: impl fmt::Display,
        value: impl fmt::Display,
        at: i64,
    ) -> &mut Self {
        self.line("", labels, "", format_args!("{value} {at}"))
    }

    /// Writes a histogram; nothing if it is empty.
    pub fn histogram(&mut self, labels: &str, histogram: &Histogram) -> &mut Self {
        if histogram.count == 0 {
            return self;
        }
        let comma = if labels.is_empty() { "" } else { "," };
        let mut so_far = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.buckets) {
            so_far += count;
            let le = format!("{comma}le=\"{bound}\"");
            self.line("_bucket", labels, &le, so_far);
        }
        let le = format!("{comma}le=\"+Inf\"");
        self.line("_bucket", labels, &le, histogram.count);
        self.line("_sum", labels, "", histogram.sum);
        self.line("_count", labels, "", histogram.count)
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: impl fmt::Display,
        more: &str,
        value: impl fmt::Display,
    ) -> &mut Self {
        let out = &mut self.out.0;
        let begun = out.len();
        let _ = write!(out, "{}{suffix}{{{labels}{more}}}", self.name);
        if out.ends_with("{}") {
            out.truncate(out.len() - 2);
        }
        debug_assert!(out.len() > begun);
        let _ = writeln!(out, " {value}");
        self
    }
}

type Source = dyn Fn(&mut Families) + Send + Sync;

/// The parts of the process that have metrics. Clones share them.
#[derive(Clone, Default)]
pub struct Sources(Arc<RwLock<BTreeMap<&'static str, Box<Source>>>>);

impl Sources {
    /// Registers a part; replaces one with the same name.
    pub fn set(&self, name: &'static str, source: impl Fn(&mut Families) + Send + Sync + 'static) {
        self.0.write().insert(name, Box::new(source));
    }

    /// Writes the metrics of all parts, in the order of their names.
    pub fn tell(&self, out: &mut Families) {
        for source in self.0.read().values() {
            source(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_as_scrapers_read_them() {
        static BOUNDS: [f64; 3] = exponential(0.5, 2.0);
        let mut histogram = Histogram::new(&BOUNDS);
        let mut out = Families::default();
        out.begin("empty", "histogram", "Nothing.")
            .histogram("", &histogram);
        for amount in [0.5, 0.6, 9.0] {
            histogram.add(amount);
        }
        out.begin("plain", "counter", "One.").series("", 1);
        out.begin("both", "gauge", "Two.")
            .series("a=\"b\"", 1.5)
            .measured("a=\"c\"", 2, 7000);
        out.begin("took", "histogram", "How long.")
            .histogram("", &histogram)
            .histogram("a=\"b\"", &histogram);
        let buckets = |labels: &str, own: &str| {
            format!(
                "took_bucket{{{labels}le=\"0.5\"}} 1\ntook_bucket{{{labels}le=\"1\"}} 2\ntook_bucket{{{labels}le=\"2\"}} 2\n\
                 took_bucket{{{labels}le=\"+Inf\"}} 3\ntook_sum{own} 10.1\ntook_count{own} 3\n"
            )
        };
        let expected = format!(
            "# HELP empty Nothing.\n# TYPE empty histogram\n\
             # HELP plain One.\n# TYPE plain counter\nplain 1\n\
             # HELP both Two.\n# TYPE both gauge\nboth{{a=\"b\"}} 1.5\nboth{{a=\"c\"}} 2 7000\n\
             # HELP took How long.\n# TYPE took histogram\n{}{}",
            buckets("", ""),
            buckets("a=\"b\",", "{a=\"b\"}")
        );
        assert_eq!(out.into_text(), expected);
    }

    #[test]
    fn a_part_that_begins_again_tells_in_place_of_what_it_was() {
        let sources = Sources::default();
        sources.set("b", |out| {
            out.begin("old", "gauge", "");
        });
        sources.set("a", |out| {
            out.begin("first", "gauge", "");
        });
        sources.set("b", |out| {
            out.begin("new", "gauge", "");
        });
        let mut out = Families::default();
        sources.tell(&mut out);
        let text = out.into_text();
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        assert_eq!(names, ["first gauge", "new gauge"]);
    }
}
