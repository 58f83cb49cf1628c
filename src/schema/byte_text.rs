//! Bytes as text: base64 as Go's encoding/base64 reads it: line breaks count for nothing, and an error says where the text breaks off.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes as text.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The same bytes, encoded without line breaks.
///
/// # Errors
/// Where the text breaks off, in bytes of it.
pub fn canonical(text: &str) -> Result<String, usize> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(compact) {
        Ok(bytes) => Ok(encode(&bytes)),
        Err(_) => Err(offset(text.as_bytes())),
    }
}

/// Where Go's decoder says that base64 text breaks off, in bytes of it: by groups of four, each as far as it goes, with
/// padding behind the last alone.
fn offset(text: &[u8]) -> usize {
    let newline = |byte: u8| matches!(byte, b'\r' | b'\n');
    let skip = |mut at: usize| {
        while text.get(at).is_some_and(|byte| newline(*byte)) {
            at += 1;
        }
        at
    };
    let (mut at, mut in_group) = (0, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => in_group = (in_group + 1) % 4,
            _ if newline(byte) => {}
            b'=' if in_group == 2 => {
                let next = skip(at + 1);
                return match text.get(next) {
                    None => text.len(),
                    Some(b'=') => skip(next + 1),
                    Some(_) => next - 1,
                };
            }
            b'=' if in_group == 3 => return skip(at + 1),
            _ => return at,
        }
        at += 1;
    }
    text.len() - in_group
}
