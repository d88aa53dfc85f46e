//! Responses that the configuration spells out: direct ones, and those that take the place of others.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use sluice_config::v1;

use super::format::{Format, Subject};
use super::{HeaderModifier, headers, status};

/// A compiled response.
#[derive(Debug)]
pub struct DirectResponse {
    /// `None`: that of the response whose place it takes.
    pub status: Option<StatusCode>,
    content_type: Option<HeaderValue>,
    body: Format,
    headers: HeaderModifier,
}

impl DirectResponse {
    /// Reads a filter.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::DirectResponse) -> Result<Self, String> {
        Self::new(
            match config.status {
                0 => 200,
                status => status,
            },
            &config.content_type,
            &config.body,
            config.headers.as_ref(),
        )
    }

    /// Reads what takes the place of a response.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile_override(config: &v1::CustomResponse) -> Result<Self, String> {
        Self::new(
            config.status,
            &config.content_type,
            config.body.as_deref().unwrap_or_default(),
            config.headers.as_ref(),
        )
    }

    fn new(
        code: u32,
        content_type: &str,
        body: &[u8],
        modifier: Option<&v1::HeaderModifier>,
    ) -> Result<Self, String> {
        Ok(Self {
            status: match code {
                0 => None,
                code => Some(status(code).map_err(|e| format!("status: {e}"))?),
            },
            content_type: match content_type {
                "" => None,
                text => Some(headers::value(text).map_err(|e| format!("content_type: {e}"))?),
            },
            body: Format::compile(body),
            headers: modifier
                .map(HeaderModifier::compile)
                .transpose()
                .map_err(|e| format!("headers: {e}"))?
                .unwrap_or_default(),
        })
    }

    /// True if the request is needed to say it.
    pub fn needs_subject(&self) -> bool {
        !self.body.is_plain()
    }

    /// Status, headers and body. `original` is the status of the response whose place it takes.
    pub fn render(
        &self,
        subject: Option<&Subject>,
        route: &str,
        original: StatusCode,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let status = self.status.unwrap_or(original);
        let mut headers = HeaderMap::new();
        if let Some(content_type) = &self.content_type {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        self.headers.apply(&mut headers);
        (status, headers, self.body.render(subject, route, status))
    }
}
