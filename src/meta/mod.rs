//! Terms of every object: names, quantities, selectors, times, field errors, `Status`. Pure functions of values.

pub mod errors;
pub mod status;

pub use errors::{At, Errors, FieldError, Path};
pub use status::Status;
