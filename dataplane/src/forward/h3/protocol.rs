//! The `:protocol` of extended CONNECT (RFC 9220).
//!
//! The h3 crate knows two protocols by name and takes a request for any other as malformed. So what is `:protocol` in a
//! field section gets the name of an ordinary field before that crate sees it, and is made out of one again afterwards.
//! Which of both it was is known by the count.

use h2::ext::Protocol;
use http::header::HeaderName;
use http::{Method, request};

/// What `:protocol` is called meanwhile. Both begin with a character of seven bits in Huffman's code and go on alike, so
/// that nothing else changes.
const STAND_IN: HeaderName = HeaderName::from_static("zprotocol");
/// The name as it is, and in Huffman's code (RFC 7541 appendix B).
const PLAIN: &[u8] = b":protocol";
const CODED: &[u8] = &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f];
/// What their first bytes become.
const PLAIN_STAND_IN: u8 = b'z';
const CODED_STAND_IN: u8 = 0xf7;

/// Renames `:protocol` in a field section (RFC 9204 section 4.5), and says how often it was there. What cannot be read is
/// left as it is: the h3 crate says what is wrong with it.
pub(super) fn rename(section: &mut [u8]) -> usize {
    let mut lines = Lines { section, at: 0 };
    let mut renamed = 0;
    if lines.prefix().is_some() {
        while let Some(line) = lines.next() {
            renamed += usize::from(line);
        }
    }
    renamed
}

/// Takes a request for what it was before [`rename`] had renamed so many fields; also sees to what holds for CONNECT
/// alone.
///
/// # Errors
/// What makes the request malformed (RFC 9114 section 4.4, RFC 8441 section 4).
pub(super) fn restore(head: &mut request::Parts, renamed: usize) -> Result<(), &'static str> {
    let is_connect = head.method == Method::CONNECT;
    let names_target = head.uri.scheme().is_some() || head.uri.path_and_query().is_some();
    if renamed == 0 {
        return if is_connect && names_target {
            Err("CONNECT with a path or a scheme")
        } else {
            Ok(())
        };
    }
    if !is_connect {
        return Err("a protocol without CONNECT");
    }
    if head.uri.scheme().is_none() || head.uri.path_and_query().is_none() {
        return Err("a protocol without a path or a scheme");
    }
    let mut named = head.headers.get_all(STAND_IN).iter();
    let (Some(protocol), None) = (named.next(), named.next()) else {
        return Err("several protocols");
    };
    let protocol = protocol.to_str().ok().filter(|name| !name.is_empty());
    let protocol = Protocol::from(protocol.ok_or("a protocol without a name")?);
    head.headers.remove(STAND_IN);
    head.extensions.insert(protocol);
    Ok(())
}

/// The lines of a field section.
struct Lines<'a> {
    section: &'a mut [u8],
    at: usize,
}

impl Lines<'_> {
    /// Required insert count and base.
    fn prefix(&mut self) -> Option<()> {
        self.integer(8)?;
        self.integer(7).map(drop)
    }

    /// Passes the next line, and says whether it has been renamed.
    fn next(&mut self) -> Option<bool> {
        match *self.section.get(self.at)? {
            // Indexed: the name and the value are known.
            0x80.. => self.integer(6).map(|_| false),
            // With the name of an entry.
            0x40..=0x7f => {
                self.integer(4)?;
                self.value()
            }
            0x20..=0x3f => {
                let renamed = self.name()?;
                self.value()?;
                Some(renamed)
            }
            0x10..=0x1f => self.integer(4).map(|_| false),
            _ => {
                self.integer(3)?;
                self.value()
            }
        }
    }

    fn name(&mut self) -> Option<bool> {
        let coded = self.section.get(self.at)? & 0x08 != 0;
        let length = self.integer(3)?;
        let name = self.section.get_mut(self.at..)?.get_mut(..length)?;
        self.at += length;
        let (sought, stand_in) = if coded {
            (CODED, CODED_STAND_IN)
        } else {
            (PLAIN, PLAIN_STAND_IN)
        };
        let found = name == sought;
        if found {
            name[0] = stand_in;
        }
        Some(found)
    }

    fn value(&mut self) -> Option<bool> {
        let length = self.integer(7)?;
        self.at = self
            .at
            .checked_add(length)
            .filter(|at| *at <= self.section.len())?;
        Some(false)
    }

    /// An integer with a prefix of so many bits (RFC 7541 section 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Some(value);
        }
        for shift in (0..=21).step_by(7) {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.section.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line with a literal name.
    fn literal(flags: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        let head = if length < 7 {
            vec![0x20 | flags | length]
        } else {
            vec![0x27 | flags, length - 7]
        };
        let length = u8::try_from(value.len()).unwrap();
        [&head, name, &[length], value].concat()
    }

    #[test]
    fn the_pseudo_header_alone_is_renamed() {
        let lines = [
            // Insert count and base; an indexed field; one with a name of the table, whose value looks like a line.
            vec![0, 0, 0xd1, 0x50, 13],
            literal(0, PLAIN, b"x"),
            literal(0, PLAIN, b"websocket"),
            literal(0x10, b"x", PLAIN),
            literal(0x08, CODED, b"websocket"),
            literal(0, b":protocols", b""),
            literal(0x08, PLAIN, b""),
            // Those that a dynamic table would be needed for.
            vec![0x13, 0x03, 1, b'v'],
            literal(0, PLAIN, b""),
        ];
        let mut section = lines.concat();
        assert_eq!(rename(&mut section), 3);
        let mut expected = lines.clone();
        expected[2] = literal(0, b"zprotocol", b"websocket");
        expected[4] = literal(0x08, &[&[CODED_STAND_IN], &CODED[1..]].concat(), b"websocket");
        expected[8] = literal(0, b"zprotocol", b"");
        assert_eq!(section, expected.concat());
    }

    proptest! {
        #[test]
        fn anything_is_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let before = bytes.clone();
            let renamed = rename(&mut bytes);
            let changed = before.iter().zip(&bytes).filter(|(before, after)| before != after).count();
            prop_assert_eq!(changed, renamed);
        }

        #[test]
        fn what_is_cut_off_is_left(at in 0..23_usize) {
            let whole = [vec![0, 0], literal(0, PLAIN, b"websocket")].concat();
            let mut section = whole[..at].to_vec();
            rename(&mut section);
            // Whether or not the name was whole, nothing but its first character changes.
            prop_assert_eq!(section.get(5..).unwrap_or_default(), whole.get(5..at).unwrap_or_default());
        }
    }

    fn head(method: &str, uri: &str, names: &[&'static str]) -> request::Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for name in names {
            request = request.header(STAND_IN, *name);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn extended_connect_is_restored() {
        let mut got = head("CONNECT", "https://a.example/chat", &["websocket"]);
        restore(&mut got, 1).unwrap();
        assert_eq!(got.extensions.get::<Protocol>().unwrap().as_str(), "websocket");
        assert!(got.headers.is_empty());
        // An ordinary field of this name is just that.
        let mut got = head("GET", "https://a.example/", &["mine"]);
        restore(&mut got, 0).unwrap();
        assert_eq!(got.headers[STAND_IN], "mine");
        assert!(restore(&mut head("CONNECT", "a.example:443", &[]), 0).is_ok());
    }

    #[test]
    fn connect_must_be_as_it_should() {
        for (method, uri, names, renamed) in [
            ("GET", "https://a.example/", &["websocket"][..], 1),
            ("CONNECT", "a.example:443", &["websocket"], 1),
            ("CONNECT", "https://a.example/", &["websocket", "websocket"], 1),
            ("CONNECT", "https://a.example/", &["a", "b"], 2),
            ("CONNECT", "https://a.example/", &[""], 1),
            ("CONNECT", "https://a.example/", &[], 1),
            ("CONNECT", "https://a.example/", &[], 0),
        ] {
            assert!(
                restore(&mut head(method, uri, names), renamed).is_err(),
                "{method} {uri} {names:?} {renamed}"
            );
        }
    }
}
