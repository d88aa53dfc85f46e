//! A QUIC connection on which a test says what it likes.

use super::client;
use super::{HOST, Site};

/// Frames (RFC 9114 section 7.2).
pub const DATA: u64 = 0x0;
pub const HEADERS: u64 = 0x1;

/// A connection whose control stream is open.
pub struct Raw {
    pub quic: quinn::Connection,
    _control: quinn::SendStream,
}

impl Raw {
    pub async fn connect(site: &Site) -> Self {
        // Type and an empty SETTINGS.
        Self::with_control(site, &[0x0, 0x4, 0x0]).await
    }

    /// With this on the first unidirectional stream.
    pub async fn with_control(site: &Site, bytes: &[u8]) -> Self {
        let quic = client::quic(site.port, HOST, client::crypto(&site.certificate, None))
            .await
            .unwrap();
        let mut control = quic.open_uni().await.unwrap();
        // The proxy may have closed the connection before all is written.
        let _ = control.write_all(bytes).await;
        Self {
            quic,
            _control: control,
        }
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> quinn::ConnectionError {
        let closed = tokio::time::timeout(std::time::Duration::from_secs(20), self.quic.closed());
        closed.await.expect("not closed")
    }

    /// What comes back when these bytes are a request's stream; the code if that is reset.
    pub async fn ask(&self, bytes: &[u8]) -> Result<Vec<u8>, u64> {
        let (mut send, mut recv) = self.quic.open_bi().await.unwrap();
        // The proxy may have enough before all is written.
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        read(&mut recv).await
    }
}

/// Reads to the end, or to a reset or the end of the connection.
pub async fn read(recv: &mut quinn::RecvStream) -> Result<Vec<u8>, u64> {
    let reading = recv.read_to_end(1 << 20);
    match tokio::time::timeout(std::time::Duration::from_secs(20), reading)
        .await
        .expect("no end")
    {
        Ok(all) => Ok(all),
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Err(code.into()),
        Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(
            quinn::ConnectionError::ApplicationClosed(close),
        ))) => Err(close.error_code.into()),
        Err(error) => panic!("{error}"),
    }
}

/// An integer of QUIC (RFC 9000 section 16).
pub fn integer(value: u64) -> Vec<u8> {
    match value {
        0..=0x3f => vec![u8::try_from(value).unwrap()],
        0x40..=0x3fff => (u16::try_from(value).unwrap() | 0x4000).to_be_bytes().to_vec(),
        0x4000..=0x3fff_ffff => (u32::try_from(value).unwrap() | 0x8000_0000)
            .to_be_bytes()
            .to_vec(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

pub fn frame(kind: u64, content: &[u8]) -> Vec<u8> {
    let mut frame = integer(kind);
    frame.extend(integer(content.len() as u64));
    frame.extend_from_slice(content);
    frame
}

/// A head in QPACK, all literal (RFC 9204 section 4.5.6).
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0, 0];
    for (name, value) in fields {
        prefixed(0x20, 3, name.len(), &mut block);
        block.extend_from_slice(name.as_bytes());
        prefixed(0, 7, value.len(), &mut block);
        block.extend_from_slice(value.as_bytes());
    }
    frame(HEADERS, &block)
}

/// An integer of QPACK with a prefix of so many bits (RFC 7541 section 5.1).
fn prefixed(first: u8, bits: u32, value: usize, into: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return into.push(first | u8::try_from(value).unwrap());
    }
    into.push(first | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 0x80 {
        into.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
        rest /= 0x80;
    }
    into.push(u8::try_from(rest).unwrap());
}

/// The head of a request, and then these fields.
pub fn request(method: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", method),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/"),
    ];
    all.extend_from_slice(fields);
    head(&all)
}
