//! What a provider is asked: its metadata, its keys, tokens. Who is in doubt takes no answer for a good one.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};

use super::super::jwt;
use super::super::subrequest::{self, Call};
use crate::filter::oidc::Oidc;
use crate::filter::oidc::answer::{TokenAnswer, error_code};
use crate::filter::oidc::login::{form, form_encoded};
use crate::filter::oidc::provider::{Endpoints, Fault, Granted, Provider, Target};
use crate::filter::oidc::session::TokenSet;
use crate::upstream::connect::Version;
use crate::worker::Worker;

/// The provider's endpoints, learnt if need be.
pub(super) async fn endpoints(worker: &Arc<Worker>, provider: &Provider) -> Result<Arc<Endpoints>, Fault> {
    if let Some(known) = provider.fresh() {
        return Ok(known);
    }
    let mut failed = provider.fetching.lock().await;
    // Others may have learnt them meanwhile, or have failed to.
    if let Some(known) = provider.fresh() {
        return Ok(known);
    }
    if Provider::rests(*failed) {
        return provider.stale().ok_or(Fault::Unavailable);
    }
    match fetch(worker, provider).await {
        Ok(learnt) => {
            *failed = None;
            provider.note_up();
            Ok(learnt)
        }
        Err(reason) => {
            *failed = Some(Instant::now());
            provider.note_down(&format!("metadata: {reason}"));
            provider.stale().ok_or(Fault::Unavailable)
        }
    }
}

async fn fetch(worker: &Arc<Worker>, provider: &Provider) -> Result<Arc<Endpoints>, String> {
    let target = provider.metadata()?;
    let request =
        http::Request::get(&*target.path).header(ACCEPT, HeaderValue::from_static("application/json"));
    let request = request.body(Bytes::new()).map_err(|e| e.to_string())?;
    let (status, body) = ask(worker, provider, &target, request).await?;
    if status != StatusCode::OK {
        return Err(format!("status {status}"));
    }
    provider.learn(&body)
}

/// Asks the provider for tokens and judges them.
pub(super) async fn grant(
    worker: &Arc<Worker>,
    oidc: &Oidc,
    parameters: &[(&str, &str)],
    nonce: Option<&str>,
) -> Result<Granted, Fault> {
    let provider = &*oidc.provider;
    let endpoints = endpoints(worker, provider).await?;
    let request = token_request(oidc, &endpoints, parameters)?;
    let (status, body) = match ask(worker, provider, &endpoints.token, request).await {
        Ok((status, _)) if status.is_server_error() => Err(format!("status {status}")),
        other => other,
    }
    .map_err(|reason| {
        provider.note_down(&format!("tokens: {reason}"));
        Fault::Unavailable
    })?;
    provider.note_up();
    let refused = |reason: &str| {
        tracing::info!(issuer = %provider.issuer, reason, "no tokens");
        Fault::Refused
    };
    if status != StatusCode::OK {
        return Err(refused(&error_code(&body)));
    }
    let answer = TokenAnswer::parse(&body).ok_or_else(|| refused("the answer is none"))?;
    let seconds = oidc.seconds(&answer)?;
    let subject = match &answer.id_token {
        Some(token) => Some(verify(worker, oidc, &endpoints, token, nonce).await?),
        None => None,
    };
    Ok(Granted {
        seconds,
        subject,
        tokens: TokenSet {
            access: answer.access_token,
            id: answer.id_token.unwrap_or_default(),
            refresh: answer
                .refresh_token
                .filter(|_| oidc.refreshes)
                .unwrap_or_default(),
        },
    })
}

fn token_request(
    oidc: &Oidc,
    endpoints: &Endpoints,
    parameters: &[(&str, &str)],
) -> Result<http::Request<Bytes>, Fault> {
    let unready = |_| Fault::Unready;
    let secret = oidc.client_secret.get();
    let Some(secret) = secret.as_deref() else {
        tracing::warn!(issuer = %oidc.provider.issuer, "there is no client secret");
        return Err(Fault::Unready);
    };
    let mut parameters = parameters.to_vec();
    let mut request = http::Request::post(&*endpoints.token.path)
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
    if endpoints.basic {
        let pair = format!("{}:{}", form_encoded(&oidc.client_id), form_encoded(secret));
        request = request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
    } else {
        parameters.push(("client_id", &oidc.client_id));
        parameters.push(("client_secret", secret));
    }
    parameters.extend(oidc.resources.iter().map(|resource| ("resource", &**resource)));
    let body = Bytes::from(form(&parameters));
    request
        .header(CONTENT_LENGTH, body.len())
        .body(body)
        .map_err(unready)
}

async fn verify(
    worker: &Arc<Worker>,
    oidc: &Oidc,
    endpoints: &Endpoints,
    token: &str,
    nonce: Option<&str>,
) -> Result<String, Fault> {
    if let Some(reached) = &endpoints.keys_host {
        let _ = tokio::time::timeout(oidc.provider.timeout, reached.looked_up()).await;
    }
    let issuer = &oidc.provider.issuer;
    let keys = jwt::current(worker, &endpoints.keys).await.ok_or_else(|| {
        oidc.provider.note_down("its keys cannot be had");
        Fault::Unavailable
    })?;
    let mut judged = oidc.verify(token, &keys, nonce);
    if judged.is_err()
        && let Some(newer) = jwt::rotated(worker, &endpoints.keys, &keys).await
    {
        judged = oidc.verify(token, &newer, nonce);
    }
    judged.map_err(|reason| {
        tracing::warn!(%issuer, %reason, "an ID token is not believed");
        Fault::Refused
    })
}

/// Asks the provider something. A code or refresh token is spent by an answer alone, so there may be another try.
async fn ask(
    worker: &Arc<Worker>,
    provider: &Provider,
    target: &Target,
    mut request: http::Request<Bytes>,
) -> Result<(StatusCode, Bytes), String> {
    let asking = async {
        if let Some(reached) = &target.reached {
            reached.looked_up().await;
        }
        request.headers_mut().insert(HOST, target.host.clone());
        let how = Call {
            version: Version::Any,
            timeout: provider.timeout,
            client: None,
        };
        subrequest::call(worker, &target.slot, request, how).await
    };
    let answer = tokio::time::timeout(provider.timeout, asking)
        .await
        .unwrap_or_else(|_| Err("timeout".into()))?;
    Ok((answer.head.status, answer.body))
}
