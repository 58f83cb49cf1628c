//! The node agent: a kubelet whose pods are zones.

pub mod machine;
