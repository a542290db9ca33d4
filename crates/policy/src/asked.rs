//! A request as a person writes it, for `explain`.

use stockade_l7::{
    Head, MethodError, Reading, Slashes, Target, TargetError, Unreadable,
    protocol::{self, Kind},
};

use crate::decision::{Protocol, Request};

/// Why no rule would ever see such a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The method is refused.
    #[error("{0}; such a request is refused before any rule is asked")]
    Method(#[from] MethodError),
    /// The target has no canonical form.
    #[error("{0}; such a request is refused before any rule is asked")]
    Target(#[from] TargetError),
    /// Not a header field.
    #[error("a header field is written NAME: VALUE")]
    Header,
}

impl Request {
    /// A request without a body, from its method, target (`/path?query`) and header lines.
    ///
    /// # Errors
    /// What the door would refuse, and header lines without a name.
    pub fn parse(method: &str, target: &str, headers: &[String]) -> Result<Self, RequestError> {
        let method = stockade_l7::http::method(method)?;
        let target = match target {
            "*" => Target::asterisk(),
            _ => Target::parse(target, Slashes::Encoded)?,
        };
        let field = |line: &String| match line.split_once(':') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            }
            _ => Err(RequestError::Header),
        };
        Ok(Self {
            method: method.to_owned(),
            path: target.path().to_owned(),
            query: target.pairs().to_vec(),
            headers: headers.iter().map(field).collect::<Result<_, _>>()?,
            operations: Vec::new(),
        })
    }

    /// Reads what the request asks for, as the door does for an endpoint of the protocol.
    ///
    /// # Errors
    /// Why it cannot be read; the door denies it then.
    pub fn read(&mut self, protocol: Protocol, body: &[u8]) -> Result<(), Unreadable> {
        let kind = match protocol {
            Protocol::Http | Protocol::Tcp => return Ok(()),
            Protocol::Grpc => Kind::Grpc,
            Protocol::Graphql => Kind::GraphQl,
            Protocol::JsonRpc => Kind::JsonRpc,
            Protocol::Mcp => Kind::Mcp,
        };
        let head = Head {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            fields: &self.headers,
            max_body: protocol::MAX_BODY,
        };
        self.operations = match protocol::reader(kind, &head)? {
            Reading::Decided(operations) => operations,
            Reading::Body(mut reader) => {
                reader.feed(body)?;
                reader.finish()?
            }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let json = ["content-type: application/json".to_owned()];
        let mut call = Request::parse("POST", "/", &json).unwrap();
        call.read(Protocol::JsonRpc, br#"{"jsonrpc": "2.0", "id": 1, "method": "eth_call"}"#).unwrap();
        let want = stockade_l7::Operation::JsonRpc { method: "eth_call".to_owned(), notification: false };
        assert_eq!(call.operations, [want]);
        assert!(call.clone().read(Protocol::JsonRpc, b"{").is_err());
        let mut plain = Request::parse("POST", "/", &[]).unwrap();
        assert_eq!((plain.read(Protocol::Http, b"{"), plain.operations.len()), (Ok(()), 0));
    }

    #[test]
    fn requests() {
        let parsed = Request::parse("GET", "/a/../b%41?k=v", &["Accept:  text/html".to_owned()]).unwrap();
        assert_eq!((parsed.path.as_str(), parsed.query.len()), ("/bA", 1));
        assert_eq!(parsed.headers, [("accept".to_owned(), "text/html".to_owned())]);
        assert_eq!(Request::parse("OPTIONS", "*", &[]).unwrap().path, "*");
        for (method, target, headers) in
            [("get", "/", vec![]), ("GET", "/a%2", vec![]), ("GET", "x", vec![]), ("GET", "/", vec![":x".to_owned()])]
        {
            assert!(Request::parse(method, target, &headers).is_err(), "{method} {target} {headers:?}");
        }
    }
}
