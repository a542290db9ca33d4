//! Bodies: searched as they pass, or collected within a bound where a value belongs into them.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
    request::Parts,
};
use stockade_policy::Inject;
use zeroize::Zeroizing;

use super::{
    json::{self, Unreadable},
    pairs,
};
use crate::{
    credentials::{Bound, Credentials},
    refusal::{Place, Refusal},
    scan::{Found, Gate, Scan, Scanner},
    sigv4::{ChunkSigner, MAX_SIGNED_BODY, Payload, Unsigned},
    wiped,
};

/// Longest body that is collected to put a value in.
pub const MAX_BODY: usize = 1024 * 1024;

/// What must happen to a request's body.
#[derive(Debug)]
pub enum Body {
    /// It is searched as it passes.
    Stream(Stream),
    /// It has to be collected before the head is sent.
    Collect(Collect),
}

/// A body that passes.
#[derive(Debug)]
pub struct Stream {
    refuse: Refuse,
    gate: Gate,
    signing: Option<(ChunkSigner, Scanner)>,
    /// Fields that credentials were put into.
    own: Vec<String>,
}

/// A body that is collected.
#[derive(Debug)]
pub struct Collect {
    refuse: Refuse,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A field of a document.
    Field(Field),
    /// Its hash is signed.
    Hash(Unsigned),
}

/// Where in a document a value belongs.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) credential: String,
    pub(super) document: Document,
    pub(super) value: Arc<stockade_types::Secret>,
    pub(super) placeholder: Arc<str>,
}

#[derive(Debug)]
pub(super) enum Document {
    Json { pointer: String },
    Form { name: String },
}

/// Turns what was found into a refusal: which credentials there were is known when the request began.
#[derive(Debug, Clone)]
pub(super) struct Refuse {
    markers: Arc<crate::scan::Markers>,
    /// The credentials of the policy.
    names: Arc<[String]>,
    attached: Arc<[String]>,
}

impl Refuse {
    pub(super) fn new(credentials: &Credentials, attached: &Arc<[String]>) -> Self {
        let names = credentials.names().map(str::to_owned).collect();
        Self { markers: Arc::clone(&credentials.markers), names, attached: Arc::clone(attached) }
    }

    pub(super) fn found(&self, found: &Found, place: Place) -> Refusal {
        let label = found.credential.as_deref().map(|label| label.split(' ').next().unwrap_or(label));
        match label.filter(|name| self.names.iter().any(|n| n == name)).map(str::to_owned) {
            None => Refusal::Forged { place },
            Some(credential) if self.attached.contains(&credential) => Refusal::Surface { credential, place },
            Some(credential) => Refusal::Scope { credential, place },
        }
    }

    pub(super) fn whole(&self, bytes: &[u8], place: Place) -> Result<(), Refusal> {
        self.markers.find(bytes).map_or(Ok(()), |found| Err(self.found(&found, place)))
    }
}

/// Decides from the head what must happen to the body.
pub(super) fn plan(
    credentials: &Credentials,
    parts: &Parts,
    bound: &[Bound<'_>],
    signing: Option<Payload>,
    attached: &Arc<[String]>,
) -> Result<Body, Refusal> {
    let refuse = Refuse::new(credentials, attached);
    let own: Vec<String> = bound.iter().filter_map(super::field_of).map(str::to_owned).collect();
    let stream = |refuse: Refuse, signing| {
        let gate = Gate::new(Arc::clone(&refuse.markers));
        Body::Stream(Stream { gate, refuse, signing, own })
    };
    let kind = content_type(&parts.headers);
    match signing {
        Some(Payload::Collect(unsigned)) => return Ok(Body::Collect(Collect { refuse, kind: Kind::Hash(unsigned) })),
        Some(Payload::Chunked(signer)) => {
            let scanner = Scanner::new(Arc::clone(&refuse.markers));
            return Ok(stream(refuse, Some((signer, scanner))));
        }
        Some(Payload::AsIs) | None => {}
    }
    let field = bound.iter().find_map(|bound| {
        let document = match bound.inject {
            Inject::Json { pointer } if kind == "application/json" || kind.ends_with("+json") => {
                Document::Json { pointer: pointer.clone() }
            }
            Inject::Form { name } if kind == "application/x-www-form-urlencoded" => {
                Document::Form { name: name.clone() }
            }
            _ => return None,
        };
        Some(Field::new(bound, document))
    });
    let into_body = |b: &Bound<'_>| matches!(b.inject, Inject::Json { .. } | Inject::Form { .. });
    if bound.iter().any(into_body) && parts.headers.get_all(CONTENT_TYPE).iter().count() > 1 {
        return Err(Refusal::Twice(Place::Field(CONTENT_TYPE)));
    }
    Ok(match field {
        Some(field) => Body::Collect(Collect { refuse, kind: Kind::Field(field) }),
        None => stream(refuse, None),
    })
}

fn content_type(fields: &HeaderMap) -> String {
    let text = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

impl Stream {
    /// Takes the next bytes and gives those that may go on.
    pub fn pass(&mut self, bytes: Bytes) -> Result<Bytes, Refusal> {
        let bytes = self.gate.pass(bytes).map_err(|found| self.refuse.found(&found, Place::Body))?;
        self.sign(bytes)
    }

    /// Bytes of a chunk that is being put together, to be signed whole.
    #[must_use]
    pub fn held(&self) -> usize {
        self.signing.as_ref().map_or(0, |(signer, _)| signer.held())
    }

    /// Gives what was held back, at the end of the body.
    pub fn finish(&mut self) -> Result<Bytes, Refusal> {
        let bytes = self.gate.finish().map_err(|found| self.refuse.found(&found, Place::Body))?;
        let bytes = self.sign(bytes)?;
        if let Some((signer, scanner)) = &mut self.signing {
            signer.finish()?;
            if let Scan::Found(found) = scanner.finish() {
                return Err(self.refuse.found(&found, Place::Body));
            }
        }
        Ok(bytes)
    }

    /// Looks through trailers, and takes authentication out of them: there it is in nobody's place.
    pub fn trailers(&self, trailers: &mut HeaderMap) -> Result<(), Refusal> {
        let authenticates = |name: &HeaderName| {
            // Many origins take `_` for `-`.
            let dashed = name.as_str().replace('_', "-");
            super::AUTHENTICATING.contains(&&*dashed) || self.own.contains(&dashed)
        };
        let taken: Vec<HeaderName> = trailers.keys().filter(|name| authenticates(name)).cloned().collect();
        for name in taken {
            trailers.remove(name);
        }
        for (name, value) in &*trailers {
            self.refuse.whole(value.as_bytes(), Place::Trailer(name.clone()))?;
        }
        Ok(())
    }

    fn sign(&mut self, bytes: Bytes) -> Result<Bytes, Refusal> {
        let Some((signer, scanner)) = &mut self.signing else { return Ok(bytes) };
        let (mut out, mut found) = (Vec::with_capacity(bytes.len()), None);
        signer.feed(&bytes, &mut out, &mut |data| {
            if let Scan::Found(there) = scanner.feed(data) {
                found = Some(there);
            }
        })?;
        match found {
            Some(found) => Err(self.refuse.found(&found, Place::Body)),
            None => Ok(out.into()),
        }
    }
}

impl Collect {
    /// How long the body may be; a longer one is refused with `limit`.
    #[must_use]
    pub fn limit(&self) -> usize {
        match self.kind {
            Kind::Field(_) => MAX_BODY,
            Kind::Hash(_) => MAX_SIGNED_BODY,
        }
    }

    /// Gives the body to send, and sets its length in the head.
    pub fn finish(self, parts: &mut Parts, body: Bytes) -> Result<Bytes, Refusal> {
        match self.kind {
            Kind::Hash(unsigned) => {
                self.refuse.whole(&body, Place::Body)?;
                unsigned.sign(parts, &body)?;
                Ok(body)
            }
            Kind::Field(field) => {
                let Some(put) = field.put(&body, &self.refuse, &Place::Body)? else { return Ok(body) };
                let body = wiped::bytes(put);
                parts.headers.remove(TRANSFER_ENCODING);
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                Ok(body)
            }
        }
    }
}

impl Field {
    pub(super) fn new(bound: &Bound<'_>, document: Document) -> Self {
        Self {
            credential: bound.name.to_owned(),
            document,
            value: Arc::clone(&bound.value),
            placeholder: Arc::clone(bound.placeholder),
        }
    }

    /// The document with the value in it; `None` if it has no such field, and is as it was.
    pub(super) fn put(&self, document: &[u8], refuse: &Refuse, place: &Place) -> Result<Option<Put>, Refusal> {
        if document.is_empty() {
            return Ok(None);
        }
        match &self.document {
            Document::Json { pointer } => self.put_json(document, pointer, refuse, place),
            Document::Form { name } => self.put_form(document, name, refuse, place),
        }
    }

    fn put_json(&self, document: &[u8], pointer: &str, refuse: &Refuse, place: &Place) -> Result<Option<Put>, Refusal> {
        let found = json::find(document, pointer).map_err(|why| match why {
            Unreadable::Malformed => Refusal::Body("JSON"),
            Unreadable::Twice => Refusal::Twice(place.clone()),
        })?;
        let Some(range) = found else {
            refuse.whole(document, place.clone())?;
            return Ok(None);
        };
        let text = json::text(&document[range.clone()]).ok_or(Refusal::Body("JSON"))?;
        let literal = json::literal(&self.replaced(&text, refuse, place)?);
        let (front, back) = (&document[..range.start], &document[range.end..]);
        refuse.whole(front, place.clone())?;
        refuse.whole(back, place.clone())?;
        Ok(Some(joined([front, literal.as_bytes(), back])))
    }

    fn put_form(&self, document: &[u8], name: &str, refuse: &Refuse, place: &Place) -> Result<Option<Put>, Refusal> {
        let text = std::str::from_utf8(document).map_err(|_| Refusal::Body("a form"))?;
        let (rest, values) = pairs::take(text, name);
        refuse.whole(rest.join("&").as_bytes(), place.clone())?;
        if pairs::hides(&rest, name) {
            return Err(Refusal::Twice(place.clone()));
        }
        let [value] = &values[..] else {
            return if values.is_empty() { Ok(None) } else { Err(Refusal::Twice(place.clone())) };
        };
        let value = std::str::from_utf8(value).map_err(|_| Refusal::Body("a form"))?;
        let put = pairs::with(&rest, name, &self.replaced(value, refuse, place)?);
        Ok(Some(joined([put.as_bytes(), &[], &[]])))
    }

    /// What belongs into the field where the client wrote this: its placeholder in it is replaced, and anything else as
    /// a whole.
    fn replaced(&self, text: &str, refuse: &Refuse, place: &Place) -> Result<Zeroizing<String>, Refusal> {
        let Some((front, back)) = text.split_once(&*self.placeholder) else {
            if let Some(found) = refuse.markers.find(text.as_bytes()) {
                return Err(refuse.found(&found, place.clone()));
            }
            return Ok(Zeroizing::new(self.value.expose().to_owned()));
        };
        refuse.whole(front.as_bytes(), place.clone())?;
        refuse.whole(back.as_bytes(), place.clone())?;
        if !front.chars().chain(back.chars()).all(|c| c.is_ascii_graphic() || c == ' ') {
            return Err(Refusal::Surface { credential: self.credential.clone(), place: place.clone() });
        }
        let value = self.value.expose();
        let mut out = Zeroizing::new(String::with_capacity(front.len() + value.len() + back.len()));
        [front, value, back].iter().for_each(|part| out.push_str(part));
        Ok(out)
    }
}

/// A document with a value in it.
type Put = Zeroizing<Vec<u8>>;

/// Parts in one allocation, so that none that grew is left behind.
fn joined(parts: [&[u8]; 3]) -> Put {
    let mut out = Zeroizing::new(Vec::with_capacity(parts.iter().map(|p| p.len()).sum()));
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}
