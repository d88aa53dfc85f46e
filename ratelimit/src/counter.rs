//! Counts in Redis: one round trip a question.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ClientTlsConfig, IntoConnectionInfo, RedisResult, TlsCertificates};
use sluice_dataplane::filter::rate_limit::proto::{RateLimitRequest, RateLimitResponse};

use crate::metrics::{Metrics, Outcome};
use crate::{Redis, window};

/// How long Redis may take, for a connection or an answer. Proxies wait for less.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest pause between tries to connect, so that counting goes on soon after Redis is back.
const RECONNECT: Duration = Duration::from_millis(500);

/// Counts hits.
#[derive(Clone)]
pub struct Counter {
    redis: ConnectionManager,
    prefix: Arc<str>,
    metrics: Arc<Metrics>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// Redis does not answer.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
}

impl Counter {
    /// Connects when something has to be counted.
    pub fn new(redis: &Redis, metrics: Arc<Metrics>) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_max_delay(RECONNECT)
            .set_number_of_retries(1);
        Ok(Self {
            redis: ConnectionManager::new_lazy_with_config(client(redis)?, config)?,
            prefix: redis.prefix.as_str().into(),
            metrics,
        })
    }

    /// Counts what is asked about.
    ///
    /// # Errors
    /// If the question makes no sense, or Redis does not answer.
    pub async fn count(&self, question: &RateLimitRequest) -> Result<RateLimitResponse, Unanswered> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let plan = window::plan(question, &self.prefix, now.as_secs()).map_err(|why| {
            self.metrics.question(Outcome::Invalid);
            Unanswered::Invalid(why)
        })?;
        let counts = self
            .add(&plan)
            .await
            .inspect_err(|_| self.metrics.question(Outcome::Failed))?;
        let answer = window::judge(&plan, &counts);
        self.metrics.question(Outcome::of(&answer));
        Ok(answer)
    }

    async fn add(&self, plan: &[Option<window::Hits>]) -> RedisResult<Vec<u64>> {
        let mut pipe = redis::pipe();
        for hits in plan.iter().flatten() {
            pipe.incr(&hits.key, hits.number);
            let expires = i64::try_from(hits.expires).unwrap_or(i64::MAX);
            pipe.expire(&hits.key, expires).ignore();
        }
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let counts = pipe.query_async(&mut self.redis.clone()).await;
        self.metrics.redis(began.elapsed());
        counts
    }

    /// Whether Redis answers.
    pub async fn is_ready(&self) -> bool {
        let answered: RedisResult<String> = redis::cmd("PING").query_async(&mut self.redis.clone()).await;
        answered.is_ok()
    }
}

fn client(redis: &Redis) -> RedisResult<Client> {
    let mut info = redis.url.as_str().into_connection_info()?;
    let mut account = info.redis_settings().clone();
    if let Some(username) = &redis.username {
        account = account.set_username(username);
    }
    if let Some(password) = &redis.password {
        account = account.set_password(password);
    }
    info = info.set_redis_settings(account);
    if redis.ca.is_none() && redis.client_certificate.is_none() {
        return Client::open(info);
    }
    let client_tls = redis.client_certificate.clone();
    Client::build_with_tls(
        info,
        TlsCertificates {
            client_tls: client_tls.map(|(client_cert, client_key)| ClientTlsConfig {
                client_cert,
                client_key,
            }),
            root_cert: redis.ca.clone(),
        },
    )
}
