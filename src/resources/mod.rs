//! The registry of API resources. A resource is a descriptor (from upstream's own discovery documents)
//! and, where its kind has special behavior, [`Rules`]: pure functions of values, one file per kind in its group.
//! Custom resources are descriptors made at run time.

pub mod disruption;
pub mod forms;
pub mod metadata;
pub mod owners;
pub mod record;
pub mod registry;
pub mod reset;
mod rules;
pub mod scale;

pub mod cluster;
pub mod custom;
mod decoded;
mod groups;
pub mod upkeep;

pub use registry::{Column, Registry, Resource, Subresource, Version, gvk_type};
pub use rules::{
    Age, Cx, Deletion, Dependents, Effects, Generation, MetaOnStatus, NOTHING, Naming, Printing,
    Rules, Selectable, Selection, SelectorError, StatusRules,
};
