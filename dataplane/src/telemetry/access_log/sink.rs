//! Who gets the lines of a log: a file, a collector of OpenTelemetry, Envoy's access log service.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use sluice_config::v1;

use super::super::export::als::{self, Fields, HttpEntries, HttpEntry, TcpEntries, TcpEntry};
use super::super::export::{Counts, Queue, Receiver, otlp};
use super::AccessLog;
use crate::filter::Lookup;
use crate::worker::WorkerHandle;

#[derive(Debug)]
pub enum Sink {
    File(AccessLog),
    Otlp {
        sending: Sending<LogRecord>,
        resource: BTreeMap<String, String>,
    },
    Http {
        sending: Sending<HttpEntry>,
        name: String,
        fields: Fields,
    },
    Tcp {
        sending: Sending<TcpEntry>,
        name: String,
    },
}

/// What waits for somebody who is told by gRPC.
#[derive(Debug)]
pub struct Sending<T> {
    receiver: Receiver,
    queue: Queue<T>,
}

impl<T> Sending<T> {
    fn compile(receiver: Option<&v1::Receiver>, lookup: &mut dyn Lookup) -> Result<Self, String> {
        Ok(Self {
            receiver: Receiver::compile(receiver, lookup)?,
            queue: Queue::default(),
        })
    }

    /// Adds a line.
    pub fn push(&self, counts: &Counts, item: T) {
        self.queue.push(counts, item);
    }

    /// Sends what waits, in messages that `pack` makes of it.
    async fn flush<M: Message>(
        &self,
        worker: &WorkerHandle,
        method: &'static str,
        pack: impl Fn(Vec<T>) -> M,
    ) {
        let counts = worker.worker.shared.metrics.telemetry();
        let send = |batch| {
            let message = pack(batch);
            async move { self.receiver.grpc(worker, method, &[message]).await }
        };
        self.queue.flush(counts, send).await;
    }
}

impl Sink {
    /// Reads the resource. `open` opens files; `None`: it could not.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(
        config: &v1::LogSink,
        lookup: &mut dyn Lookup,
        open: &dyn Fn(&str) -> Option<AccessLog>,
    ) -> Result<Option<Self>, String> {
        use v1::log_sink::Sink as S;
        Ok(Some(match config.sink.as_ref().ok_or("sink: not set")? {
            S::File(path) => return Ok(open(path).map(Self::File)),
            S::Otlp(otlp) => Self::Otlp {
                sending: Sending::compile(otlp.receiver.as_ref(), lookup)?,
                resource: otlp.resource.clone(),
            },
            S::Als(als) if als.tcp => Self::Tcp {
                sending: Sending::compile(als.receiver.as_ref(), lookup)?,
                name: als.log_name.clone(),
            },
            S::Als(als) => {
                let names = |names: &[String]| names.iter().filter_map(|name| name.parse().ok()).collect();
                Self::Http {
                    sending: Sending::compile(als.receiver.as_ref(), lookup)?,
                    name: als.log_name.clone(),
                    fields: Fields {
                        request: names(&als.request_headers),
                        response: names(&als.response_headers),
                        trailers: names(&als.response_trailers),
                    },
                }
            }
        }))
    }

    /// True if it tells trailers of responses.
    pub fn needs_trailers(&self) -> bool {
        matches!(self, Self::Http { fields, .. } if !fields.trailers.is_empty())
    }

    /// Sends what waits.
    pub async fn flush(&self, worker: &WorkerHandle) {
        match self {
            Self::File(_) => {}
            Self::Otlp { sending, resource } => {
                let pack = |records| otlp::logs(resource, records);
                sending.flush(worker, otlp::LOGS, pack).await;
            }
            Self::Http { sending, name, .. } => {
                let pack = |log_entry| als::message(name, Some(HttpEntries { log_entry }), None);
                sending.flush(worker, als::STREAM, pack).await;
            }
            Self::Tcp { sending, name } => {
                let pack = |log_entry| als::message(name, None, Some(TcpEntries { log_entry }));
                sending.flush(worker, als::STREAM, pack).await;
            }
        }
    }
}
