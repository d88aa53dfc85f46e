//! Input and output of a connection.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

async fn pair() -> (Wire, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let near = near.unwrap();
    let local = near.local_addr().unwrap();
    (
        Wire::new(Transport::Tcp(Socket::new(near)), address, local),
        far.unwrap().0,
    )
}

/// More than the kernel takes at once, in pieces, before anybody reads.
#[tokio::test]
async fn nothing_is_lost_or_out_of_order() {
    let (wire, mut far) = pair().await;
    let data: Vec<u8> = (0..30_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut expected = Vec::new();
    for piece in data.chunks(2_000_000) {
        wire.put(|out| out.extend_from_slice(b"head"));
        wire.put_large(piece, b"\r\n");
        expected.extend_from_slice(&[b"head", piece, b"\r\n"].concat());
    }
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        got
    });
    wire.drain().await.unwrap();
    // What was grown for this is not kept for an idle connection.
    assert!(wire.lock().out.capacity() <= KEEP_CAPACITY);
    drop(wire);
    assert!(reading.await.unwrap() == expected);
}

#[tokio::test]
async fn input_comes_once_and_ends() {
    use tokio::io::AsyncWriteExt;
    let (wire, mut far) = pair().await;
    far.write_all(b"abc").await.unwrap();
    let got = std::future::poll_fn(|cx| wire.poll_input(cx, <[u8]>::to_vec)).await;
    assert_eq!(got.unwrap(), b"abc");
    wire.unread(BytesMut::from(&b"abc"[..]));
    let got = std::future::poll_fn(|cx| wire.poll_input(cx, <[u8]>::to_vec)).await;
    assert_eq!(got.unwrap(), b"abc");
    drop(far);
    let got = std::future::poll_fn(|cx| wire.poll_input(cx, <[u8]>::to_vec)).await;
    assert_eq!(got.unwrap(), b"");
}
