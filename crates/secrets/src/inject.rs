//! Puts real values into a request, after the verdict and last, each in the one place where its credential belongs; and
//! refuses a placeholder anywhere else.
//!
//! What the command wrote into a bound place never goes on, whatever it is: it says at most which credential is meant.

mod body;
mod json;
mod message;
mod pairs;
mod path;
mod response;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, SEC_WEBSOCKET_EXTENSIONS},
    request::Parts,
    uri::PathAndQuery,
};
use stockade_policy::{Inject, RequestPermit};
use stockade_types::{Host, Port};
use zeroize::Zeroizing;

pub use self::{
    body::{Body, Collect, MAX_BODY, Stream},
    message::Messages,
    response::Response,
};
use crate::{
    credentials::{Bound, Credentials},
    refusal::{Place, Refusal},
    scrub::plain,
    sigv4,
    verified::VerifiedTls,
    wiped,
};

/// Fields that carry authentication. On an endpoint whose credentials are injected, the command's own are refused where
/// they are not replaced: an origin may prefer them.
const AUTHENTICATING: [&str; 12] = [
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "apikey",
    "private-token",
    "job-token",
    "x-auth-token",
    "x-access-token",
    "x-github-token",
    "x-amz-security-token",
    "x-vault-token",
];
/// Query parameters that do. A link to a store is signed with somebody's key, and there may be room of theirs at the same
/// host.
const AUTHENTICATING_PARAMETERS: [&str; 11] = [
    "access_token",
    "private_token",
    "oauth_token",
    "api_key",
    "apikey",
    "x-amz-signature",
    "x-amz-credential",
    "awsaccesskeyid",
    "x-goog-signature",
    "x-goog-credential",
    "googleaccessid",
];
const AMZ_TOKEN: &str = "x-amz-security-token";

/// What goes on: the head was changed in place, and these see to the rest.
#[derive(Debug)]
pub struct Passage {
    /// For the request's body.
    pub body: Body,
    /// For messages after an upgrade to WebSocket.
    pub messages: Messages,
    /// For the response.
    pub response: Response,
    /// Which credentials were put into the head.
    pub injected: Vec<String>,
}

/// Where a request goes: what of a permit matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) host: &'a Host,
    pub(crate) port: Port,
    pub(crate) credentials: &'a [String],
}

/// A request's head while values are put in.
struct Head<'a> {
    credentials: &'a Credentials,
    site: Site<'a>,
    bound: &'a [Bound<'a>],
    parts: &'a mut Parts,
    injected: Vec<String>,
}

impl Credentials {
    /// Puts the endpoint's credentials into a request that was permitted. The head must be as it will be sent: canonical
    /// target, `Host` set, hop-by-hop fields gone; nothing may be changed in it afterwards.
    ///
    /// Without `tls` nothing is injected: an endpoint with credentials then refuses, and any other is only searched.
    pub fn request(
        &self,
        permit: &RequestPermit,
        tls: Option<&VerifiedTls>,
        parts: &mut Parts,
    ) -> Result<Passage, Refusal> {
        let permit = permit.permit();
        let site = Site { host: permit.host(), port: permit.port(), credentials: &permit.terms().credentials };
        self.pass(site, tls, parts)
    }

    pub(crate) fn pass(
        &self,
        site: Site<'_>,
        tls: Option<&VerifiedTls>,
        parts: &mut Parts,
    ) -> Result<Passage, Refusal> {
        if !site.credentials.is_empty() && !tls.is_some_and(|tls| tls.is_to(site.host, site.port)) {
            return Err(Refusal::Unverified);
        }
        let bound = self.bound(site.credentials)?;
        let mut head = Head { credentials: self, site, bound: &bound, parts, injected: Vec::new() };
        head.inject()?;
        let signing = head.sign()?;
        let injected = head.injected;
        let allowed = Arc::from(site.credentials);
        Ok(Passage {
            body: body::plan(self, parts, &bound, signing, &allowed)?,
            messages: Messages::new(self, &bound, &allowed),
            response: Response::new(self.scrubbed(&bound)),
            injected,
        })
    }

    /// Whose placeholder is in these bytes, if it is one of `own`; any other is refused.
    pub(crate) fn client<'b>(
        &self,
        bytes: &[u8],
        place: &Place,
        attached: &[String],
        own: &[&'b str],
    ) -> Result<Option<&'b str>, Refusal> {
        let Some(found) = self.markers.find(bytes) else { return Ok(None) };
        match found.credential.as_deref().and_then(|label| self.owner(label)) {
            Some(owner) => match own.iter().find(|name| **name == owner) {
                Some(name) => Ok(Some(*name)),
                None => Err(self.refusal(Some(owner), place.clone(), attached)),
            },
            None => Err(self.refusal(None, place.clone(), attached)),
        }
    }

    /// Why a placeholder must not go on from here.
    pub(crate) fn refusal(&self, label: Option<&str>, place: Place, attached: &[String]) -> Refusal {
        match label.and_then(|label| self.owner(label)).map(str::to_owned) {
            None => Refusal::Forged { place },
            Some(credential) if attached.contains(&credential) => Refusal::Surface { credential, place },
            Some(credential) => Refusal::Scope { credential, place },
        }
    }
}

impl Head<'_> {
    fn inject(&mut self) -> Result<(), Refusal> {
        let fields = self.take_fields()?;
        let (path, query) = self.target()?;
        self.check_fields()?;
        if self.bound.is_empty() {
            return Ok(());
        }
        refuse_coded(&self.parts.headers)?;
        self.put_target(&path, &query)?;
        for (name, text, credential) in fields {
            let value = wiped::field(text).ok_or_else(|| invalid(&credential))?;
            self.parts.headers.insert(name, value);
            self.injected.push(credential);
        }
        // What comes back must be searchable: no content coding, and no compression of WebSocket messages.
        self.parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.parts.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        Ok(())
    }

    /// Takes what the client wrote into bound fields away; gives what belongs there instead.
    fn take_fields(&mut self) -> Result<Vec<(HeaderName, Zeroizing<String>, String)>, Refusal> {
        let mut names: Vec<HeaderName> = Vec::new();
        for bound in self.bound {
            let name = match bound.inject {
                Inject::Header { name, .. } => HeaderName::try_from(name).map_err(|_| invalid(bound.name))?,
                Inject::Basic { .. } => AUTHORIZATION,
                _ => continue,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut fields = Vec::new();
        for name in names {
            let own: Vec<&Bound<'_>> =
                self.bound.iter().filter(|bound| field_of(bound) == Some(name.as_str())).collect();
            let chosen = self.chosen(&name, &own)?;
            self.parts.headers.remove(&name);
            self.denominate(&name);
            if let Some(bound) = chosen {
                fields.push((name, text_of(bound), bound.name.to_owned()));
            }
        }
        Ok(fields)
    }

    /// Which of the credentials that belong into a field the client means.
    fn chosen<'b>(&self, name: &HeaderName, own: &[&'b Bound<'b>]) -> Result<Option<&'b Bound<'b>>, Refusal> {
        let place = Place::Field(name.clone());
        let names: Vec<&str> = own.iter().map(|bound| bound.name).collect();
        let mut meant = None;
        let mut other = false;
        for value in self.parts.headers.get_all(name) {
            match self.credentials.client(value.as_bytes(), &place, self.site.credentials, &names)? {
                Some(found) if meant.is_some_and(|meant| meant != found) => return Err(Refusal::Twice(place)),
                Some(found) => meant = Some(found),
                None => other = true,
            }
        }
        match (own, meant) {
            // There is no doubt about whose value belongs here, whatever the client sent.
            ([only], _) => Ok(Some(only)),
            (_, Some(meant)) => Ok(own.iter().find(|bound| bound.name == meant).copied()),
            (_, None) if other => Err(Refusal::Foreign { place }),
            (_, None) => Ok(None),
        }
    }

    /// Takes a bound field's name out of `Connection`: it must not be stripped on the way.
    fn denominate(&mut self, name: &HeaderName) {
        let nominated = |value: &HeaderValue| {
            let text = value.to_str().unwrap_or("");
            text.split(',').any(|token| token.trim().eq_ignore_ascii_case(name.as_str()))
        };
        if self.parts.headers.get_all(CONNECTION).iter().any(nominated) {
            self.parts.headers.remove(CONNECTION);
        }
    }

    /// The target with values in it. What is not replaced must hold no placeholder.
    fn target(&self) -> Result<(Zeroizing<String>, Zeroizing<String>), Refusal> {
        let path = path::inject(self.credentials, self.parts.uri.path(), self.bound, self.site.credentials)?;
        let query = Zeroizing::new(self.parts.uri.query().unwrap_or("").to_owned());
        let mut done = query.clone();
        for bound in self.bound {
            let Inject::Query { name } = bound.inject else { continue };
            let current = std::mem::take(&mut done);
            let (rest, values) = pairs::take(&current, name);
            for value in values {
                self.credentials.client(&value, &Place::Query, self.site.credentials, &[bound.name])?;
            }
            if pairs::hides(&rest, name) {
                return Err(Refusal::Foreign { place: Place::Query });
            }
            done = pairs::with(&rest, name, bound.value.expose());
        }
        self.check_query(&query)?;
        Ok((path, done))
    }

    /// Looks through the parameters that no credential belongs into.
    fn check_query(&self, query: &str) -> Result<(), Refusal> {
        let mut rest = query.to_owned();
        for bound in self.bound {
            if let Inject::Query { name } = bound.inject {
                rest = pairs::take(&rest, name).0.join("&");
            }
        }
        if self.signs() {
            // The signature's own parameters are checked and replaced when it is made again.
            for name in ["X-Amz-Credential", "X-Amz-Security-Token"] {
                rest = pairs::take(&rest, name).0.join("&");
            }
        }
        self.credentials.client(rest.as_bytes(), &Place::Query, self.site.credentials, &[])?;
        let foreign = |pair: &str| {
            pairs::names(pair).any(|name| {
                let amz = self.signs() && name.starts_with("x-amz-");
                AUTHENTICATING_PARAMETERS.contains(&&*name) && !amz
            })
        };
        match !self.bound.is_empty() && rest.split('&').any(foreign) {
            true => Err(Refusal::Foreign { place: Place::Query }),
            false => Ok(()),
        }
    }

    /// Looks through the fields that no credential belongs into.
    fn check_fields(&self) -> Result<(), Refusal> {
        for (name, value) in &self.parts.headers {
            let place = Place::Field(name.clone());
            if self.signs() && (*name == AUTHORIZATION || name.as_str() == AMZ_TOKEN) {
                continue;
            }
            self.credentials.client(value.as_bytes(), &place, self.site.credentials, &[])?;
            if name.as_str().contains('%') {
                self.credentials.client(name.as_str().as_bytes(), &place, self.site.credentials, &[])?;
            }
            // Many origins take `_` for `-`: X_Api_Key would be a second X-Api-Key.
            let dashed = name.as_str().replace('_', "-");
            let doubles = dashed != name.as_str() && self.bound.iter().any(|bound| field_of(bound) == Some(&dashed));
            if !self.bound.is_empty() && (doubles || AUTHENTICATING.contains(&&*dashed)) {
                return Err(Refusal::Foreign { place });
            }
        }
        Ok(())
    }

    fn put_target(&mut self, path: &str, query: &str) -> Result<(), Refusal> {
        let into_target = |bound: &&Bound<'_>| match bound.inject {
            Inject::Query { .. } => true,
            Inject::Path { .. } => path != self.parts.uri.path(),
            _ => false,
        };
        let put: Vec<String> = self.bound.iter().filter(into_target).map(|b| b.name.to_owned()).collect();
        let Some(first) = put.first() else { return Ok(()) };
        let target = pairs::target(path, query);
        let mut uri = self.parts.uri.clone().into_parts();
        let target = PathAndQuery::from_maybe_shared(wiped::bytes(target)).map_err(|_| invalid(first))?;
        uri.path_and_query = Some(target);
        self.parts.uri = Uri::from_parts(uri).map_err(|_| invalid(first))?;
        self.injected.extend(put);
        Ok(())
    }

    fn signs(&self) -> bool {
        self.bound.iter().any(|bound| bound.aws.is_some())
    }

    /// Signs an AWS request again: the last change of all.
    fn sign(&mut self) -> Result<Option<sigv4::Payload>, Refusal> {
        let mut aws = self.bound.iter().filter_map(|bound| Some((bound, bound.aws.as_ref()?)));
        let Some((bound, (placeholder, keys))) = aws.next() else { return Ok(None) };
        let Inject::Sigv4(scope) = bound.inject else { return Ok(None) };
        let allowed = sigv4::Bound {
            service: scope.service.as_deref(),
            region: scope.region.as_deref(),
            access_key_id: placeholder,
        };
        let payload = sigv4::resign(self.parts, keys.clone(), allowed)?;
        match payload.is_some() {
            true => self.injected.push(bound.name.to_owned()),
            // Anonymous: nothing may stand where a session token would.
            false => {
                self.parts.headers.remove(AMZ_TOKEN);
                let query = self.parts.uri.query().unwrap_or("");
                let claims = |name: &str| !pairs::take(query, name).1.is_empty();
                if claims("X-Amz-Security-Token") || claims("X-Amz-Credential") {
                    return Err(Refusal::Foreign { place: Place::Query });
                }
            }
        }
        Ok(payload)
    }
}

/// The field that a credential belongs into.
fn field_of<'a>(bound: &'a Bound<'_>) -> Option<&'a str> {
    match bound.inject {
        Inject::Header { name, .. } => Some(name),
        Inject::Basic { .. } => Some(AUTHORIZATION.as_str()),
        _ => None,
    }
}

/// What is written there.
fn text_of(bound: &Bound<'_>) -> Zeroizing<String> {
    let value = bound.value.expose();
    let joined = |parts: [&str; 3]| {
        let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|p| p.len()).sum()));
        parts.iter().for_each(|part| text.push_str(part));
        text
    };
    match bound.inject {
        Inject::Header { before, after, .. } => joined([before, value, after]),
        Inject::Basic { user } => {
            let pair = joined([user, ":", value]);
            let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
            joined(["Basic ", &encoded, ""])
        }
        _ => Zeroizing::default(),
    }
}

fn invalid(credential: &str) -> Refusal {
    Refusal::Invalid { credential: credential.to_owned(), why: crate::refusal::Invalid::Characters }
}

/// What is compressed cannot be searched; on an endpoint with credentials it does not go on.
fn refuse_coded(fields: &HeaderMap) -> Result<(), Refusal> {
    for field in fields.get_all(CONTENT_ENCODING) {
        let codings = field.to_str().unwrap_or("?").split(',').map(str::trim);
        if let Some(coding) = codings.into_iter().find(|coding| !plain(coding)) {
            return Err(Refusal::Coded(coding.chars().take(32).collect()));
        }
    }
    Ok(())
}
