//! What real runtimes refuse.

use super::super::{Limits, Process, ProcessId, Zone, ZoneError, ZoneName, ZoneState};

pub(super) fn must_run(operation: &'static str, zone: &Zone) -> Result<(), ZoneError> {
    match zone.state {
        ZoneState::Running => Ok(()),
        state => Err(ZoneError::State {
            operation,
            what: format!("zone {}", zone.spec.name),
            state: state.to_string(),
        }),
    }
}

/// Like the kernel, rejects a process limit above that of its zone.
pub(super) fn fits(
    zone: &ZoneName,
    process: &ProcessId,
    own: &Limits,
    whole: &Limits,
) -> Result<(), ZoneError> {
    match own.cpu_millis.zip(whole.cpu_millis) {
        Some((own, whole)) if own > whole => Err(ZoneError::failed(
            "limit",
            format!("process {process} of zone {zone}"),
            "cpu.cfs_quota_us: Invalid argument (os error 22)",
        )),
        _ => Ok(()),
    }
}

pub(super) fn find<'z>(
    operation: &'static str,
    zone: &'z mut Zone,
    id: &ProcessId,
) -> Result<&'z mut Process, ZoneError> {
    let name = zone.spec.name.clone();
    zone.processes
        .iter_mut()
        .find(|process| process.id == *id)
        .ok_or_else(|| ZoneError::NotFound {
            operation,
            what: format!("process {id} of zone {name}"),
        })
}
