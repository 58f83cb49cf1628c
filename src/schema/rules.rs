//! What a custom resource's schema demands of a value beyond its type.

/// Value validations of one place in a custom resource's schema.
#[derive(Clone, Debug, Default)]
pub struct Rules {}
