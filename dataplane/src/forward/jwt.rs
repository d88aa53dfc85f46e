//! Asking for a token, and for the keys that verify it.
//!
//! Owns the order in which providers are asked and the fetching of remote key sets. What cannot be verified does not
//! pass: a provider whose keys cannot be had vouches for nobody.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderValue};
use http::{StatusCode, request};

use super::subrequest::{self, Call};
use crate::filter::jwt::keys::{KeySet, RemoteKeys};
use crate::filter::jwt::{Fault, Jwt, Keys, Provider};
use crate::filter::tokens::Tokens;
use crate::upstream::connect::Version;
use crate::worker::Worker;

/// Lets a request pass that one of the providers vouches for; claims go where they are to go. True: the route is to be
/// chosen anew.
pub(super) async fn authenticate(
    worker: &Arc<Worker>,
    jwt: &Jwt,
    head: &mut request::Parts,
    tokens: &mut Tokens,
) -> Result<bool, Fault> {
    jwt.clear_claims(head);
    let mut worst = Fault::Missing;
    for provider in &jwt.providers {
        let carried = provider.tokens(head);
        match verify_all(worker, provider, &carried).await {
            Ok(verified) => {
                for claims in verified {
                    provider.forward_claims(&claims, head);
                    tokens.push(&provider.name, claims);
                }
                return Ok(provider.recompute_route);
            }
            Err(fault) if fault.outranks(worst) => worst = fault,
            Err(_) => {}
        }
    }
    if jwt.fail_open || (worst == Fault::Missing && jwt.optional) {
        return Ok(false);
    }
    Err(worst)
}

async fn verify_all(
    worker: &Arc<Worker>,
    provider: &Provider,
    carried: &[String],
) -> Result<Vec<crate::filter::tokens::Claims>, Fault> {
    if carried.is_empty() {
        return Err(Fault::Missing);
    }
    let mut keys = match &provider.keys {
        Keys::Local(local) => (*local.get()).clone().ok_or(Fault::NoKeys)?,
        Keys::Remote(remote) => current(worker, remote).await.ok_or(Fault::NoKeys)?,
    };
    let mut verified = Vec::with_capacity(carried.len());
    for token in carried {
        let mut judged = provider.verify(token, &keys);
        if judged == Err(Fault::UnknownKey)
            && let Keys::Remote(remote) = &provider.keys
            && let Some(newer) = rotated(worker, remote, &keys).await
        {
            keys = newer;
            judged = provider.verify(token, &keys);
        }
        verified.push(judged?);
    }
    Ok(verified)
}

/// The keys of a remote set, fetched if need be.
pub(super) async fn current(worker: &Arc<Worker>, remote: &Arc<RemoteKeys>) -> Option<Arc<KeySet>> {
    if let Some(keys) = remote.fresh() {
        return Some(keys);
    }
    fetched(worker, remote, RemoteKeys::may_fetch).await;
    remote.fresh().or_else(|| remote.stale())
}

/// A newer set than `known`, if there is one.
pub(super) async fn rotated(
    worker: &Arc<Worker>,
    remote: &Arc<RemoteKeys>,
    known: &Arc<KeySet>,
) -> Option<Arc<KeySet>> {
    if let Some(newer) = remote.other_than(known) {
        return Some(newer);
    }
    fetched(worker, remote, RemoteKeys::may_rotate).await;
    remote.other_than(known)
}

/// Waits for the end of a fetch: of the one that is under way, or of a new one if it is time for one. It goes on if the
/// request that began it does not: a client that goes away keeps the keys from nobody.
async fn fetched(worker: &Arc<Worker>, remote: &Arc<RemoteKeys>, is_time: impl Fn(&RemoteKeys) -> bool) {
    let mut ended = std::pin::pin!(remote.ended.notified());
    // From here on no end is missed.
    ended.as_mut().enable();
    if let Some(fetching) = remote.begin() {
        if !is_time(remote) {
            return;
        }
        remote.note_try();
        let worker = Arc::clone(worker);
        tokio::spawn(async move { fetch(&worker, fetching.keys()).await });
    }
    ended.await;
}

async fn fetch(worker: &Arc<Worker>, remote: &RemoteKeys) {
    match request(worker, remote).await {
        Ok(keys) => remote.store(keys),
        Err(reason) => {
            tracing::warn!(host = %remote.host, path = %remote.path, reason, "JWKS not fetched");
        }
    }
}

async fn request(worker: &Arc<Worker>, remote: &RemoteKeys) -> Result<KeySet, String> {
    let host = HeaderValue::from_str(&remote.host).map_err(|e| e.to_string())?;
    let request = http::Request::get(&*remote.path)
        .header(HOST, host)
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .body(Bytes::new())
        .map_err(|e| e.to_string())?;
    let how = Call {
        version: Version::Any,
        timeout: remote.timeout,
        client: None,
    };
    let answer = subrequest::call(worker, &remote.backend, request, how).await?;
    if answer.head.status != StatusCode::OK {
        return Err(format!("status {}", answer.head.status));
    }
    KeySet::parse(&answer.body).ok_or_else(|| "not a key set".to_owned())
}
