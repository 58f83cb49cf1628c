//! PEM as Go's encoding/pem reads and writes it: text around blocks and invalid blocks are skipped.

use base64::Engine as _;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `CERTIFICATE`
    pub label: String,
    /// Whether header lines (`key: value`) precede the contents.
    pub headers: bool,
    /// The contents.
    pub bytes: Vec<u8>,
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The blocks in a text, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in text
        .split('\n')
        .map(|line| line.trim_end_matches([' ', '\t', '\r']))
    {
        if let Some(label) = framed(line, BEGIN) {
            open = Some((label, Vec::new()));
        } else if line.starts_with(END) {
            if let Some((label, lines)) = open.take()
                && framed(line, END) == Some(label)
            {
                found.extend(block(label, &lines));
            }
        } else if let Some((_, lines)) = &mut open {
            lines.push(line);
        }
    }
    found
}

/// A block as encoding/pem writes it.
pub fn text(label: &str, bytes: &[u8]) -> String {
    let mut out = format!("{BEGIN}{label}{DASHES}\n");
    let mut rest = &base64::engine::general_purpose::STANDARD.encode(bytes)[..];
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out + END + label + DASHES + "\n"
}

fn framed<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix(DASHES)
}

fn block(label: &str, lines: &[&str]) -> Option<Block> {
    let headers = lines.iter().take_while(|line| line.contains(':')).count();
    let contents: String = lines[headers..]
        .iter()
        .flat_map(|line| line.chars())
        .filter(|c| !matches!(c, ' ' | '\t' | '\r'))
        .collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(contents);
    Some(Block {
        label: label.to_owned(),
        headers: headers > 0,
        bytes: bytes.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = "talk\n-----BEGIN A-----\nbroken\n-----BEGIN B-----\nkey: value\n\nQU\nJD \n-----END B-----\nmore\n-----BEGIN C-----\r\nQQ==\r\n-----END C-----";
        let found: Vec<_> = blocks(text)
            .into_iter()
            .map(|block| (block.label, block.headers, block.bytes))
            .collect();
        assert_eq!(
            found,
            [
                ("B".to_owned(), true, b"ABC".to_vec()),
                ("C".to_owned(), false, b"A".to_vec()),
            ]
        );
    }

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 48, 49, 200] {
            let bytes = vec![7; length];
            let text = text("A", &bytes);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            let [block] = &blocks(&text)[..] else {
                panic!("{text}")
            };
            assert_eq!((&block.label[..], &block.bytes), ("A", &bytes));
        }
    }

    #[test]
    fn what_is_no_block_is_skipped() {
        for text in [
            "",
            "not a block",
            " -----BEGIN A-----\nQQ==\n-----END A-----",
            "-----BEGIN A-----\nQQ==\n-----END B-----",
            "-----BEGIN A-----\n?\n-----END A-----",
            "-----BEGIN A-----\nQQ==",
        ] {
            assert_eq!(blocks(text), [], "{text}");
        }
    }
}
