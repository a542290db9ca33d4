//! Responses to requests that values were put into.

use std::sync::Arc;

use http::HeaderMap;

use crate::scrub::{Pace, Scrubber, Uninspectable, Values, pace};

/// Takes the values out of a response.
#[derive(Debug, Clone)]
pub struct Response {
    values: Arc<Values>,
}

impl Response {
    pub(super) fn new(values: Arc<Values>) -> Self {
        Self { values }
    }

    /// Whether there is anything to take out.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        !self.values.is_empty()
    }

    /// Takes values out of a head, or of trailers. Says how many there were: each is worth a finding
    /// `secret_in_response`.
    pub fn fields(&self, fields: &mut HeaderMap) -> usize {
        if self.values.is_empty() { 0 } else { self.values.scrub_fields(fields) }
    }

    /// What sees to the body; `None` if there is nothing to take out. A body that cannot be searched must not go on:
    /// asked for as it was, the origin should not have coded it. Not for responses without a body (HEAD, 304).
    pub fn body(&self, fields: &HeaderMap) -> Result<Option<Scrubber>, Uninspectable> {
        if self.values.is_empty() {
            return Ok(None);
        }
        Ok(Some(Scrubber::new(Arc::clone(&self.values), pace(fields)?)))
    }

    /// Takes values out of a WebSocket message, put together from its fragments. Says how many there were.
    pub fn message(&self, bytes: &mut [u8]) -> usize {
        self.values.scrub(bytes)
    }

    /// What sees to a stream in another protocol after an upgrade.
    #[must_use]
    pub fn stream(&self) -> Scrubber {
        Scrubber::new(Arc::clone(&self.values), Pace::Prompt)
    }
}
