//! The operations of a supervisor that differ between kernels: Linux (the host's own, or that of an lx zone) and
//! illumos (in reddwarf zones).

#[cfg(target_os = "illumos")]
mod illumos;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "illumos")]
pub(super) use illumos::*;
#[cfg(target_os = "linux")]
pub(super) use linux::*;

/// Which processes a child sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Those of the supervisor.
    Zone,
    /// Its own.
    #[cfg(target_os = "linux")]
    Own,
    /// Those that another process sees.
    #[cfg(target_os = "linux")]
    Beside(i32),
}
