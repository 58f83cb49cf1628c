//! `/metrics`: the server's metrics, under upstream's names (k8s.io/apiserver/pkg/endpoints/metrics).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use compact_str::{CompactString, ToCompactString as _, format_compact};
use http::Response;
use parking_lot::Mutex;

use super::body::until_dropped;
use super::documents::PATHS;
use super::query::Query;
use super::reply::Body;
use super::request_info::Info;
use crate::meta::prometheus::{Families, Histogram, Sources};
use crate::meta::version;
use crate::resources::Registry;
use crate::resources::cluster::Cluster;

/// The bucket bounds of `apiserver_request_duration_seconds`.
static BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// The labels of a request. Only names that the server knows become labels, so clients cannot create an unlimited
/// number of series.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    verb: CompactString,
    dry_run: &'static str,
    group: CompactString,
    version: CompactString,
    resource: CompactString,
    subresource: CompactString,
    scope: &'static str,
}

/// The verbs of non-resource requests: HTTP's methods.
const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

impl Labels {
    /// The labels of a request; `applies` if it is a server-side apply.
    pub fn of(info: &Info, query: &Query, applies: bool, registry: &Registry) -> Labels {
        let mut labels = Labels {
            dry_run: match query.get("dryRun") {
                None | Some("") => "",
                Some("All") => "All",
                Some(_) => "invalid",
            },
            ..Labels::default()
        };
        if !info.is_resource {
            let known = METHODS.contains(&info.verb.as_str());
            labels.verb = if known {
                info.verb.to_uppercase().into()
            } else {
                "other".into()
            };
            let first = info.path.split('/').nth(1).unwrap_or_default();
            if PATHS.contains(&first) {
                labels.subresource = format_compact!("/{first}");
            }
            return labels;
        }
        labels.verb = match info.verb.as_str() {
            "create" => "POST".into(),
            "update" => "PUT".into(),
            "patch" if applies => "APPLY".into(),
            "" => "other".into(),
            verb => verb.to_uppercase().into(),
        };
        labels.scope = match info.verb.as_str() {
            "list" | "watch" | "deletecollection" if info.namespace.is_empty() => "cluster",
            "list" | "watch" | "deletecollection" => "namespace",
            _ => "resource",
        };
        let Some(version) = registry
            .get(&info.group, &info.resource)
            .and_then(|resource| resource.version(&info.version))
        else {
            return labels;
        };
        labels.group = info.group.as_str().into();
        labels.version = info.version.as_str().into();
        labels.resource = info.resource.as_str().into();
        if version.subresource(&info.subresource).is_some() {
            labels.subresource = info.subresource.as_str().into();
        }
        labels
    }

    fn text(&self, dry_run: bool) -> String {
        let dry_run = if dry_run {
            format!("dry_run={:?},", self.dry_run)
        } else {
            String::new()
        };
        format!(
            "component=\"apiserver\",{dry_run}group={:?},resource={:?},scope={:?},subresource={:?},verb={:?},version={:?}",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

/// The counters for one set of labels.
struct Series {
    /// Responses by HTTP status code.
    codes: BTreeMap<u16, u64>,
    /// Durations; empty for watches.
    durations: Histogram,
    /// Open streams.
    running: i64,
}

impl Default for Series {
    fn default() -> Self {
        Series {
            codes: BTreeMap::new(),
            durations: Histogram::new(&BUCKETS),
            running: 0,
        }
    }
}

/// The metrics of one server.
pub struct Metrics {
    started: f64,
    series: Mutex<BTreeMap<Labels, Series>>,
    reading: AtomicI64,
    changing: AtomicI64,
    /// The results of health checks.
    pub checks: Mutex<super::health::Counts>,
    /// Metrics of other parts of the process.
    pub others: Sources,
}

impl Default for Metrics {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Metrics {
            started: since.map_or(0.0, |passed| passed.as_secs_f64()),
            series: Mutex::default(),
            reading: AtomicI64::new(0),
            changing: AtomicI64::new(0),
            checks: Mutex::default(),
            others: Sources::default(),
        }
    }
}

/// A running request; counted as such until this is dropped.
pub struct Underway<'a> {
    gauge: &'a AtomicI64,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request as running.
    pub fn begin(&self, info: &Info) -> Underway<'_> {
        let gauge = if info.reads() {
            &self.reading
        } else {
            &self.changing
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        Underway { gauge }
    }

    /// Counts a request that got the status `code` after `took`. A watch counts as running until its stream ends, and
    /// its length is not recorded as a duration.
    pub fn end(
        self: &Arc<Self>,
        labels: Labels,
        took: Duration,
        response: Response<Body>,
    ) -> Response<Body> {
        let code = response.status().as_u16();
        let streams = labels.verb == "WATCH" && code == 200;
        let mut all = self.series.lock();
        let series = all.entry(labels.clone()).or_default();
        *series.codes.entry(code).or_default() += 1;
        if !streams {
            series.durations.add(took.as_secs_f64());
            return response;
        }
        series.running += 1;
        drop(all);
        let running = Running {
            metrics: self.clone(),
            labels,
        };
        response.map(|body| until_dropped(body, running))
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self, cluster: &Cluster) -> String {
        let mut out = Families::default();
        let mut family = out.begin(
            "apiserver_current_inflight_requests",
            "gauge",
            "Requests that are being answered, by whether they change anything.",
        );
        for (kind, gauge) in [("mutating", &self.changing), ("readOnly", &self.reading)] {
            let labels = format_args!("request_kind=\"{kind}\"");
            family.series(labels, gauge.load(Ordering::Relaxed));
        }
        self.requests(&mut out);
        let world = cluster.store.world();
        let registry = cluster.registry();
        let mut objects: Vec<(String, usize)> = registry
            .resources()
            .map(|resource| {
                let labels = format!("group={:?},resource={:?}", resource.group, resource.plural);
                (labels, world.count(&resource.prefix))
            })
            .collect();
        objects.sort();
        let mut family = out.begin(
            "apiserver_resource_objects",
            "gauge",
            "Stored objects by resource.",
        );
        for (labels, count) in objects {
            family.series(labels, count);
        }
        out.begin(
            "kubernetes_build_info",
            "gauge",
            "The version of the API that is served.",
        )
        .series(
            format_args!(
                "git_version={:?},major={:?},minor={:?},platform={:?}",
                version::UPSTREAM,
                version::MAJOR,
                version::MINOR,
                version::platform()
            ),
            1,
        );
        for (name, kind, help, value) in process() {
            out.begin(name, kind, help).series("", value);
        }
        out.begin(
            "process_start_time_seconds",
            "gauge",
            "When the process began, in seconds since 1970.",
        )
        .series("", self.started);
        self.others.tell(&mut out);
        out.into_text()
    }

    fn requests(&self, out: &mut Families) {
        let all = self.series.lock();
        let mut family = out.begin(
            "apiserver_longrunning_requests",
            "gauge",
            "Watches that are open.",
        );
        for (labels, series) in all.iter().filter(|(labels, _)| labels.verb == "WATCH") {
            family.series(labels.text(false), series.running);
        }
        let mut family = out.begin(
            "apiserver_request_duration_seconds",
            "histogram",
            "How long requests took, in seconds; watches are left out.",
        );
        for (labels, series) in all.iter() {
            family.histogram(&labels.text(true), &series.durations);
        }
        let mut family = out.begin(
            "apiserver_request_total",
            "counter",
            "Requests answered, by what they were for and the HTTP status code.",
        );
        for (labels, series) in all.iter() {
            let labels = labels.text(true);
            for (code, count) in &series.codes {
                family.series(format_args!("code=\"{code}\",{labels}"), count);
            }
        }
    }
}

/// Metrics of this process, on systems with a Linux-like `/proc`.
fn process() -> Vec<(&'static str, &'static str, &'static str, CompactString)> {
    let mut out = Vec::new();
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return out;
    };
    // Fields are counted after the command, which may contain spaces; see proc_pid_stat(5).
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    #[allow(clippy::cast_precision_loss)]
    let cpu = (number(11) + number(12)) as f64 / ticks as f64;
    let pages = rustix::param::page_size() as u64;
    out.push((
        "process_cpu_seconds_total",
        "counter",
        "CPU time of the process in seconds.",
        cpu.to_compact_string(),
    ));
    out.push((
        "process_resident_memory_bytes",
        "gauge",
        "Memory of the process that is in RAM.",
        (number(21) * pages).to_compact_string(),
    ));
    out.push((
        "process_virtual_memory_bytes",
        "gauge",
        "Address space of the process.",
        number(20).to_compact_string(),
    ));
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        out.push((
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            open.count().to_compact_string(),
        ));
    }
    out
}

/// Counts a watch as running until it is dropped.
struct Running {
    metrics: Arc<Metrics>,
    labels: Labels,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(series) = self.metrics.series.lock().get_mut(&self.labels) {
            series.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::resources::cluster::Settings;

    #[test]
    fn requests_are_counted_by_what_they_were_for() {
        let metrics = Arc::new(Metrics::default());
        let query = Query::parse("");
        let answer = |code: u16| {
            let mut response = Response::new(http_body_util::Empty::new().boxed_unsync());
            *response.status_mut() = http::StatusCode::from_u16(code).expect("a code");
            response
        };
        for (method, path, query_text, code, millis) in [
            (http::Method::GET, "/api/v1/pods", "", 200, 1),
            (http::Method::GET, "/api/v1/pods", "", 200, 30),
            (http::Method::POST, "/api/v1/namespaces/a/pods", "", 409, 1),
            (http::Method::GET, "/api/v1/nonsense-17", "", 404, 1),
            (http::Method::GET, "/apis/nonsense-18/v1/a", "", 403, 1),
            (http::Method::GET, "/nonsense-19", "", 403, 1),
            (
                http::Method::GET,
                "/api/v1/pods",
                "dryRun=nonsense-20",
                200,
                1,
            ),
        ] {
            let query = Query::parse(query_text);
            let info = Info::of(&method, path, &query);
            let labels = Labels::of(&info, &query, false, Registry::builtin());
            metrics.end(labels, Duration::from_millis(millis), answer(code));
        }
        let info = Info::of(&http::Method::GET, "/api/v1/pods", &Query::parse("watch=1"));
        let watch = metrics.end(
            Labels::of(&info, &query, false, Registry::builtin()),
            Duration::ZERO,
            answer(200),
        );
        let cluster = Cluster::new(crate::store::memory(), Settings::default());
        let text = metrics.text(&cluster);
        let pods = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",{pods}}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{pods},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{pods},le=\"0.05\"}} 2"),
            "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("nonsense"), "clients cannot make series");
        drop(watch);
        assert!(
            metrics
                .text(&cluster)
                .contains("verb=\"WATCH\",version=\"v1\"} 0")
        );
    }
}
