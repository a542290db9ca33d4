//! The body of a ClientHello.

use stockade_types::{AuthorityError, HostName};

use super::{Hello, Invalid, ServerName};

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// encrypted_client_hello, its drafts 8 to 10, and encrypted_server_name before it.
const ECH: [u16; 5] = [0xfe0d, 0xfe08, 0xfe09, 0xfe0a, 0xffce];
/// Most extensions read; clients send about twenty.
const MAX_EXTENSIONS: usize = 256;

/// Bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Invalid> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Invalid::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Invalid> {
        self.take(1).map(|b| b.iter().fold(0, |_, &b| b))
    }

    fn u16(&mut self) -> Result<u16, Invalid> {
        self.take(2).map(|b| b.iter().fold(0, |n, &b| n << 8 | u16::from(b)))
    }

    /// A vector with a length of one byte.
    fn short(&mut self) -> Result<&'a [u8], Invalid> {
        let n = self.u8()?;
        self.take(n.into())
    }

    /// A vector with a length of two bytes.
    fn long(&mut self) -> Result<&'a [u8], Invalid> {
        let n = self.u16()?;
        self.take(n.into())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    fn end(&self) -> Result<(), Invalid> {
        if self.is_empty() { Ok(()) } else { Err(Invalid::Malformed) }
    }
}

/// Parses the whole body; every byte must belong to something.
pub(super) fn hello(body: &[u8]) -> Result<Hello, Invalid> {
    let mut r = Reader(body);
    // legacy_version and random.
    r.take(2 + 32)?;
    let session = r.short()?;
    let suites = r.long()?;
    let compression = r.short()?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compression.is_empty() {
        return Err(Invalid::Malformed);
    }
    let mut hello = Hello { server_name: None, alpn: Vec::new(), ech: false };
    if r.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Reader(r.long()?);
    r.end()?;
    let mut seen: Vec<u16> = Vec::new();
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.long()?;
        if seen.contains(&kind) {
            return Err(Invalid::Duplicate);
        }
        if seen.len() == MAX_EXTENSIONS {
            return Err(Invalid::TooLong);
        }
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ALPN => hello.alpn = alpn(data)?,
            kind if ECH.contains(&kind) => hello.ech = true,
            _ => {}
        }
    }
    Ok(hello)
}

fn server_name(data: &[u8]) -> Result<ServerName, Invalid> {
    let mut r = Reader(data);
    let mut list = Reader(r.long()?);
    r.end()?;
    if list.is_empty() || list.u8()? != 0 {
        return Err(Invalid::NotOneName);
    }
    let name = list.long()?;
    if !list.is_empty() {
        return Err(Invalid::NotOneName);
    }
    // RFC 6066: no trailing dot. A server may take it for another name than the one without.
    let parsed = match std::str::from_utf8(name) {
        Ok(text) if text.ends_with('.') => Err(AuthorityError::BadLabel),
        Ok(text) => HostName::parse(text),
        Err(_) => Err(AuthorityError::BadCharacter),
    };
    Ok(parsed.map_or_else(ServerName::Malformed, ServerName::Name))
}

fn alpn(data: &[u8]) -> Result<Vec<Vec<u8>>, Invalid> {
    let mut r = Reader(data);
    let mut list = Reader(r.long()?);
    r.end()?;
    let mut out = Vec::new();
    while !list.is_empty() {
        let name = list.short()?;
        if name.is_empty() {
            return Err(Invalid::Malformed);
        }
        out.push(name.to_vec());
    }
    if out.is_empty() { Err(Invalid::Malformed) } else { Ok(out) }
}
