//! Random names, UIDs and numbers.

/// Alphabet of generated names: no vowels, so that no words come out.
const SUFFIX: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Fills `bytes` with unpredictable random bytes from the operating system.
///
/// # Panics
/// If the system provides none: uids would collide, and the IDs of DNS queries could be guessed.
pub fn random(bytes: &mut [u8]) {
    use ring::rand::SecureRandom as _;
    let filled = ring::rand::SystemRandom::new().fill(bytes);
    // Once seeded, the kernel's generator never fails; until then the call blocks.
    filled.expect("random bytes from the operating system");
}

/// An unpredictable number from 0 to 1, such as for jitter.
pub fn chance() -> f64 {
    let mut bytes = [0; 4];
    random(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

/// A new uid: a random UUID.
pub fn new_uid() -> String {
    let mut b = [0u8; 16];
    random(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    // Called for each request: allocates nothing but the text.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (i, byte) in b.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for half in [byte >> 4, byte & 0x0f] {
            text.push(char::from(DIGITS[usize::from(half)]));
        }
    }
    text
}

/// A name generated from a prefix, which is cut so that five random characters fit.
pub fn generated(prefix: &str) -> String {
    let mut bytes = [0u8; 5];
    random(&mut bytes);
    let mut end = prefix.len().min(58);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let suffix: String = bytes
        .iter()
        .map(|byte| char::from(SUFFIX[usize::from(*byte) % SUFFIX.len()]))
        .collect();
    format!("{}{suffix}", &prefix[..end])
}

#[cfg(test)]
mod tests {
    use super::super::mask_trailing_dash;

    #[test]
    fn a_prefix_may_end_in_a_dash() {
        assert_eq!(mask_trailing_dash("a-"), "a");
        assert_eq!(mask_trailing_dash("ab--"), "aba");
        assert_eq!(mask_trailing_dash("-"), "-");
        assert_eq!(mask_trailing_dash("ab"), "ab");
    }
}
