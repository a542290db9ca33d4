//! The handshake of WebSocket over HTTP/1.1.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// What the server appends to the key (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a handshake fails. The texts repeat no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeError {
    /// Not a `GET` with `Connection: upgrade` and `Upgrade: websocket` alone.
    #[error("not a request for a WebSocket connection")]
    Request,
    /// A version other than 13.
    #[error("the WebSocket version is not 13")]
    Version,
    /// Absent, repeated, or not 16 bytes in base64.
    #[error("the WebSocket key is not 16 bytes in base64")]
    Key,
    /// Not a 101 with `Connection: upgrade` and `Upgrade: websocket`.
    #[error("the server does not switch to WebSocket")]
    Response,
    /// The answer belongs to another key.
    #[error("the server did not answer the key that was sent")]
    Accept,
    /// An extension, although none was offered.
    #[error("the server chose an extension that was not offered")]
    Extension,
    /// A subprotocol that was not offered, or several.
    #[error("the server chose a subprotocol that was not offered")]
    Subprotocol,
}

/// A request for a WebSocket connection, by which the answer is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    accept: String,
    subprotocols: Vec<String>,
}

impl Handshake {
    /// Reads a request. Field names are in lower case, repeated fields repeated.
    ///
    /// # Errors
    /// See [`HandshakeError`].
    pub fn request(method: &str, fields: &[(String, String)]) -> Result<Self, HandshakeError> {
        if method != "GET" || !upgrades(fields) {
            return Err(HandshakeError::Request);
        }
        if one(fields, "sec-websocket-version") != Some("13") {
            return Err(HandshakeError::Version);
        }
        let key = one(fields, "sec-websocket-key").ok_or(HandshakeError::Key)?;
        if STANDARD.decode(key).map_err(|_| HandshakeError::Key)?.len() != 16 {
            return Err(HandshakeError::Key);
        }
        let subprotocols = list(fields, "sec-websocket-protocol").map(str::to_owned).collect();
        Ok(Self { accept: accept(key), subprotocols })
    }

    /// What `Sec-WebSocket-Accept` must be.
    #[must_use]
    pub fn accept(&self) -> &str {
        &self.accept
    }

    /// Subprotocols that the client offers, in order.
    #[must_use]
    pub fn subprotocols(&self) -> &[String] {
        &self.subprotocols
    }

    /// Checks the answer.
    ///
    /// # Errors
    /// See [`HandshakeError`]; nothing may be relayed then.
    pub fn response(&self, status: u16, fields: &[(String, String)]) -> Result<(), HandshakeError> {
        if status != 101 || !upgrades(fields) {
            return Err(HandshakeError::Response);
        }
        if one(fields, "sec-websocket-accept") != Some(&self.accept) {
            return Err(HandshakeError::Accept);
        }
        if list(fields, super::EXTENSIONS).next().is_some() {
            return Err(HandshakeError::Extension);
        }
        let mut chosen = list(fields, "sec-websocket-protocol");
        match (chosen.next(), chosen.next()) {
            (None, _) => Ok(()),
            (Some(one), None) if self.subprotocols.iter().any(|own| own == one) => Ok(()),
            (Some(_), _) => Err(HandshakeError::Subprotocol),
        }
    }
}

/// A value for `Sec-WebSocket-Key`, of random bytes.
#[must_use]
pub fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Whether the fields switch to WebSocket and to nothing else.
fn upgrades(fields: &[(String, String)]) -> bool {
    let connection = list(fields, "connection").any(|option| option.eq_ignore_ascii_case("upgrade"));
    let mut protocols = list(fields, "upgrade");
    let websocket = protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    connection && websocket && protocols.next().is_none()
}

fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The value of a field that occurs once.
fn one<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    let mut values = fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.trim());
    values.next().filter(|_| values.next().is_none())
}

/// The members of a field that is a list.
fn list<'f>(fields: &'f [(String, String)], name: &str) -> impl Iterator<Item = &'f str> {
    let values = fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    const REQUEST: [(&str, &str); 5] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "chat, superchat"),
    ];
    const RESPONSE: [(&str, &str); 3] =
        [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")];

    fn with(pairs: &[(&str, &str)], name: &str, value: Option<&str>) -> Vec<(String, String)> {
        let mut fields = fields(pairs);
        fields.retain(|(n, _)| n != name);
        fields.extend(value.map(|v| (name.to_owned(), v.to_owned())));
        fields
    }

    #[test]
    fn the_example_of_the_rfc() {
        let handshake = Handshake::request("GET", &fields(&REQUEST)).unwrap();
        assert_eq!(handshake.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(handshake.subprotocols(), ["chat", "superchat"]);
        assert_eq!(handshake.response(101, &fields(&RESPONSE)), Ok(()));
        let chosen = |p| handshake.response(101, &with(&RESPONSE, "sec-websocket-protocol", Some(p)));
        assert_eq!(chosen("superchat"), Ok(()));
        assert_eq!(chosen("other"), Err(HandshakeError::Subprotocol));
        assert_eq!(chosen("chat, superchat"), Err(HandshakeError::Subprotocol));
    }

    #[test]
    fn requests_that_are_no_handshake() {
        assert_eq!(Handshake::request("POST", &fields(&REQUEST)), Err(HandshakeError::Request));
        for (name, value, want) in [
            ("connection", None, HandshakeError::Request),
            ("connection", Some("close"), HandshakeError::Request),
            ("upgrade", None, HandshakeError::Request),
            ("upgrade", Some("h2c, websocket"), HandshakeError::Request),
            ("upgrade", Some("websocket, h2c"), HandshakeError::Request),
            ("sec-websocket-version", Some("8"), HandshakeError::Version),
            ("sec-websocket-version", None, HandshakeError::Version),
            ("sec-websocket-key", None, HandshakeError::Key),
            ("sec-websocket-key", Some("c2hvcnQ="), HandshakeError::Key),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ"), HandshakeError::Key),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZR=="), HandshakeError::Key),
        ] {
            assert_eq!(Handshake::request("GET", &with(&REQUEST, name, value)), Err(want), "{name} {value:?}");
        }
        let mut twice = fields(&REQUEST);
        twice.push(("sec-websocket-key".into(), "dGhlIHNhbXBsZSBub25jZQ==".into()));
        assert_eq!(Handshake::request("GET", &twice), Err(HandshakeError::Key));
    }

    #[test]
    fn answers_that_do_not_switch() {
        let handshake = Handshake::request("GET", &fields(&REQUEST)).unwrap();
        for status in [200, 403, 102] {
            assert_eq!(handshake.response(status, &fields(&RESPONSE)), Err(HandshakeError::Response));
        }
        for (name, value, want) in [
            ("connection", None, HandshakeError::Response),
            ("upgrade", Some("h2c"), HandshakeError::Response),
            ("sec-websocket-accept", None, HandshakeError::Accept),
            ("sec-websocket-accept", Some("S3pPLMBiTxaQ9kYGzzhZRbK+xOo="), HandshakeError::Accept),
            ("sec-websocket-extensions", Some("permessage-deflate"), HandshakeError::Extension),
        ] {
            assert_eq!(handshake.response(101, &with(&RESPONSE, name, value)), Err(want), "{name} {value:?}");
        }
    }
}
