//! AWS Signature Version 4: a request that the command signed with its placeholder key is signed again with the real
//! one, over the head as it is sent.
//!
//! hmac and sha2 rather than the `aws-sigv4` crate: that one signs whole requests only, while the chunks of a streaming
//! upload must be signed one by one as they pass, and it brings the runtime crates of the SDK with it.

mod canonical;
mod chunked;
mod client;
mod key;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts};
use stockade_types::Secret;
use zeroize::Zeroizing;

pub use self::chunked::ChunkSigner;
use self::{
    canonical::Pair,
    client::{Place, Signature},
    key::{EMPTY, Key, sha256},
};
use crate::wiped;

/// Longest body that is collected to be hashed, where the client does not say its hash.
pub const MAX_SIGNED_BODY: usize = 8 * 1024 * 1024;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TOKEN: &str = "x-amz-security-token";
const CONTENT_SHA256: &str = "x-amz-content-sha256";
const DATE: &str = "x-amz-date";

/// The real keys.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The access key id.
    pub access_key_id: Arc<Secret>,
    /// The secret access key.
    pub secret: Arc<Secret>,
    /// The session token of temporary credentials.
    pub session_token: Option<Arc<Secret>>,
}

/// What the binding allows.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// The service that the scope must name.
    pub service: Option<&'a str>,
    /// The region that it must name.
    pub region: Option<&'a str>,
    /// What the command signs with: the placeholder of the access key id.
    pub access_key_id: &'a str,
}

/// Why a request cannot be signed again. None of the texts holds what the client sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Signature Version 2, 4A, or no AWS signature at all.
    #[error("only AWS4-HMAC-SHA256 signatures can be made again")]
    Algorithm,
    /// Not as AWS describes it.
    #[error("the AWS signature is malformed")]
    Malformed,
    /// More than one signature.
    #[error("the request has more than one AWS signature")]
    Twice,
    /// A query that cannot be read in one way only.
    #[error("the path or query cannot be signed: encode spaces as %20 and plus signs as %2B")]
    Query,
    /// A signed field that is not text.
    #[error("header field {0} is signed and not text")]
    Field(HeaderName),
    /// The scope is not the binding's.
    #[error("the signature's {what} is not the one that the credential is bound to")]
    Scope {
        /// `service` or `region`.
        what: &'static str,
    },
    /// Signed with another key.
    #[error("the request is signed with a key that is not the command's placeholder")]
    Foreign,
    /// No date, or one of another day than the scope.
    #[error("the request's x-amz-date is absent or not that of the signature")]
    Date,
    /// A payload declaration that nobody knows.
    #[error("x-amz-content-sha256 is none that can be signed again")]
    Payload,
    /// A chunk that is malformed or over the bound.
    #[error("the aws-chunked body is malformed, or a chunk of it is over 1 MiB")]
    Chunk,
    /// A key that cannot stand in a header field.
    #[error("the access key id or session token holds characters that a request cannot")]
    Key,
}

/// What a signature is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    date: String,
    region: String,
    service: String,
}

/// What must happen to the body.
#[derive(Debug)]
pub enum Payload {
    /// Nothing: its hash was declared, or it is not signed.
    AsIs,
    /// It has to be collected, up to [`MAX_SIGNED_BODY`], and given to [`Unsigned::sign`] before the head is sent.
    Collect(Unsigned),
    /// Its chunks are signed as they pass.
    Chunked(ChunkSigner),
}

/// A head that waits for the hash of its body.
#[derive(Debug)]
pub struct Unsigned(Signing);

/// All that signing needs besides the head.
struct Signing {
    signature: Signature,
    keys: Keys,
    stamp: String,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signing").field(&self.signature.scope).finish()
    }
}

/// Signs a head again. `None`: it carries no signature, and nothing was done. Called last: what is changed afterwards is
/// not what was signed.
pub fn resign(parts: &mut Parts, keys: Keys, bound: Bound<'_>) -> Result<Option<Payload>, SignError> {
    let mut query = canonical::pairs(parts.uri.query().unwrap_or(""))?;
    let Some(mut signature) = Signature::of(parts, &query)? else { return Ok(None) };
    check(&signature, bound)?;
    let stamp = stamp(&parts.headers, &query, signature.place)?;
    if !stamp.starts_with(&signature.scope.date) {
        return Err(SignError::Date);
    }
    put_keys(parts, &mut query, &signature, &keys)?;
    signature.signed = signed(&parts.headers, signature.signed, signature.place);
    if signature.place == Place::Query {
        set(&mut query, "X-Amz-SignedHeaders", canonical::names(&signature.signed));
    }
    put_query(parts, &query)?;
    let declared = declared(&parts.headers, &query, &signature)?;
    let signing = Signing { signature, keys, stamp };
    match declared {
        None => Ok(Some(Payload::Collect(Unsigned(signing)))),
        Some(Declared::Hash(hash)) => signing.sign(parts, &hash).map(|_| Some(Payload::AsIs)),
        Some(Declared::Chunks { payload, trailer }) => {
            let seed = signing.sign(parts, payload)?;
            let key = Key::new(&signing.keys.secret, &signing.signature.scope);
            let scope = signing.signature.scope.to_string();
            Ok(Some(Payload::Chunked(ChunkSigner::new(key, signing.stamp, scope, seed, trailer))))
        }
    }
}

fn check(signature: &Signature, bound: Bound<'_>) -> Result<(), SignError> {
    let other = |bound: Option<&str>, named: &str| bound.is_some_and(|bound| bound != named);
    if signature.access_key_id != bound.access_key_id {
        return Err(SignError::Foreign);
    }
    if other(bound.service, &signature.scope.service) {
        return Err(SignError::Scope { what: "service" });
    }
    if other(bound.region, &signature.scope.region) {
        return Err(SignError::Scope { what: "region" });
    }
    Ok(())
}

/// When the client signed.
fn stamp(fields: &HeaderMap, query: &[Pair], place: Place) -> Result<String, SignError> {
    let text = match place {
        Place::Header => fields.get(DATE).and_then(|value| value.to_str().ok()).map(str::to_owned),
        Place::Query => value(query, "X-Amz-Date").map(|v| String::from_utf8_lossy(v).into_owned()),
    };
    let text = text.ok_or(SignError::Date)?;
    let fits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'T' | b'Z'));
    if fits { Ok(text) } else { Err(SignError::Date) }
}

/// Puts the real session token in, or takes the client's out.
fn put_keys(parts: &mut Parts, query: &mut Vec<Pair>, signature: &Signature, keys: &Keys) -> Result<(), SignError> {
    parts.headers.remove(TOKEN);
    query.retain(|(name, _)| !name.eq_ignore_ascii_case(b"X-Amz-Security-Token"));
    match (signature.place, &keys.session_token) {
        (_, None) => {}
        (Place::Header, Some(token)) => {
            parts.headers.insert(TOKEN, sensitive(token.expose().to_owned())?);
        }
        (Place::Query, Some(token)) => query.push((b"X-Amz-Security-Token".to_vec(), token.expose().into())),
    }
    if signature.place == Place::Query {
        query.retain(|(name, _)| name != b"X-Amz-Signature");
        set(query, "X-Amz-Credential", format!("{}/{}", keys.access_key_id.expose(), signature.scope));
    }
    Ok(())
}

/// What the client signed and is still there, with all that AWS demands: the host and its own fields.
fn signed(fields: &HeaderMap, mut names: Vec<HeaderName>, place: Place) -> Vec<HeaderName> {
    names.retain(|name| fields.contains_key(name) && *name != header::AUTHORIZATION);
    names.push(header::HOST);
    if place == Place::Header {
        names.extend(fields.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned());
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

/// A body whose hash is known, or need not be.
enum Declared {
    Hash(String),
    Chunks { payload: &'static str, trailer: bool },
}

fn declared(fields: &HeaderMap, query: &[Pair], signature: &Signature) -> Result<Option<Declared>, SignError> {
    const CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    const TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
    const UNSIGNED: [&str; 2] = ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"];
    let field = fields.get(CONTENT_SHA256).map(HeaderValue::as_bytes).or_else(|| value(query, "X-Amz-Content-Sha256"));
    let Some(field) = field else {
        let unsigned = signature.place == Place::Query && signature.scope.service == "s3";
        return Ok(unsigned.then(|| Declared::Hash(UNSIGNED[0].to_owned())));
    };
    let text = std::str::from_utf8(field).map_err(|_| SignError::Payload)?;
    let hash = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match text {
        CHUNKS => Ok(Some(Declared::Chunks { payload: CHUNKS, trailer: false })),
        TRAILER => Ok(Some(Declared::Chunks { payload: TRAILER, trailer: true })),
        text if hash || UNSIGNED.contains(&text) => Ok(Some(Declared::Hash(text.to_owned()))),
        _ => Err(SignError::Payload),
    }
}

impl Unsigned {
    /// Signs the head now that its body is there.
    pub fn sign(&self, parts: &mut Parts, body: &[u8]) -> Result<(), SignError> {
        let hash = if body.is_empty() { EMPTY.to_owned() } else { sha256(body) };
        self.0.sign(parts, &hash).map(|_| ())
    }
}

impl Signing {
    /// Signs the head and puts the signature in its place; returns it, for chunks to begin with.
    fn sign(&self, parts: &mut Parts, payload: &str) -> Result<String, SignError> {
        let Signature { place, scope, signed, .. } = &self.signature;
        let mut query = canonical::pairs(parts.uri.query().unwrap_or(""))?;
        let request = canonical::request(parts, &query, signed, scope.service == "s3", payload)?;
        let text = format!("{ALGORITHM}\n{}\n{scope}\n{}", self.stamp, sha256(request.as_bytes()));
        let signature = Key::new(&self.keys.secret, scope).sign(&text);
        match place {
            Place::Header => {
                let id = self.keys.access_key_id.expose();
                let names = canonical::names(signed);
                let field =
                    format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
                parts.headers.insert(header::AUTHORIZATION, sensitive(field)?);
            }
            Place::Query => {
                query.push((b"X-Amz-Signature".to_vec(), signature.clone().into()));
                put_query(parts, &query)?;
            }
        }
        Ok(signature)
    }
}

fn sensitive(text: String) -> Result<HeaderValue, SignError> {
    wiped::field(Zeroizing::new(text)).ok_or(SignError::Key)
}

fn value<'a>(query: &'a [Pair], wanted: &str) -> Option<&'a [u8]> {
    query.iter().find(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| value.as_slice())
}

fn set(query: &mut [Pair], wanted: &str, text: String) {
    if let Some((_, value)) = query.iter_mut().find(|(name, _)| name == wanted.as_bytes()) {
        *value = text.into();
    }
}

/// Writes the query back, each parameter encoded as AWS does.
fn put_query(parts: &mut Parts, query: &[Pair]) -> Result<(), SignError> {
    let encoded: Vec<_> =
        query.iter().map(|(n, v)| format!("{}={}", canonical::encode(n), canonical::encode(v))).collect();
    let target = match encoded.is_empty() {
        true => parts.uri.path().to_owned(),
        false => format!("{}?{}", parts.uri.path(), encoded.join("&")),
    };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(target.try_into().map_err(|_| SignError::Query)?);
    parts.uri = Uri::from_parts(uri).map_err(|_| SignError::Query)?;
    Ok(())
}
