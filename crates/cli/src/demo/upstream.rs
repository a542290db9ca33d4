//! The demo's upstream: an HTTP server on an inherited socket.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::fd::AsFd,
};

use crate::Failure;

const BODY: &str = "hello from the allowed upstream\n";

/// Answers every request the same way until it is killed.
pub(super) fn run() -> Result<u8, Failure> {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}", BODY.len())?;
    }
    Ok(0)
}
