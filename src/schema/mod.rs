//! Values, their decoding, and their schemas.

pub mod builtin;
pub mod byte_text;
pub mod check;
pub mod decode;
pub mod emptied;
pub mod internal;
pub mod json;
mod object;
pub mod proto;
pub mod semantic;
mod serde;
pub mod structural;
pub mod types;
mod value;
pub mod yaml;

pub use object::Object;
pub use types::{Schema, Shape};
pub use value::{Key, Value};

/// Stack size, in bytes, of every thread that handles objects: enough for the deepest object the decoder
/// accepts, in any of the recursions over it. Only touched pages cost memory.
pub const STACK: usize = 64 << 20;
