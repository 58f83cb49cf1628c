//! Volumes and claims.

/// Volumes and claims as they are known.
#[derive(Default)]
pub struct Storage {}
