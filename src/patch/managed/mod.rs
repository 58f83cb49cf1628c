//! Server-side apply and managedFields: which manager owns which fields of an object, the result of an apply, and
//! its conflicts with other managers. Pure functions of values and schemas.

mod cap;
pub mod conflict;
pub mod element;
pub mod entries;
pub mod fields;
pub mod merge;
pub mod scale;
pub mod set;
pub mod typing;
pub mod update;
pub mod validate;
pub mod walk;

pub use element::Element;
pub use entries::{Entry, Managed, Manager, Operation, keep_reset};
pub use set::Set;
pub use update::{Filter, OneVersion, Refusal, Versions, Writer};

#[cfg(test)]
mod tests;
