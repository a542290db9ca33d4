//! WebSocket messages: a value goes into the field of a JSON text message where the policy names one for JSON bodies;
//! every other placeholder is refused.

use std::{borrow::Cow, sync::Arc};

use stockade_policy::Inject;

use super::body::{Document, Field, MAX_BODY, Refuse};
use crate::{
    credentials::{Bound, Credentials, Source},
    refusal::{Place, Refusal},
};

/// Sees to the messages that the command sends. Each is given as a whole, put together from its fragments.
#[derive(Debug)]
pub struct Messages {
    refuse: Refuse,
    /// With where the value came from: a connection outlives it.
    fields: Vec<(Field, Source)>,
}

impl Messages {
    pub(super) fn new(credentials: &Credentials, bound: &[Bound<'_>], attached: &Arc<[String]>) -> Self {
        let field = |bound: &Bound<'_>| match bound.inject {
            Inject::Json { pointer } => {
                let field = Field::new(bound, Document::Json { pointer: pointer.clone() });
                Some((field, credentials.source(bound)?))
            }
            _ => None,
        };
        Self { refuse: Refuse::new(credentials, attached), fields: bound.iter().filter_map(field).collect() }
    }

    /// The text to send.
    pub fn text<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, Refusal> {
        for (field, source) in self.fields.iter().filter(|_| text.len() <= MAX_BODY) {
            match field.put(text.as_bytes(), &self.refuse, &Place::Message) {
                Ok(Some(mut bytes)) => {
                    source.still(&field.credential, &field.value)?;
                    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|_| Refusal::Body("JSON"))?;
                    return Ok(Cow::Owned(text));
                }
                // Not JSON, or no such field: refused below for what it holds.
                Ok(None) | Err(Refusal::Body(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        self.refuse.whole(text.as_bytes(), Place::Message)?;
        Ok(Cow::Borrowed(text))
    }

    /// A binary message holds no value; it goes on unless it holds a placeholder.
    pub fn binary(&self, bytes: &[u8]) -> Result<(), Refusal> {
        self.refuse.whole(bytes, Place::Message)
    }
}
