//! Reports of load that endpoints are asked for: a stream to each (`xds.service.orca.v3.OpenRcaService`).
//!
//! Owns the streams; what a report comes to is [`crate::upstream::utilization`]'s business.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;
use sluice_config::v1;
use tokio_util::task::AbortOnDropHandle;

use super::ask::{Error, exchange};
use crate::upstream::health::Member;
use crate::upstream::orca::Report;
use crate::upstream::{Backend, connect};
use crate::wire::Socket;

const PATH: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";
/// Envoy's default time between reports.
const PERIOD: Duration = Duration::from_secs(10);
/// Time between looks at which endpoints there are.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses before a stream is opened anew: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Bytes of the longest report.
const MAX_REPORT: usize = 1 << 16;

/// How endpoints are asked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    period: Duration,
    port: Option<u16>,
    authority: Option<HeaderValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ReportRequest {
    #[prost(message, optional, tag = "1")]
    report_interval: Option<prost_types::Duration>,
}

impl Plan {
    /// Reads what a backend asks for; `None` if it does not.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub(super) fn compile(config: &v1::Backend) -> Result<Option<Self>, String> {
        let balancer = config
            .load_balancer
            .as_ref()
            .filter(|balancer| balancer.policy() == v1::load_balancer::Policy::BackendUtilization);
        let utilization = balancer.and_then(|balancer| balancer.utilization.as_ref());
        let Some(asked) = utilization.and_then(|utilization| utilization.out_of_band.as_ref()) else {
            return Ok(None);
        };
        let authority = match asked.authority.as_str() {
            "" => None,
            text => {
                let valid = text.parse::<http::uri::Authority>().ok();
                let value = valid.and_then(|_| HeaderValue::from_str(text).ok());
                Some(value.ok_or_else(|| format!("authority: `{text}` is not a host"))?)
            }
        };
        Ok(Some(Self {
            period: match asked.period_ms {
                0 => PERIOD,
                ms => Duration::from_millis(ms),
            },
            port: match asked.port {
                0 => None,
                port => Some(u16::try_from(port).map_err(|_| format!("port: {port} is not a port"))?),
            },
            authority,
        }))
    }
}

/// Keeps a stream to each endpoint, as long as there is the backend.
pub(super) async fn run(backend: Weak<Backend>, plan: Plan) {
    let plan = Arc::new(plan);
    let mut streams: HashMap<SocketAddr, AbortOnDropHandle<()>> = HashMap::new();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let Some(held) = backend.upgrade() else { return };
        let Some(balancer) = &held.balancer else { return };
        let members = balancer.members(&held.endpoints);
        streams.retain(|address, _| members.iter().any(|m| m.endpoint().address() == *address));
        for member in members {
            let address = member.endpoint().address();
            streams.entry(address).or_insert_with(|| {
                let task = follow(backend.clone(), member, Arc::clone(&plan));
                AbortOnDropHandle::new(tokio::spawn(task))
            });
        }
    }
}

/// Listens to one endpoint, again and again.
async fn follow(backend: Weak<Backend>, member: Arc<Member>, plan: Arc<Plan>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = match backend.upgrade() {
            None => return,
            Some(held) => open(&held, &member, &plan).await,
        };
        let ended = match ended {
            Err(error) => Err(error),
            Ok(response) => listen(&backend, &member, response, &mut pause).await,
        };
        if let Err(error) = ended {
            tracing::debug!(endpoint = member.endpoint().display(), %error, "reports of load");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn open(backend: &Backend, member: &Member, plan: &Plan) -> Result<Response<Incoming>, Error> {
    let endpoint = member.endpoint();
    let mut address = endpoint.address();
    if let Some(port) = plan.port {
        address.set_port(port);
    }
    let opening = async {
        let request = request(plan, address, backend.tls.is_some())?;
        let stream = connect::dial(backend, endpoint, address, None).await?;
        match &backend.tls {
            None => exchange(stream, true, request).await,
            Some(tls) => {
                let tls = tls.handshake(Socket::new(stream), true, endpoint.server_name());
                exchange(tls.await?, true, request).await
            }
        }
    };
    tokio::time::timeout(backend.connect_timeout, opening).await?
}

fn request(plan: &Plan, address: SocketAddr, tls: bool) -> Result<Request<Full<Bytes>>, Error> {
    let authority = match &plan.authority {
        Some(authority) => authority.clone(),
        None => HeaderValue::try_from(address.to_string())?,
    };
    let uri = http::Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(authority.as_bytes())
        .path_and_query(PATH)
        .build()?;
    let message = ReportRequest {
        report_interval: Some(prost_types::Duration {
            seconds: i64::try_from(plan.period.as_secs())?,
            nanos: i32::try_from(plan.period.subsec_nanos())?,
        }),
    }
    .encode_to_vec();
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len())?);
    body.extend_from_slice(&message);
    Ok(Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(body.freeze()))?)
}

/// Takes reports in until the stream ends. One that has brought some is opened anew soon.
async fn listen(
    backend: &Weak<Backend>,
    member: &Member,
    response: Response<Incoming>,
    pause: &mut Duration,
) -> Result<(), Error> {
    let mut body = response.into_body();
    let mut buffered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        buffered.extend_from_slice(&data);
        while let Some(message) = next_message(&mut buffered)? {
            let report = Report::decode(message)?;
            let Some(held) = backend.upgrade() else {
                return Ok(());
            };
            held.put_load(member, &report);
            *pause = FIRST_PAUSE;
        }
    }
    Err("the stream has ended".into())
}

/// The next message that is there as a whole.
fn next_message(buffered: &mut BytesMut) -> Result<Option<Bytes>, Error> {
    let Some(head) = buffered.first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || length > MAX_REPORT {
        return Err("not a report".into());
    }
    if buffered.len() < 5 + length {
        return Ok(None);
    }
    buffered.advance(5);
    Ok(Some(buffered.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_pieces() {
        let mut buffered = BytesMut::from(&b"\0\0\0\0\x02ab\0\0\0\0\x01"[..]);
        assert_eq!(next_message(&mut buffered).unwrap().unwrap(), "ab");
        assert!(next_message(&mut buffered).unwrap().is_none());
        buffered.extend_from_slice(b"c");
        assert_eq!(next_message(&mut buffered).unwrap().unwrap(), "c");
        assert!(next_message(&mut buffered).unwrap().is_none());
        assert!(next_message(&mut BytesMut::from(&b"\x01\0\0\0\0"[..])).is_err());
        assert!(next_message(&mut BytesMut::from(&b"\0\x7f\0\0\0"[..])).is_err());
    }

    #[test]
    fn reasons_name_the_field() {
        let compile = |out_of_band| {
            Plan::compile(&v1::Backend {
                load_balancer: Some(v1::LoadBalancer {
                    policy: v1::load_balancer::Policy::BackendUtilization.into(),
                    utilization: Some(v1::BackendUtilization {
                        out_of_band: Some(out_of_band),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            })
        };
        let plain = v1::backend_utilization::OutOfBand::default();
        assert_eq!(compile(plain.clone()).unwrap().unwrap().period, PERIOD);
        let port = compile(v1::backend_utilization::OutOfBand {
            port: 70_000,
            ..plain.clone()
        });
        assert!(port.unwrap_err().starts_with("port: "));
        let authority = compile(v1::backend_utilization::OutOfBand {
            authority: "a b".into(),
            ..plain
        });
        assert!(authority.unwrap_err().starts_with("authority: "));
        assert!(Plan::compile(&v1::Backend::default()).unwrap().is_none());
    }
}
