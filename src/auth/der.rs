//! A DER encoder for certificates and keys. Follows ITU-T X.690.

/// A value with a tag.
pub(super) fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skipped = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - skipped) as u8);
        out.extend(&bytes[skipped..]);
    }
    out.extend(content);
    out
}

/// A SEQUENCE.
pub(super) fn sequence(items: &[Vec<u8>]) -> Vec<u8> {
    tagged(0x30, &items.concat())
}

/// A SET, sorted as DER requires.
pub(super) fn set(mut items: Vec<Vec<u8>>) -> Vec<u8> {
    items.sort();
    tagged(0x31, &items.concat())
}

/// A non-negative INTEGER from big-endian bytes.
pub(super) fn integer(bytes: &[u8]) -> Vec<u8> {
    let skipped = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut content = bytes[skipped..].to_vec();
    if content.first().is_none_or(|first| *first >= 0x80) {
        content.insert(0, 0);
    }
    tagged(0x02, &content)
}

/// An OBJECT IDENTIFIER from its encoded arcs.
pub(super) fn oid(arcs: &[u8]) -> Vec<u8> {
    tagged(0x06, arcs)
}

/// An OCTET STRING.
pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tagged(0x04, content)
}

/// A BIT STRING whose last `unused` bits do not count.
pub(super) fn bits(unused: u8, content: &[u8]) -> Vec<u8> {
    tagged(0x03, &[&[unused], content].concat())
}

/// A BIT STRING of flags by bit number, in the shortest form.
pub(super) fn flags(set: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut highest = 0;
    for flag in set {
        let at = usize::from(flag / 8);
        if bytes.len() <= at {
            bytes.resize(at + 1, 0);
        }
        bytes[at] |= 0x80 >> (flag % 8);
        highest = highest.max(flag);
    }
    bits(7 - highest % 8, &bytes)
}

/// Text: a PrintableString if possible, as Go chooses.
pub(super) fn text(text: &str) -> Vec<u8> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    let tag = if text.bytes().all(plain) { 0x13 } else { 0x0c };
    tagged(tag, text.as_bytes())
}

/// A time, in seconds since 1970.
pub(super) fn time(seconds: i64) -> Vec<u8> {
    let printed = crate::meta::time::print(seconds);
    let mut digits: String = printed.chars().filter(char::is_ascii_digit).collect();
    digits.push('Z');
    // Years from 1950 to 2049 are written with two digits.
    if ("1950".."2050").contains(&&digits[..4]) {
        tagged(0x17, &digits.as_bytes()[2..])
    } else {
        tagged(0x18, digits.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_shortest_form() {
        assert_eq!(tagged(4, &[0; 127])[..3], [4, 127, 0]);
        assert_eq!(tagged(4, &[0; 128])[..4], [4, 0x81, 128, 0]);
        assert_eq!(tagged(4, &[0; 300])[..5], [4, 0x82, 1, 44, 0]);
        assert_eq!(integer(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(flags([0, 2].into_iter()), [3, 2, 5, 0xa0]);
        assert_eq!(flags([0, 8].into_iter()), [3, 3, 7, 0x80, 0x80]);
        assert_eq!(text("a b"), [0x13, 3, b'a', b' ', b'b']);
        assert_eq!(text("a*"), [0x0c, 2, b'a', b'*']);
        assert_eq!(time(0), b"\x17\x0d700101000000Z");
        assert_eq!(time(2_524_608_000), b"\x18\x0f20500101000000Z");
        assert_eq!(set(vec![vec![2], vec![1]]), [0x31, 2, 1, 2]);
    }
}
