//! What the API server makes of an object, as a kind of theirs and as one of ours.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::future;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

use super::crds::{GROUP, Kind, PEER_GROUP, VERSION};
use super::server::Api;

/// How long the definitions of kinds may take to be in effect.
const LIMIT: Duration = Duration::from_mins(2);

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The object as it would be stored, without what is the server's own.
    Admitted(Value),
    Refused(Vec<Cause>),
}

/// One reason to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// As the server writes it; empty if it names none.
    pub field: String,
    pub message: String,
}

/// Both sides.
pub struct Judge<'k> {
    api: Api,
    pub kinds: &'k [Kind],
}

impl<'k> Judge<'k> {
    /// Creates the kinds.
    pub async fn new(api: Api, kinds: &'k [Kind]) -> Result<Self> {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for crd in kinds.iter().flat_map(|kind| [&kind.theirs, &kind.ours]) {
            api.create(path, crd)
                .await
                .with_context(|| format!("{}", crd["metadata"]["name"]))?;
        }
        let judge = Self { api, kinds };
        for kind in kinds {
            for group in [GROUP, PEER_GROUP] {
                tokio::time::timeout(LIMIT, judge.serves(group, kind))
                    .await
                    .with_context(|| format!("{} of {group} is not served", kind.plural))??;
            }
        }
        Ok(judge)
    }

    async fn serves(&self, group: &str, kind: &Kind) -> Result<()> {
        let path = path(group, kind);
        while self.api.send(Method::GET, &path, Bytes::new()).await?.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Theirs alone.
    pub async fn theirs(&self, kind: &Kind, object: &Value) -> Result<Verdict> {
        self.judge(PEER_GROUP, kind, object).await
    }

    /// Theirs and ours.
    pub async fn both(&self, kind: &Kind, object: &Value) -> Result<(Verdict, Verdict)> {
        future::try_join(self.theirs(kind, object), self.judge(GROUP, kind, object)).await
    }

    async fn judge(&self, group: &str, kind: &Kind, object: &Value) -> Result<Verdict> {
        let mut whole = object.clone();
        whole["apiVersion"] = json!(format!("{group}/{VERSION}"));
        whole["kind"] = json!(kind.name);
        whole["metadata"] = json!({"name": "example"});
        let path = format!("{}?dryRun=All&fieldValidation=Strict", path(group, kind));
        let (status, answer) = self
            .api
            .send(Method::POST, &path, whole.to_string().into())
            .await?;
        verdict(status, answer, group)
    }
}

fn path(group: &str, kind: &Kind) -> String {
    format!("/apis/{group}/{VERSION}/namespaces/default/{}", kind.plural)
}

fn verdict(status: StatusCode, mut answer: Value, group: &str) -> Result<Verdict> {
    if status == StatusCode::CREATED {
        let fields = answer.as_object_mut().context("the object is no object")?;
        fields.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
        return Ok(Verdict::Admitted(answer));
    }
    ensure!(
        matches!(status, StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST),
        "the API server answers {status}: {answer}"
    );
    let text = |value: &Value| value.as_str().unwrap_or_default().replace(group, "GROUP");
    let mut causes: Vec<Cause> = answer["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        // That rules were not checked is no reason of its own.
        .filter(|cause| cause["field"] != "<nil>")
        .map(|cause| Cause {
            field: text(&cause["field"]),
            message: text(&cause["message"]),
        })
        .collect();
    if causes.is_empty() {
        let message = text(&answer["message"]);
        if message.is_empty() {
            bail!("the API server refuses without a reason: {answer}");
        }
        // Unknown fields, several in one message.
        causes = unknown(&message);
    }
    Ok(Verdict::Refused(causes))
}

/// The fields in `... unknown field "spec.a", unknown field "spec.b"`; the message itself where it is another.
fn unknown(message: &str) -> Vec<Cause> {
    let mut parts = message.split("unknown field \"").skip(1).peekable();
    if parts.peek().is_none() {
        return vec![Cause {
            field: String::new(),
            message: message.to_owned(),
        }];
    }
    parts
        .filter_map(|part| part.split('"').next())
        .map(|field| Cause {
            field: field.to_owned(),
            message: "unknown field".to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_causes_each() {
        let message = "X in version \"v1\" cannot be handled: strict decoding error: unknown field \"spec.a\", unknown field \"spec.b[0].c\"";
        let fields: Vec<_> = unknown(message).into_iter().map(|cause| cause.field).collect();
        assert_eq!(fields, ["spec.a", "spec.b[0].c"]);
        assert_eq!(unknown("no").len(), 1);
    }

    #[test]
    fn what_is_admitted_is_compared_without_the_servers_fields() {
        let answer = json!({"apiVersion": "a/b", "kind": "C", "metadata": {"uid": "1"}, "spec": {"a": 1}});
        let admitted = verdict(StatusCode::CREATED, answer, "a").unwrap();
        assert_eq!(admitted, Verdict::Admitted(json!({"spec": {"a": 1}})));
        assert!(verdict(StatusCode::TOO_MANY_REQUESTS, json!({}), "a").is_err());
    }
}
