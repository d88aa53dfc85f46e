//! Backends that tunnels lead to.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Sends back what comes, and says `bye` once nothing more does.
pub async fn echo() -> SocketAddr {
    serve(|stream| async move { goodbye(stream).await }).await
}

/// Agrees to every upgrade that is asked for (with a length that means nothing), writes the request's head into the tunnel,
/// and goes on as [`echo`] does.
pub async fn upgrading() -> SocketAddr {
    serve(|mut stream| async move {
        let head = head(&mut stream).await;
        let wanted = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("upgrade").then_some(value)
        });
        let agree = format!(
            "HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: {}\r\nsec-websocket-accept: x\r\nx-more: of it\r\n\r\n",
            wanted.unwrap_or_default()
        );
        stream.write_all(agree.as_bytes()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        goodbye(stream).await;
    })
    .await
}

/// Takes a tunnel and breaks it.
pub async fn breaking(agreement: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        if !agreement.is_empty() {
            head(&mut stream).await;
            stream.write_all(agreement.as_bytes()).await.unwrap();
        }
        // Something has come through.
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await
}

/// A proxy that is spoken to in HTTP/2: agrees to CONNECT for `good.example:443` and goes on as [`echo`] does; declines all else.
pub async fn next_proxy_h2() -> SocketAddr {
    serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(async move {
                let _ = connect(request, respond).await;
            });
        }
    })
    .await
}

async fn connect(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let answer = |status: u16| http::Response::builder().status(status);
    let uri = request.uri();
    let is_plain =
        request.method() == http::Method::CONNECT && uri.scheme().is_none() && uri.path().is_empty();
    if !is_plain || uri.authority().is_none_or(|to| to != "good.example:443") {
        let mut send = respond.send_response(answer(407).body(()).unwrap(), false)?;
        return send.send_data("no!".into(), true);
    }
    let agree = answer(200).header("via-next", "yes").body(()).unwrap();
    let mut send = respond.send_response(agree, false)?;
    let mut body = request.into_body();
    while let Some(data) = body.data().await.transpose()? {
        body.flow_control().release_capacity(data.len())?;
        send.send_data(data, false)?;
    }
    send.send_data("bye".into(), true)
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    one: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(one(stream));
        }
    });
    address
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn goodbye(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = write.write_all(b"bye").await;
    }
}
