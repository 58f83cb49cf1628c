//! Conversions between the versions of a kind.

use crate::schema::{Schema, Value};

/// The versions of a kind: their schemas, and conversion between them.
pub trait Versions {
    /// The schema of a version; `None` if it is unknown, so that entries in that version are dropped.
    ///
    /// # Errors
    /// An unknown version that is required.
    fn schema(&self, api_version: &str) -> Result<Option<&Schema>, String>;

    /// Converts an object between two served versions.
    ///
    /// # Errors
    /// The object cannot be decoded.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, String>;
}

/// A kind with a single version: its apiVersion and schema.
pub struct OneVersion<'a>(pub &'a str, pub &'a Schema);

impl Versions for OneVersion<'_> {
    fn schema(&self, api_version: &str) -> Result<Option<&Schema>, String> {
        Ok((api_version == self.0).then_some(self.1))
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }
}
