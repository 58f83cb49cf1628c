//! Base64 as Go's encoding/base64 reads it: line breaks are ignored, and errors give the position of the corruption.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD};

/// Go ignores the bits of the last letter that do not belong to a byte.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Encodes bytes.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes text and encodes it again without line breaks.
///
/// # Errors
/// The position of the corruption, in bytes.
pub fn canonical(text: &str) -> Result<String, usize> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(compact) {
        Ok(bytes) => Ok(encode(&bytes)),
        Err(_) => Err(offset(text.as_bytes())),
    }
}

/// Decodes text in the URL-safe alphabet without padding.
///
/// # Errors
/// The position of the corruption, in bytes.
pub fn decode_unpadded(text: &str) -> Result<Vec<u8>, usize> {
    let newline = |c: char| matches!(c, '\r' | '\n');
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some(at) = text.find(|c| !known(c) && !newline(c)) {
        return Err(at);
    }
    let compact: String = text.chars().filter(|c| !newline(*c)).collect();
    // The only error left is a single letter, which is not enough for a byte.
    LENIENT
        .decode(compact)
        .map_err(|_| text.len().saturating_sub(1))
}

/// The position, in bytes, at which Go's decoder reports corrupt input: it reads groups of four letters, and allows
/// padding only in the last.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_padding_breaks_off_where_go_says() {
        for (text, found) in [
            ("", Ok(&b""[..])),
            ("e30", Ok(b"{}")),
            ("e3\n0", Ok(b"{}")),
            ("a", Err(0)),
            ("abcde", Err(4)),
            ("abc=", Err(3)),
            ("ab!d", Err(2)),
            ("abcdef-_+/", Err(8)),
        ] {
            let decoded = decode_unpadded(text);
            assert_eq!(decoded.as_deref().map_err(|at| *at), found, "{text}");
        }
    }
}
