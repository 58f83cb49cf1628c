//! Panics of the database as errors: it panics on some kinds of damage.

use std::cell::Cell;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is about a damaged file and is returned as an error: panic hooks stay silent.
pub fn panics_are_errors() -> bool {
    QUIET.get()
}

/// Calls the database, which panics on some kinds of damage; returns the panic's message as the error.
pub(super) fn unbroken<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    QUIET.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("its pages make no sense").to_owned()
    })
}
