//! What token endpoints answer.

use serde::Deserialize;
use serde_json::Value;

/// The answer of a token endpoint (RFC 6749 section 5.1).
#[derive(Deserialize)]
pub struct TokenAnswer {
    /// Access token.
    pub access_token: String,
    /// ID token.
    #[serde(default)]
    pub id_token: Option<String>,
    /// Refresh token.
    #[serde(default)]
    pub refresh_token: Option<String>,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<Value>,
}

impl TokenAnswer {
    /// Reads it. `None`: it is none, or one for another kind of token.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let answer: Self = serde_json::from_slice(json).ok()?;
        let is_bearer = answer
            .token_type
            .as_deref()
            .is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
        (is_bearer && !answer.access_token.is_empty()).then_some(answer)
    }

    /// Seconds for which the access token is good, as it says; some providers say it as text.
    pub fn seconds(&self) -> Option<u64> {
        match self.expires_in.as_ref()? {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        }
    }
}

/// The code of an error that a token endpoint tells (RFC 6749 section 5.2), for the log.
pub fn error_code(json: &[u8]) -> String {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    let code = value
        .get("error")
        .and_then(Value::as_str)
        .unwrap_or("unspecified");
    code.chars().filter(char::is_ascii_graphic).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_token_endpoints() {
        let parse = |json: &str| TokenAnswer::parse(json.as_bytes());
        let answer = parse(r#"{"access_token":"a","token_type":"Bearer","expires_in":"60"}"#).unwrap();
        assert_eq!(answer.seconds(), Some(60));
        assert_eq!(
            parse(r#"{"access_token":"a","expires_in":7}"#).unwrap().seconds(),
            Some(7)
        );
        assert_eq!(parse(r#"{"access_token":"a"}"#).unwrap().seconds(), None);
        assert!(parse(r#"{"access_token":""}"#).is_none());
        assert!(parse(r#"{"access_token":"a","token_type":"DPoP"}"#).is_none());
        assert_eq!(error_code(br#"{"error":"invalid_grant\n"}"#), "invalid_grant");
        assert_eq!(error_code(b"<html>"), "unspecified");
    }
}
