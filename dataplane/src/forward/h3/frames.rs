//! Where frames begin and end on a stream of HTTP/3 (RFC 9114 section 7).
//!
//! The h3 crate reads on whenever it is asked for the next frame, keeps every frame but DATA until it is whole, and takes
//! an empty DATA frame or one that is cut short for the end of a body. So it is given a stream in pieces: the head of a
//! frame, then what is in it; never more than it has asked for, nothing that it would ignore, nothing that is too long. A
//! request's head comes whole, with what `protocol` changes in it.

use bytes::{Bytes, BytesMut};

use super::protocol;

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
/// Types that mean something: HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID, and those that are
/// HTTP/2's and forbidden here (section 7.2.8).
const KNOWN: [u64; 10] = [0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd];
/// Type of a client's control stream (section 6.2.1); its frames follow.
const CONTROL: u64 = 0x0;
/// Longest frame that has to be kept until it is whole. Header fields that are larger than may be once they are decoded
/// get an answer if they are not longer than this.
pub(super) const MAX_FRAME: u64 = 256 * 1024;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Malformed {
    #[error("a frame of {0} bytes")]
    TooLong(u64),
    #[error("a frame is cut short")]
    CutShort,
}

/// Reads one stream.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    /// The next HEADERS frame is a request's head.
    heads: bool,
    renamed: usize,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// The type of a unidirectional stream.
    Type,
    /// The head of a frame.
    Head,
    /// In a frame; so many bytes of it are left.
    Within { left: u64, ignored: bool },
    /// In a request's head of so many bytes, which is kept until it is whole.
    Section(usize),
    /// No frames are here.
    Raw,
}

impl Frames {
    /// A request's stream.
    pub(super) fn request() -> Self {
        Self::new(At::Head, true)
    }

    /// A unidirectional stream.
    pub(super) fn unidirectional() -> Self {
        Self::new(At::Type, false)
    }

    fn new(at: At, heads: bool) -> Self {
        Self {
            at,
            heads,
            renamed: 0,
        }
    }

    /// How often `:protocol` was in the head, renamed by now.
    pub(super) fn renamed(&self) -> usize {
        self.renamed
    }

    /// Takes the next piece out of what has come; `None`: more must come first.
    ///
    /// # Errors
    /// If a frame is too long.
    pub(super) fn next(&mut self, come: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        loop {
            match self.at {
                At::Type => {
                    let Some((kind, length)) = integer(come) else {
                        return Ok(None);
                    };
                    self.at = if kind == CONTROL { At::Head } else { At::Raw };
                    return Ok(Some(come.split_to(length).freeze()));
                }
                At::Head => {
                    let Some((kind, first)) = integer(come) else {
                        return Ok(None);
                    };
                    let Some((left, second)) = integer(&come[first..]) else {
                        return Ok(None);
                    };
                    let known = KNOWN.contains(&kind);
                    if known && left > MAX_FRAME {
                        return Err(Malformed::TooLong(left));
                    }
                    let ignored = !known && (kind != DATA || left == 0);
                    let head = come.split_to(first + second).freeze();
                    let is_head = kind == HEADERS && std::mem::take(&mut self.heads);
                    self.at = match usize::try_from(left) {
                        Ok(0) => At::Head,
                        Ok(length) if is_head => At::Section(length),
                        _ => At::Within { left, ignored },
                    };
                    if !ignored {
                        return Ok(Some(head));
                    }
                }
                At::Within { left, ignored } => {
                    if come.is_empty() {
                        return Ok(None);
                    }
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(come.len());
                    let piece = come.split_to(length).freeze();
                    let left = left - length as u64;
                    self.at = if left == 0 {
                        At::Head
                    } else {
                        At::Within { left, ignored }
                    };
                    if !ignored {
                        return Ok(Some(piece));
                    }
                }
                At::Section(length) => {
                    if come.len() < length {
                        return Ok(None);
                    }
                    let mut section = come.split_to(length);
                    self.renamed = protocol::rename(&mut section);
                    self.at = At::Head;
                    return Ok(Some(section.freeze()));
                }
                At::Raw => return Ok((!come.is_empty()).then(|| come.split().freeze())),
            }
        }
    }

    /// What the end of the stream means when `come` is left.
    ///
    /// # Errors
    /// If it is the middle of a frame.
    pub(super) fn end(&self, come: &BytesMut) -> Result<(), Malformed> {
        match self.at {
            At::Within { ignored: false, .. } | At::Section(_) => Err(Malformed::CutShort),
            At::Head if !come.is_empty() => Err(Malformed::CutShort),
            _ => Ok(()),
        }
    }
}

/// An integer at the beginning, and how many bytes it takes (RFC 9000 section 16).
fn integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| {
        value << 8 | u64::from(*byte)
    });
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pieces of a stream that comes in steps of so many bytes.
    fn pieces(mut frames: Frames, stream: &[u8], step: usize) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut come = BytesMut::new();
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for part in stream.chunks(step) {
            come.extend_from_slice(part);
            while let Some(piece) = frames.next(&mut come)? {
                pieces.push(piece.to_vec());
            }
        }
        frames.end(&come)?;
        Ok(pieces)
    }

    #[test]
    fn heads_and_contents_come_apart() {
        let stream = b"\x01\x03abc\x00\x02de\x00\x01f";
        for step in 1..stream.len() {
            let got = pieces(Frames::request(), stream, step).unwrap();
            assert_eq!(got.concat(), stream);
        }
        let got = pieces(Frames::request(), stream, 100).unwrap();
        let expected: [&[u8]; 6] = [b"\x01\x03", b"abc", b"\x00\x02", b"de", b"\x00\x01", b"f"];
        assert_eq!(got, expected);
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        // A reserved type, an empty DATA frame, and a type of two bytes.
        let stream = b"\x01\x01a\x21\x03xyz\x00\x00\x40\x41\x02pq\x00\x01b";
        for step in 1..stream.len() {
            let got = pieces(Frames::request(), stream, step).unwrap();
            assert_eq!(got.concat(), b"\x01\x01a\x00\x01b");
        }
        // However long it is.
        let got = pieces(Frames::request(), b"\x21\xc0\xff\xff\xff\xff\xff\xff\xffxyz", 5).unwrap();
        assert!(got.is_empty());
    }

    #[test]
    fn the_first_head_alone_is_changed() {
        let section = b"\0\0\x27\x02:protocol\x01p";
        let headers = [&[0x1, u8::try_from(section.len()).unwrap()], &section[..]].concat();
        let stream = [&headers, &b"\x00\x01b"[..], &headers].concat();
        for step in 1..stream.len() {
            let got = pieces(Frames::request(), &stream, step).unwrap();
            assert_eq!(got[1][4..13], *b"zprotocol");
            let mut got = got.concat();
            got[6] = b':';
            assert_eq!(got, stream);
        }
    }

    #[test]
    fn ends_and_lengths() {
        for cut in [&b"\x00\x05abc"[..], b"\x00\x05", b"\x00", b"\x01\x02a"] {
            assert_eq!(
                pieces(Frames::request(), cut, 1),
                Err(Malformed::CutShort),
                "{cut:?}"
            );
        }
        let long = b"\x01\x80\x04\x00\x01";
        assert_eq!(
            pieces(Frames::request(), long, 2),
            Err(Malformed::TooLong(MAX_FRAME + 1))
        );
        assert_eq!(
            pieces(Frames::unidirectional(), b"\x00\x04\xa0\x00\x00\x00", 1),
            Err(Malformed::TooLong(0x2000_0000))
        );
    }

    #[test]
    fn other_streams_have_no_frames() {
        let stream = b"\x02\x01\xff\xff\xff";
        let got = pieces(Frames::unidirectional(), stream, 100).unwrap();
        assert_eq!(got, [&b"\x02"[..], b"\x01\xff\xff\xff"]);
    }
}
