//! Custom resources: definitions, their schemas, and the registry entries made of them.

use crate::schema::Value;

/// What a custom resource's registry entry knows of its definition.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    /// The CustomResourceDefinition.
    pub definition: Value,
}
