//! Bytes as text: base64 as Go's encoding/base64 reads it: line breaks count for nothing, and an error says where the text breaks off.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD};

/// Go does not look at the bits of the last letter that belong to no byte.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

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

/// What text of the alphabet for addresses, without padding, stands for.
///
/// # Errors
/// Where the text breaks off, in bytes of it.
pub fn decode_unpadded(text: &str) -> Result<Vec<u8>, usize> {
    let newline = |c: char| matches!(c, '\r' | '\n');
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some(at) = text.find(|c| !known(c) && !newline(c)) {
        return Err(at);
    }
    let compact: String = text.chars().filter(|c| !newline(*c)).collect();
    // One letter is no byte, and the only thing left that can be wrong.
    LENIENT
        .decode(compact)
        .map_err(|_| text.len().saturating_sub(1))
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
