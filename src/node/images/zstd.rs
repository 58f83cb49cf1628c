//! Layers compressed with zstd: consecutive frames (RFC 8878), of which skippable ones contain no data (indexes of
//! other tools).

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Whether bytes begin a frame, with data or skippable.
pub fn begins(bytes: &[u8]) -> bool {
    match bytes {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => true,
        [kind, 0x2a, 0x4d, 0x18, ..] => kind & 0xf0 == 0x50,
        _ => false,
    }
}

/// The concatenated data of all frames.
pub struct Frames<R> {
    from: R,
    decoder: FrameDecoder,
    /// Whether a frame was begun.
    open: bool,
}

impl<R: BufRead> Frames<R> {
    /// Decompresses `from`.
    pub fn new(from: R) -> Self {
        Frames {
            from,
            decoder: FrameDecoder::new(),
            open: false,
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.open {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    let one = BlockDecodingStrategy::UptoBlocks(1);
                    let decoded = self.decoder.decode_blocks(&mut self.from, one);
                    decoded.map_err(io::Error::other)?;
                }
                let count = self.decoder.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.open = false;
            }
            if self.from.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.init(&mut self.from) {
                Ok(()) => self.open = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut self.from.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_one_another_and_those_without_data_are_skipped() {
        let frame = |text: &str| {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(text.as_bytes(), level)
        };
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let large = "0123456789".repeat(50_000);
        let whole = [skipped.clone(), frame("one "), frame(&large), skipped].concat();
        assert!(begins(&whole) && begins(&whole[11..]) && !begins(b"tar"));
        let mut text = String::new();
        let read = Frames::new(whole.as_slice()).read_to_string(&mut text);
        assert_eq!(read.expect("read"), 4 + large.len());
        assert_eq!(text, format!("one {large}"));
        for end in [5, 9, 14, whole.len() - 1] {
            let read = Frames::new(&whole[..end]).read_to_end(&mut Vec::new());
            assert!(read.is_err(), "cut after {end}");
        }
    }
}
