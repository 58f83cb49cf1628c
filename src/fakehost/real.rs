//! Zones whose init is a real process: namespaces of its own, the zone's root as its root.

use super::run::{Run, Step};
use super::zoneadm::Configured;

/// Starts the init of a zone.
pub fn start(_run: &mut Run, _zone: &Configured) -> Step {
    Ok(())
}

/// Ends every process of a zone.
pub fn end(_run: &mut Run, _zone: &str) -> Step {
    Ok(())
}
