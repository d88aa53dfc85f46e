//! How a request ends that no backend answers: the proxy's own responses, and breaking off.
//!
//! Owns what the client and the access log are told of each cause. It never decides that a request has failed.

use http::StatusCode;

use super::downstream::Downstream;
use super::effects::Effects;
use super::limits::Stop;
use super::record::Record;
use super::reply::Reply;
use super::upstream::Failure;
use crate::filter::overrides::Origin;
use crate::route::Miss;

/// The answer to a request that leads nowhere.
pub(super) fn unserved(miss: Miss) -> Reply {
    match miss {
        Miss::NoRoute => Reply::error(StatusCode::NOT_FOUND, "", "NR", "route_not_found"),
        Miss::Misdirected => Reply::error(StatusCode::MISDIRECTED_REQUEST, "", "NR", "misdirected_request"),
    }
}

/// Sends a response of our own.
pub(super) fn answer(
    down: &mut Downstream,
    record: &mut Record,
    mut reply: Reply,
    is_grpc: bool,
    effects: Option<&Effects<'_>>,
) {
    record.blame(reply.flags, reply.details);
    if let Some(effects) = effects {
        // To gRPC clients every status is 200.
        if !is_grpc && !reply.replaced {
            let other = effects.replace(reply.status, &reply.headers, Origin::Local);
            reply = other.unwrap_or(reply);
        }
        effects.apply(&mut reply.headers);
    }
    if record.details.is_empty() {
        record.details = reply.details.into();
    }
    let reply = if is_grpc { reply.into_grpc() } else { reply };
    let mut reply = reply;
    if let Some(client) = &record.client {
        client.finish_response(&mut reply.headers);
    }
    record.status = reply.status.as_u16();
    record.note_response(&reply.headers);
    if let Err(gone) = reply.send(down) {
        tracing::debug!(%gone, "response not sent");
    }
}

/// Ends a request that something has cut short: with an error, if the response has not begun, else by breaking off.
pub(super) fn cut_short(
    down: &mut Downstream,
    record: &mut Record,
    stop: Stop,
    is_grpc: bool,
    effects: &Effects<'_>,
) {
    let reply = match stop {
        Stop::Client(gone) => {
            tracing::debug!(%gone, "client went away");
            record.blame("DC", "downstream_remote_disconnect");
            return down.abort();
        }
        Stop::Answer(reply) => *reply,
        stop => {
            if let Stop::Upstream(failure) = &stop {
                record.transport_failure = Some(failure.to_string());
            }
            own_reply(&stop)
        }
    };
    if down.responded() {
        record.blame(reply.flags, "upstream_reset_after_response_started");
        return down.abort();
    }
    answer(down, record, reply, is_grpc, Some(effects));
}

/// What the client is told of something that has cut its request short, if it is still there.
pub(super) fn own_reply(stop: &Stop) -> Reply {
    match stop {
        Stop::RequestTimeout => Reply::error(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            "UT",
            "response_timeout",
        ),
        Stop::TryTimeout => Reply::error(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            "UT",
            "upstream_per_try_timeout",
        ),
        Stop::ReceiveTimeout => Reply::error(
            StatusCode::REQUEST_TIMEOUT,
            "request timeout",
            "",
            "request_overall_timeout",
        ),
        Stop::Stalled => Reply::error(
            StatusCode::REQUEST_TIMEOUT,
            "stream timeout",
            "SI",
            "stream_idle_timeout",
        ),
        Stop::StreamTimeout => Reply::error(
            StatusCode::REQUEST_TIMEOUT,
            "upstream max stream duration reached",
            "UMSDR",
            "upstream_max_stream_duration_reached",
        ),
        Stop::Upstream(failure) => failure_reply(failure),
        Stop::Client(_) | Stop::Answer(_) => {
            Reply::error(StatusCode::BAD_REQUEST, "", "DC", "downstream_remote_disconnect")
        }
    }
}

/// What the client is told of a backend that failed before it had answered.
fn failure_reply(failure: &Failure) -> Reply {
    if matches!(failure, Failure::Protocol(_)) {
        let body = "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
        let details = "upstream_reset_before_response_started{protocol_error}";
        return Reply::error(StatusCode::BAD_GATEWAY, body, "UPE", details);
    }
    let body =
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    let details = "upstream_reset_before_response_started{connection_termination}";
    Reply::error(StatusCode::SERVICE_UNAVAILABLE, body, "UC", details)
}
