//! The tables at `/debug/api_priority_and_fairness/`: the current levels, queues and requests, one per row. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/apf_controller_debug.go.

use std::time::{Duration, SystemTime};

use super::levels::{Level, Levels};
use super::queues::QueueSet;
use super::request::{Queue, Request, Work};
use crate::meta::time;

type Row = Vec<String>;

/// The dump `name`; `None` if there is no such dump. `begun` is the wall-clock time at which the server's clock
/// started.
pub fn dump(levels: &Levels, name: &str, details: bool, begun: SystemTime) -> Option<String> {
    let rows = match name {
        "dump_priority_levels" => priority_levels(levels),
        "dump_queues" => queues(levels),
        "dump_requests" => requests(levels, details, begun),
        _ => return None,
    };
    Some(table(&rows))
}

fn row(cells: impl IntoIterator<Item = impl ToString>) -> Row {
    cells.into_iter().map(|cell| cell.to_string()).collect()
}

fn priority_levels(levels: &Levels) -> Vec<Row> {
    let heads = [
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ];
    let of = |(level, quiescing): (&std::sync::Arc<Level>, bool)| {
        let set = level.set.lock();
        let active = set
            .queues()
            .iter()
            .filter(|queue| !queue.waiting.is_empty());
        row([
            level.name.to_string(),
            active.count().to_string(),
            set.is_idle().to_string(),
            quiescing.to_string(),
            set.waiting().to_string(),
            set.running().to_string(),
            set.counts.dispatched.to_string(),
            set.counts.rejected.to_string(),
            // Upstream counts timed-out requests as cancelled.
            "0".to_owned(),
            set.counts.cancelled.to_string(),
        ])
    };
    std::iter::once(row(heads))
        .chain(levels.all().map(of))
        .collect()
}

fn queues(levels: &Levels) -> Vec<Row> {
    let heads = [
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ];
    let mut rows = vec![row(heads)];
    for (level, _) in levels.all() {
        let set = level.set.lock();
        let of = |(index, queue): (usize, &Queue)| {
            let widths = || {
                queue
                    .waiting
                    .iter()
                    .filter_map(|ticket| set.request(*ticket))
            };
            let first: usize = widths().map(|request| request.arrival.width.first).sum();
            let most: usize = widths().map(|request| request.arrival.width.most()).sum();
            row([
                level.name.to_string(),
                index.to_string(),
                queue.waiting.len().to_string(),
                queue.running.to_string(),
                queue.seats.to_string(),
                seat_seconds(queue.next),
                first.to_string(),
                most.to_string(),
                seat_seconds(queue.work),
            ])
        };
        rows.extend(set.queues().iter().enumerate().map(of));
    }
    rows
}

fn requests(levels: &Levels, details: bool, begun: SystemTime) -> Vec<Row> {
    let mut heads = row([
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    if details {
        heads.extend(row([
            "UserName",
            "Verb",
            "APIPath",
            "Namespace",
            "Name",
            "APIVersion",
            "Resource",
            "SubResource",
        ]));
    }
    let mut rows = vec![heads];
    for (level, _) in levels.all() {
        let set = level.set.lock();
        rows.extend(of_level(&level.name, &set, details, begun));
    }
    rows
}

/// The requests of a level: waiting ones queue by queue, in order, then executing ones; then those without a queue.
fn of_level<W>(name: &str, set: &QueueSet<W>, details: bool, begun: SystemTime) -> Vec<Row> {
    let mut rows = Vec::new();
    let running = |queue: Option<usize>| {
        set.requests()
            .map(|(_, request)| request)
            .filter(move |request| request.runs() && request.queue == queue)
    };
    let mut tell = |queue: Option<usize>, index: Option<usize>, request: &Request<W>| {
        let number = |at: Option<usize>| at.map_or("-1".to_owned(), |at| at.to_string());
        let (arrival, info) = (&request.arrival, &request.arrival.info);
        let width = arrival.width;
        let lingers = i64::try_from(width.lingers.as_nanos()).unwrap_or(i64::MAX);
        let mut cells = row([
            name,
            &arrival.schema,
            &number(queue),
            &number(index),
            &arrival.flow,
            &moment(begun, Some(request.arrived)),
            &width.first.to_string(),
            &width.last.to_string(),
            &time::go_duration(lingers),
            &moment(begun, request.began),
        ]);
        if details {
            let version = match info.group.is_empty() {
                true => info.version.clone(),
                false => format!("{}/{}", info.group, info.version),
            };
            cells.extend(row([
                &*arrival.user,
                &info.verb,
                &info.path,
                &info.namespace,
                &info.name,
                &version,
                &info.resource,
                &info.subresource,
            ]));
        }
        rows.push(cells);
    };
    for (index, queue) in set.queues().iter().enumerate() {
        let waiting = queue
            .waiting
            .iter()
            .filter_map(|ticket| set.request(*ticket));
        for (at, request) in waiting.enumerate() {
            tell(Some(index), Some(at), request);
        }
        for request in running(Some(index)) {
            tell(Some(index), None, request);
        }
    }
    for request in running(None) {
        tell(None, None, request);
    }
    rows
}

/// A time of the server's clock as wall-clock time, in Go's RFC3339Nano format.
fn moment(begun: SystemTime, at: Option<Duration>) -> String {
    let at = at.and_then(|at| jiff::Timestamp::try_from(begun + at).ok());
    at.map_or("0001-01-01T00:00:00Z".to_owned(), |at| at.to_string())
}

fn seat_seconds(work: Work) -> String {
    const SECOND: Work = 100_000_000;
    format!("{}.{:08}ss", work / SECOND, work % SECOND)
}

/// Formats rows like Go's text/tabwriter: each column is as wide as its widest cell with a comma and a space, but at
/// least eight characters; the last one is not padded.
fn table(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let wide = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count() + 2).max();
        widest.unwrap_or(0).max(8)
    };
    let widths: Vec<usize> = (0..columns).map(wide).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == row.len() {
                true => text.push_str(cell),
                false => {
                    let cell = format!("{cell},");
                    text.push_str(&format!("{cell:width$}", width = widths[column]));
                }
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_laid_out_as_by_go() {
        let rows = [
            row(["PriorityLevelName", "Index", "A"]),
            row(["exempt", "0", "longer"]),
        ];
        let text = "PriorityLevelName, Index,  A\nexempt,            0,      longer\n";
        assert_eq!(table(&rows), text);
    }

    #[test]
    fn times_and_work_are_told_as_by_go() {
        let begun = SystemTime::UNIX_EPOCH;
        assert_eq!(moment(begun, None), "0001-01-01T00:00:00Z");
        let at = Duration::from_millis(1_500);
        assert_eq!(moment(begun, Some(at)), "1970-01-01T00:00:01.5Z");
        assert_eq!(seat_seconds(123_000_000_456), "1230.00000456ss");
    }
}
