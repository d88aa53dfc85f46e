//! A ClientHello as bytes (RFC 8446 section 4.1.2), read as far as fingerprints need it.

/// Bytes of a record's head: type, version, length.
const RECORD_HEAD: usize = 5;
/// Bytes of a handshake message's head: type, length.
const MESSAGE_HEAD: usize = 4;
/// Type of records that carry the handshake.
const HANDSHAKE: u8 = 22;
/// Type of the message.
const CLIENT_HELLO: u8 = 1;
/// Bytes of the client's random.
const RANDOM: usize = 32;
/// Types of extensions (IANA, TLS ExtensionType Values).
const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;
const PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// What a client offers, in its order, without the values that only keep servers tolerant (GREASE, RFC 8701).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hello {
    /// The version in the message itself.
    pub(super) version: u16,
    /// The newest version that is offered.
    pub(super) newest: u16,
    pub(super) ciphers: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    pub(super) groups: Vec<u16>,
    pub(super) point_formats: Vec<u8>,
    pub(super) signatures: Vec<u16>,
    /// The first application protocol; empty: none.
    pub(super) protocol: Vec<u8>,
    /// It names the server.
    pub(super) has_name: bool,
}

/// The body of the ClientHello that these records carry. `None`: they carry none, or not all of it.
pub(super) fn message(records: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let mut rest = records;
    while let Some((head, after)) = rest.split_first_chunk::<RECORD_HEAD>() {
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if head[0] != HANDSHAKE || length == 0 {
            return None;
        }
        message.extend_from_slice(after.get(..length)?);
        rest = &after[length..];
        if let Some((kind, body)) = first(&message) {
            return (kind == CLIENT_HELLO).then(|| body.to_vec());
        }
    }
    None
}

/// The body of the ClientHello that this handshake message is. `None`: it is none, or not all of it.
pub(super) fn body(message: &[u8]) -> Option<&[u8]> {
    let (kind, body) = first(message)?;
    (kind == CLIENT_HELLO).then_some(body)
}

/// Type and body of the first message, once it is whole.
fn first(messages: &[u8]) -> Option<(u8, &[u8])> {
    let (head, rest) = messages.split_first_chunk::<MESSAGE_HEAD>()?;
    let length = u32::from_be_bytes([0, head[1], head[2], head[3]]);
    Some((head[0], rest.get(..usize::try_from(length).ok()?)?))
}

/// Bytes that are taken from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// As many bytes as one byte says.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?.into();
        self.take(length)
    }

    /// As many bytes as two bytes say.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?.into();
        self.take(length)
    }
}

/// Pairs of bytes, without GREASE.
fn ids(bytes: &[u8]) -> Vec<u16> {
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .filter(|id| !is_grease(*id))
        .collect()
}

/// 0x0a0a, 0x1a1a and so on.
fn is_grease(id: u16) -> bool {
    id & 0x0f0f == 0x0a0a && id >> 8 == id & 0xff
}

impl Hello {
    /// Reads the body of the message.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut input = Input(body);
        let version = input.u16()?;
        input.take(RANDOM)?;
        let _session = input.short()?;
        let mut hello = Self {
            version,
            newest: version,
            ciphers: ids(input.long()?),
            ..Self::default()
        };
        let _compressions = input.short()?;
        if input.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = Input(input.long()?);
        while !extensions.0.is_empty() {
            let (id, content) = (extensions.u16()?, extensions.long()?);
            if !is_grease(id) {
                hello.extensions.push(id);
                hello.note(id, Input(content))?;
            }
        }
        Some(hello)
    }

    fn note(&mut self, extension: u16, mut content: Input<'_>) -> Option<()> {
        match extension {
            SERVER_NAME => self.has_name = true,
            SUPPORTED_GROUPS => self.groups = ids(content.long()?),
            POINT_FORMATS => self.point_formats = content.short()?.to_vec(),
            SIGNATURE_ALGORITHMS => self.signatures = ids(content.long()?),
            SUPPORTED_VERSIONS => {
                let newest = ids(content.short()?).into_iter().max();
                self.newest = newest.unwrap_or(self.newest);
            }
            PROTOCOLS => self.protocol = Input(content.long()?).short()?.to_vec(),
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list of bytes with its length in front.
    fn listed(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn extension(id: u16, content: &[u8]) -> Vec<u8> {
        [&id.to_be_bytes()[..], &listed(content)].concat()
    }

    fn body() -> Vec<u8> {
        let extensions = [
            extension(0x1a1a, &[]),
            extension(SERVER_NAME, &listed(b"\0\0\x01a")),
            extension(SUPPORTED_GROUPS, &listed(&[0x2a, 0x2a, 0, 29, 0, 23])),
            extension(POINT_FORMATS, &[1, 0]),
            extension(SIGNATURE_ALGORITHMS, &listed(&[4, 3, 8, 4])),
            extension(PROTOCOLS, &listed(b"\x02h2\x08http/1.1")),
            extension(SUPPORTED_VERSIONS, &[6, 0x3a, 0x3a, 3, 3, 3, 4]),
        ];
        [
            &[3, 3][..],
            &[7; RANDOM],
            &[2, 9, 9],
            &listed(&[0x0a, 0x0a, 0x13, 1, 0x13, 2]),
            &[1, 0],
            &listed(&extensions.concat()),
        ]
        .concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let pieces = message.chunks(size);
        pieces
            .flat_map(|piece| [&[HANDSHAKE, 3, 1][..], &listed(piece)].concat())
            .collect()
    }

    #[test]
    fn a_message_is_read_whatever_records_it_came_in() {
        let body = body();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let whole = [&[CLIENT_HELLO], &length[1..], &body].concat();
        let expected = Hello {
            version: 0x0303,
            newest: 0x0304,
            ciphers: vec![0x1301, 0x1302],
            extensions: vec![0, 10, 11, 13, 16, 43],
            groups: vec![29, 23],
            point_formats: vec![0],
            signatures: vec![0x0403, 0x0804],
            protocol: b"h2".to_vec(),
            has_name: true,
        };
        for size in [1, 3, 40, 1000] {
            let message = message(&records(&whole, size)).unwrap();
            assert_eq!(Hello::read(&message).as_ref(), Some(&expected), "{size}");
        }
        assert_eq!(message(&records(&whole, 1000)[..60]), None);
        assert_eq!(super::body(&whole).and_then(Hello::read), Some(expected));
        assert_eq!(super::body(&whole[..60]), None);
        assert_eq!(message(&records(&[2, 0, 0, 1, 0], 1000)), None);
    }

    proptest! {
        #[test]
        fn anything_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = message(&bytes);
            let _ = Hello::read(&bytes);
            let _ = message(&records(&bytes, 7));
        }

        #[test]
        fn what_is_cut_off_is_not_understood(at in 0..100_usize) {
            let body = body();
            prop_assert!(at >= body.len() || at == 47 || Hello::read(&body[..at]).is_none());
        }
    }
}
