//! What all objects share: names, quantities, selectors, times, field errors, `Status`. Pure functions of values.

pub mod addresses;
pub mod amounts;
pub mod budget;
pub mod checks;
pub mod conditions;
pub mod cron;
pub mod errors;
pub mod jsonpath;
pub mod names;
pub mod pem;
pub mod placement;
pub mod ports;
pub mod prometheus;
pub mod quantity;
pub mod regexp;
pub mod selector;
pub mod status;
pub mod strconv;
pub mod table;
pub mod time;
pub mod url;
pub mod version;
pub mod volumes;

pub use errors::{At, Errors, FieldError, Path};
pub use status::Status;
