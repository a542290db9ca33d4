//! What the client signed, and how: an Authorization field or a presigned query.

use http::{HeaderName, header::AUTHORIZATION, request::Parts};

use super::{ALGORITHM, Scope, SignError, canonical::Pair};

/// Where a signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Header,
    Query,
}

/// The parts of the client's signature that say what to sign.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) place: Place,
    pub(super) access_key_id: String,
    pub(super) scope: Scope,
    pub(super) signed: Vec<HeaderName>,
}

impl Signature {
    /// Absent if the request is anonymous.
    pub(super) fn of(parts: &Parts, query: &[Pair]) -> Result<Option<Self>, SignError> {
        let mut fields = parts.headers.get_all(AUTHORIZATION).iter();
        let presigned = query.iter().any(|(name, _)| is_ours(name));
        match (fields.next(), fields.next(), presigned) {
            (None, _, false) => Ok(None),
            (None, _, true) => Self::presigned(query).map(Some),
            (Some(field), None, false) => Self::field(field.to_str().map_err(|_| SignError::Malformed)?).map(Some),
            _ => Err(SignError::Twice),
        }
    }

    fn field(text: &str) -> Result<Self, SignError> {
        let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            return Err(SignError::Algorithm);
        }
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(SignError::Malformed)?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(SignError::Malformed),
            };
            if slot.replace(value).is_some() {
                return Err(SignError::Malformed);
            }
        }
        let (Some(credential), Some(signed), Some(_)) = (credential, signed, signature) else {
            return Err(SignError::Malformed);
        };
        Self::new(Place::Header, credential, signed)
    }

    fn presigned(query: &[Pair]) -> Result<Self, SignError> {
        let one = |wanted: &str| {
            let mut values = query.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
            match (values.next(), values.next()) {
                (Some((name, value)), None) if name == wanted.as_bytes() => {
                    std::str::from_utf8(value).map_err(|_| SignError::Malformed)
                }
                _ => Err(SignError::Malformed),
            }
        };
        if one("X-Amz-Algorithm")? != ALGORITHM {
            return Err(SignError::Algorithm);
        }
        for name in ["X-Amz-Date", "X-Amz-Signature", "X-Amz-Expires"] {
            one(name)?;
        }
        Self::new(Place::Query, one("X-Amz-Credential")?, one("X-Amz-SignedHeaders")?)
    }

    fn new(place: Place, credential: &str, signed: &str) -> Result<Self, SignError> {
        let mut parts = credential.rsplitn(5, '/');
        let mut next = || parts.next().map(str::to_owned).ok_or(SignError::Malformed);
        let end = next()?;
        let (service, region, date, access_key_id) = (next()?, next()?, next()?, next()?);
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let fits = end == "aws4_request" && word(&service) && word(&region) && date.len() == 8 && word(&date);
        if !fits {
            return Err(SignError::Malformed);
        }
        let signed = signed.split(';').map(|name| HeaderName::try_from(name).map_err(|_| SignError::Malformed));
        Ok(Self {
            place,
            access_key_id,
            scope: Scope { date, region, service },
            signed: signed.collect::<Result<_, _>>()?,
        })
    }
}

/// A parameter of a presigned query that says how it is signed.
fn is_ours(name: &[u8]) -> bool {
    [&b"X-Amz-Signature"[..], b"X-Amz-Credential", b"X-Amz-Algorithm"].iter().any(|n| name.eq_ignore_ascii_case(n))
}
