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
        Self::over(quic, bytes).await
    }

    pub async fn over(quic: quinn::Connection, bytes: &[u8]) -> Self {
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

/// A request's stream.
pub struct Stream {
    pub send: quinn::SendStream,
    pub recv: Response,
}

/// What comes back on it, read frame by frame.
pub struct Response(quinn::RecvStream);

impl Stream {
    pub async fn open(raw: &Raw, begin: &[u8]) -> Self {
        let (mut send, recv) = raw.quic.open_bi().await.unwrap();
        send.write_all(begin).await.unwrap();
        let recv = Response(recv);
        Self { send, recv }
    }

    /// Sends bytes of a body.
    pub async fn push(&mut self, data: &[u8]) {
        self.send.write_all(&frame(DATA, data)).await.unwrap();
    }
}

impl Response {
    /// The next frame, `None` at the end; the code if the stream is reset.
    pub async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, u64> {
        let reading = async {
            let Some(kind) = self.integer().await? else {
                return Ok(None);
            };
            let length = self.integer().await?.unwrap();
            let mut content = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut content).await.map_err(code)?;
            Ok(Some((kind, content)))
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), reading)
            .await
            .expect("no frame")
    }

    /// The status of the response that comes next.
    pub async fn status(&mut self) -> Result<u16, u64> {
        let (kind, section) = self.next().await?.expect("no head");
        assert_eq!(kind, HEADERS);
        // An entry of the static table (RFC 9204 appendix A).
        Ok(match section[2..] {
            [0xd9, ..] => 200,
            [0xdb, ..] => 404,
            [0xff, 4, ..] => 400,
            [0xff, 5, ..] => 403,
            _ => 0,
        })
    }

    /// So many bytes of the body.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < length {
            let (kind, data) = self.next().await.unwrap().expect("the end");
            assert_eq!(kind, DATA);
            body.extend(data);
        }
        body
    }

    /// What is left of the body; the code if the stream is reset.
    pub async fn rest(&mut self) -> Result<Vec<u8>, u64> {
        let mut body = Vec::new();
        while let Some((kind, data)) = self.next().await? {
            assert_eq!(kind, DATA);
            body.extend(data);
        }
        Ok(body)
    }

    async fn integer(&mut self) -> Result<Option<u64>, u64> {
        let mut bytes = [0; 8];
        match self.0.read_exact(&mut bytes[..1]).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(code(error)),
        }
        let length = 1 << (bytes[0] >> 6);
        bytes[0] &= 0x3f;
        self.0.read_exact(&mut bytes[1..length]).await.map_err(code)?;
        let value = bytes[..length]
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        Ok(Some(value))
    }
}

fn code(error: quinn::ReadExactError) -> u64 {
    match error {
        quinn::ReadExactError::ReadError(quinn::ReadError::Reset(code)) => code.into(),
        error => panic!("{error}"),
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
