//! gRPC: the path says it all, so the body streams.

use crate::{
    operation::Operation,
    protocol::{Head, Reading, Unreadable},
};

/// Longest service or method name.
const MAX_NAME: usize = 256;

pub(crate) fn reading(head: &Head<'_>) -> Result<Reading, Unreadable> {
    if head.method != "POST" {
        return Err(Unreadable::Method);
    }
    let media_type = head.media_type()?;
    let ours = ["application/grpc", "application/grpc-web", "application/grpc-web-text"]
        .into_iter()
        .any(|own| media_type.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('+')));
    if !ours {
        return Err(Unreadable::ContentType);
    }
    if !head.query.is_empty() {
        return Err(Unreadable::Query);
    }
    let (service, method) =
        head.path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or(Unreadable::Path)?;
    if !service.split('.').all(identifier) || !identifier(method) || service.len() > MAX_NAME {
        return Err(Unreadable::Path);
    }
    Ok(Reading::Decided(vec![Operation::Grpc { service: service.into(), method: method.into() }]))
}

/// An identifier of Protocol Buffers.
fn identifier(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::Request;

    fn read(method: &str, target: &str, content_type: &str) -> Result<Vec<Operation>, Unreadable> {
        let request = Request::new(method, target).field("content-type", content_type);
        match reading(&request.head())? {
            Reading::Decided(operations) => Ok(operations),
            Reading::Body(_) => panic!("the body of a call is not read"),
        }
    }

    #[test]
    fn a_call_is_its_path() {
        for content_type in
            ["application/grpc", "application/grpc+proto", "Application/gRPC+JSON", "application/grpc-web-text+proto"]
        {
            assert_eq!(
                read("POST", "/helloworld.v1.Greeter/SayHello", content_type),
                Ok(vec![Operation::Grpc { service: "helloworld.v1.Greeter".into(), method: "SayHello".into() }])
            );
        }
        assert!(read("POST", "/Greeter/SayHello", "application/grpc").is_ok());
    }

    #[test]
    fn anything_else_is_unreadable() {
        const GRPC: &str = "application/grpc";
        for (method, path, content_type, want) in [
            ("GET", "/a.B/C", GRPC, Unreadable::Method),
            ("POST", "/a.B/C", "application/json", Unreadable::ContentType),
            ("POST", "/a.B/C", "application/grpcx", Unreadable::ContentType),
            ("POST", "/a.B/C", "application/grpc, text/plain", Unreadable::ContentType),
            ("POST", "/a.B/C?x=1", GRPC, Unreadable::Query),
            ("POST", "/", GRPC, Unreadable::Path),
            ("POST", "/a.B", GRPC, Unreadable::Path),
            ("POST", "/a.B/", GRPC, Unreadable::Path),
            ("POST", "/a.B/C/D", GRPC, Unreadable::Path),
            ("POST", "/api/a.B/C", GRPC, Unreadable::Path),
            ("POST", "/a..B/C", GRPC, Unreadable::Path),
            ("POST", "/.B/C", GRPC, Unreadable::Path),
            ("POST", "/a.B/C.D", GRPC, Unreadable::Path),
            ("POST", "/a.B/C%20", GRPC, Unreadable::Path),
            ("POST", "/a.1B/C", GRPC, Unreadable::Path),
            ("POST", "/a.B/Cé", GRPC, Unreadable::Path),
        ] {
            assert_eq!(read(method, path, content_type), Err(want), "{method} {path} {content_type}");
        }
    }
}
