//! Logs of connections and sessions, what logs may speak of, and what becomes of them at the end of service.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::telemetry::export::als::StreamAccessLogsMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cfg;
use super::support::backend::{Backend, response};
use super::support::client::Http;
use super::support::{self, Proxy, eventually};
use super::telemetry::{Collector, receiver};

fn sink(sink: v1::log_sink::Sink) -> Vec<v1::LogSink> {
    vec![v1::LogSink { sink: Some(sink) }]
}

fn file(path: &Path) -> Vec<v1::LogSink> {
    sink(v1::log_sink::Sink::File(path.to_string_lossy().into_owned()))
}

#[expect(clippy::unnecessary_wraps, reason = "the message's field is optional")]
fn format(text: &str) -> Option<v1::LogFormat> {
    Some(v1::LogFormat {
        text: Some(text.into()),
        ..Default::default()
    })
}

fn settings(log: v1::AccessLog) -> v1::Resource {
    cfg::settings(v1::Settings {
        telemetry: Some(v1::Telemetry {
            access_logs: Some(v1::AccessLogs { logs: vec![log] }),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn lines(path: &PathBuf) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn connections_are_logged_also_those_that_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = v1::AccessLog {
        connections: true,
        format: format("%RESPONSE_CODE_DETAILS% %REQ(:method)% %BYTES_RECEIVED% %DOWNSTREAM_REMOTE_ADDRESS%"),
        sinks: file(&path),
        ..Default::default()
    };
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let listener = v1::Listener {
        port: port.into(),
        bind_port: port.into(),
        protocol: v1::Protocol::Http.into(),
        client: Some(v1::ClientSettings {
            proxy_protocol: Some(v1::ClientProxyProtocol::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut resources = vec![
        settings(log),
        cfg::listener("l", listener),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    let _proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    let mut told = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let header = "PROXY TCP4 192.0.2.7 192.0.2.8 4242 80\r\n";
    let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    told.write_all(format!("{header}{request}").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    told.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(told);
    eventually("the first line", || lines(&path).len() == 1).await;
    assert_eq!(
        lines(&path),
        [format!("- - {} 192.0.2.7:4242", request.len())],
        "no line of the request"
    );
    let mut odd = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    odd.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = odd.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    eventually("the second line", || lines(&path).len() == 2).await;
    assert!(
        lines(&path)[1].starts_with("connection_refused - "),
        "{:?}",
        lines(&path)
    );
}

#[tokio::test]
async fn sessions_are_told_to_access_log_services() {
    let collector = Collector::start().await;
    let log = v1::AccessLog {
        sinks: sink(v1::log_sink::Sink::Als(v1::AlsLogs {
            receiver: Some(receiver()),
            log_name: "sessions".into(),
            tcp: true,
            ..Default::default()
        })),
        ..Default::default()
    };
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let listener = v1::Listener {
        port: port.into(),
        bind_port: port.into(),
        protocol: v1::Protocol::Tcp.into(),
        ..Default::default()
    };
    let mut route = cfg::route("r", "l", Vec::new());
    if let Some(v1::resource::Body::Route(route)) = &mut route.body {
        route.name = "TCPRoute/test/r".into();
        route.rules = Some(v1::route::Rules::L4(v1::L4Rules {
            backends: vec![cfg::weighted("b", 1)],
            ..Default::default()
        }));
    }
    let mut resources = vec![settings(log), cfg::listener("l", listener), route];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(cfg::backend("collector", &[collector.backend.address]));
    let _proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    drop(stream);
    let told = || collector.messages::<StreamAccessLogsMessage>("StreamAccessLogs");
    eventually("the session is told", || !told().is_empty()).await;
    let message = told().remove(0);
    assert_eq!(
        (message.identifier.unwrap().log_name.as_str(), message.http_logs),
        ("sessions", None)
    );
    let entry = message.tcp_logs.unwrap().log_entry.remove(0);
    let bytes = entry.connection_properties.unwrap();
    assert_eq!(
        (bytes.received_bytes, bytes.sent_bytes),
        (request.len() as u64, answer.len() as u64)
    );
    let common = entry.common_properties.unwrap();
    assert_eq!(
        (common.route_name.as_str(), common.upstream_cluster.as_str()),
        ("TCPRoute/test/r", "test/b:80")
    );
}

#[tokio::test]
async fn trailers_times_and_tries_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let collector = Collector::start().await;
    let names = "%TRAILER(X-SUM)% %GRPC_STATUS% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %RESPONSE_FLAGS_LONG% \
                 %QUERY_PARAM(q)% %CEL(response.code + 1)% %COMMON_DURATION(DS_RX_BEG:DS_TX_BEG:ns)%";
    let als = v1::log_sink::Sink::Als(v1::AlsLogs {
        receiver: Some(receiver()),
        response_trailers: vec!["x-sum".into()],
        ..Default::default()
    });
    let log = v1::AccessLog {
        format: format(names),
        sinks: [file(&path), sink(als)].concat(),
        ..Default::default()
    };
    let backend = Backend::start(|_| async {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "abc".parse().unwrap());
        trailers.insert("grpc-status", "14".parse().unwrap());
        let body = Full::new(bytes::Bytes::from_static(b"body"));
        let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed();
        let mut answer = response(200, "").map(|_| body);
        answer.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        answer
    })
    .await;
    let port = support::free_port();
    let mut resources = vec![
        settings(log),
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ];
    resources.extend(cfg::h2c("b", &[backend.address]));
    resources.extend(cfg::backend("collector", &[collector.backend.address]));
    let _proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    let got = Http::h2(port).get("/?q=7").await;
    assert_eq!((got.status, &got.body[..]), (200, &b"body"[..]));
    eventually("the line", || lines(&path).len() == 1).await;
    let line = lines(&path).remove(0);
    let (known, time) = line.rsplit_once(' ').unwrap();
    assert_eq!(known, "abc Unavailable 1 - 7 201");
    assert!(time.parse::<u64>().unwrap() > 0, "{time}");
    let told = || collector.messages::<StreamAccessLogsMessage>("StreamAccessLogs");
    eventually("the request is told", || !told().is_empty()).await;
    let entry = told().remove(0).http_logs.unwrap().log_entry.remove(0);
    assert_eq!(entry.response.unwrap().response_trailers["x-sum"], "abc");
}

#[tokio::test]
async fn what_waits_is_sent_at_the_end_of_service() {
    let collector = Collector::start().await;
    let log = v1::AccessLog {
        sinks: sink(v1::log_sink::Sink::Otlp(v1::OtlpLogs {
            receiver: Some(receiver()),
            ..Default::default()
        })),
        ..Default::default()
    };
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let mut resources = vec![
        settings(log),
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(cfg::backend("collector", &[collector.backend.address]));
    let proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    for _ in 0..3 {
        let close = [("connection", "close")];
        assert_eq!(Http::new(port).get_with("/", &close).await.status, 200);
    }
    proxy.dataplane.drain().await;
    let messages = collector.messages::<ExportLogsServiceRequest>("LogsService/Export");
    let records = messages
        .iter()
        .flat_map(|message| &message.resource_logs)
        .flat_map(|logs| &logs.scope_logs)
        .map(|scope| scope.log_records.len());
    assert_eq!(records.sum::<usize>(), 3);
}
