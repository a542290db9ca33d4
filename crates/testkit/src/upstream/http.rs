//! An HTTP/1.1 origin that records the requests as they arrived, byte for byte.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::ToSocketAddrs,
    sync::{Arc, Mutex},
};

use super::{Counters, Tcp, tcp::Counted};

/// One request as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method, target and version.
    pub line: String,
    /// Header names in lower case and values, in order.
    pub headers: Vec<(String, String)>,
    /// Body, with chunked framing removed.
    pub body: Vec<u8>,
    /// Which connection, counted from 0.
    pub connection: u64,
}

impl Request {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// What the origin sends back.
#[derive(Debug, Clone)]
pub enum Response {
    /// Status and body, framed by Content-Length.
    Whole(u16, Vec<u8>),
    /// These bytes exactly, then close: for hostile origins.
    Raw(Vec<u8>),
}

impl Response {
    /// 200 with this text.
    #[must_use]
    pub fn ok(text: &str) -> Self {
        Self::Whole(200, text.as_bytes().to_vec())
    }
}

/// An HTTP origin.
#[derive(Debug)]
pub struct Http {
    tcp: Tcp,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Http {
    /// Answers every request with 200 and `hello from upstream`.
    pub fn hello(addr: impl ToSocketAddrs) -> Self {
        Self::start(addr, |_| Response::ok("hello from upstream\n"))
    }

    /// Answers with what `respond` says.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn start(addr: impl ToSocketAddrs, respond: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let seen = Arc::clone(&requests);
        let connections = std::sync::atomic::AtomicU64::new(0);
        let tcp = Tcp::serve(addr, move |stream| {
            let connection = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut stream = BufReader::new(stream);
            while let Some(request) = read(&mut stream, connection)? {
                let response = respond(&request);
                seen.lock().unwrap().push(request);
                if !write(stream.get_mut(), response)? {
                    return Ok(());
                }
            }
            Ok(())
        });
        Self { tcp, requests }
    }

    /// What reached it, as bytes and connections.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.tcp.counters
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> std::net::SocketAddr {
        self.tcp.addr
    }

    /// The requests so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads one request; `None` at the end of the connection.
fn read(stream: &mut BufReader<Counted>, connection: u64) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        match header.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut request = Request { line: line.trim_end().to_owned(), headers, body: Vec::new(), connection };
    if request.header("transfer-encoding") == Some("chunked") {
        request.body = read_chunks(stream)?;
    } else if let Some(length) = request.header("content-length").and_then(|v| v.parse().ok()) {
        stream.take(length).read_to_end(&mut request.body)?;
    }
    Ok(Some(request))
}

fn read_chunks(stream: &mut BufReader<Counted>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
        stream.by_ref().take(size).read_to_end(&mut body)?;
        stream.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Whether the connection goes on.
fn write(stream: &mut Counted, response: Response) -> io::Result<bool> {
    match response {
        Response::Whole(status, body) => {
            let head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat())?;
            Ok(true)
        }
        Response::Raw(bytes) => {
            stream.write_all(&bytes)?;
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn requests_on_one_connection_are_recorded_and_answered() {
        let server = Http::hello("127.0.0.1:0");
        let mut client = TcpStream::connect(server.addr()).unwrap();
        client
            .write_all(
                b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
                  POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                  PUT /c HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
            )
            .unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let text = io::read_to_string(client).unwrap();
        assert_eq!(text.matches("200 Test").count(), 3, "{text}");
        let seen = server.requests();
        assert_eq!(seen.iter().map(Request::target).collect::<Vec<_>>(), ["/a", "/b", "/c"]);
        assert_eq!((&seen[1].body[..], &seen[2].body[..]), (&b"abc"[..], &b"hi"[..]));
        assert_eq!(seen[0].header("host"), Some("x"));
    }

    #[test]
    fn a_raw_response_is_sent_as_it_is() {
        let server = Http::start("127.0.0.1:0", |_| Response::Raw(b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n".to_vec()));
        let mut client = TcpStream::connect(server.addr()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(io::read_to_string(client).unwrap(), "HTTP/1.1 200 OK\r\nBad Header\r\n\r\n");
    }
}
