//! YAML 1.1 to values and back, as `sigs.k8s.io/yaml` reads and writes it.

mod read;
mod resolve;
mod write;

pub use read::{Yaml, parse};
pub use write::write;

#[cfg(test)]
mod tests;
