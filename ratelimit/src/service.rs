//! `envoy.service.ratelimit.v3.RateLimitService` over gRPC.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use sluice_dataplane::filter::rate_limit::proto::{RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic_prost::ProstCodec;

use crate::RunError;
use crate::counter::{Counter, Unanswered};

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Answers proxies until `stop`; questions that have come by then are still answered.
pub async fn serve(listener: TcpListener, counter: Counter, stop: CancellationToken) -> Result<(), RunError> {
    Server::builder()
        .tcp_nodelay(true)
        .add_service(RateLimits(counter))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned())
        .await
        .map_err(|error| RunError::Serve(error.to_string()))
}

#[derive(Clone)]
struct RateLimits(Counter);

impl NamedService for RateLimits {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl tower::Service<Request<Body>> for RateLimits {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = ShouldRateLimit(self.0.clone());
        Box::pin(async move {
            if request.uri().path() != SHOULD_RATE_LIMIT {
                return Ok(Status::unimplemented("there is only ShouldRateLimit").into_http());
            }
            let codec = ProstCodec::<RateLimitResponse, RateLimitRequest>::default();
            Ok(Grpc::new(codec).unary(method, request).await)
        })
    }
}

struct ShouldRateLimit(Counter);

impl UnaryService<RateLimitRequest> for ShouldRateLimit {
    type Response = RateLimitResponse;
    type Future = Answer<tonic::Response<RateLimitResponse>, Status>;

    fn call(&mut self, request: tonic::Request<RateLimitRequest>) -> Self::Future {
        let counter = self.0.clone();
        Box::pin(async move {
            let answer = counter.count(request.get_ref()).await;
            answer.map(tonic::Response::new).map_err(|error| {
                tracing::debug!(%error, "a question has no answer");
                match error {
                    Unanswered::Invalid(why) => Status::invalid_argument(why),
                    // What Redis says may tell where it is.
                    Unanswered::Redis(_) => Status::unavailable("counts cannot be had"),
                }
            })
        })
    }
}
