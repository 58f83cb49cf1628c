//! Resources and usage of the host, from `/proc` and its file systems.

use std::path::Path;

use jiff::Timestamp;

use crate::node::supplies::{Amount, HostUsage};

/// The length of the kernel's tick, in nanoseconds: USER_HZ is 100 everywhere.
const TICK: u64 = 10_000_000;

/// Measures this host; `data` is the directory of pods, images and logs.
pub fn measure(data: &Path) -> HostUsage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (disk, inodes) = disk(data);
    HostUsage {
        at: Timestamp::now(),
        cpu: busy(&read("/proc/stat")),
        memory: memory(),
        disk,
        inodes,
        pids: pids(
            &["pid_max", "threads-max"].map(|limit| read(&format!("/proc/sys/kernel/{limit}"))),
            &read("/proc/loadavg"),
        ),
    }
}

/// The host's memory in bytes; zero if it cannot be determined.
pub fn memory() -> Amount {
    meminfo(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// Bytes and inodes of a path's file system; zero if they cannot be determined.
pub fn disk(path: &Path) -> (Amount, Amount) {
    let Ok(found) = rustix::fs::statvfs(path) else {
        return Default::default();
    };
    let bytes = Amount {
        capacity: found.f_blocks * found.f_frsize,
        available: found.f_bavail * found.f_frsize,
    };
    let files = Amount {
        capacity: found.f_files,
        available: found.f_favail,
    };
    (bytes, files)
}

/// Nanoseconds in which CPUs were not idle, from `/proc/stat`.
fn busy(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks = line.into_iter().flat_map(str::split_whitespace);
    // user nice system idle iowait irq softirq steal; guest time is included in the first two.
    let busy = ticks.take(8).enumerate();
    let busy = busy.filter(|(place, _)| !matches!(place, 3 | 4));
    busy.filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * TICK
}

/// Memory from `/proc/meminfo`: inactive file pages count as available.
fn meminfo(meminfo: &str) -> Amount {
    let field = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name));
        let kibi = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kibi.unwrap_or(0) * 1024
    };
    Amount {
        capacity: field("MemTotal:"),
        available: field("MemFree:") + field("Inactive(file):"),
    }
}

/// Processes and threads, from the smallest of the kernel's limits and `/proc/loadavg`.
fn pids(limits: &[String], loadavg: &str) -> Amount {
    let limits = limits.iter().filter_map(|limit| limit.trim().parse().ok());
    let capacity: u64 = limits.min().unwrap_or(0);
    let part = loadavg.split_whitespace().nth(3);
    let used = part.and_then(|part| part.split_once('/')?.1.parse().ok());
    Amount {
        capacity,
        available: capacity.saturating_sub(used.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "cpu  10 1 5 1000 50 2 3 4 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy(stat), 25 * TICK);
        let meminfo =
            "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive: 900 kB\nInactive(file): 200 kB\n";
        let memory = super::meminfo(meminfo);
        assert_eq!((memory.capacity, memory.available), (1000 << 10, 500 << 10));
        let pids = |limits: [&str; 2]| {
            let limits = limits.map(str::to_owned);
            let pids = super::pids(&limits, "0.20 0.18 0.12 1/80 11206");
            (pids.capacity, pids.used())
        };
        assert_eq!(pids(["4000\n", "3000\n"]), (3000, 80));
        assert_eq!(pids(["4000\n", ""]), (4000, 80));
        assert_eq!((busy(""), pids(["", ""])), (0, (0, 0)));
    }
}
