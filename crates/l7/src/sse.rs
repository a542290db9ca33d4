//! Server-sent events, as the HTML standard reads them: the events of a stream, however its bytes are cut.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// Its type; empty means `message`.
    pub kind: String,
    /// Its data, lines joined with line feeds. What is not UTF-8 is replaced, as the standard says.
    pub data: String,
}

/// An event, or a line, larger than what is read. The stream itself is not malformed: nothing is, to the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("an event of the stream is larger than what is read")]
pub struct TooLarge;

/// Splits a stream into events.
#[derive(Debug)]
pub struct Events {
    max: usize,
    /// The present line, as far as it came.
    line: Vec<u8>,
    /// Whether the last line ended with a carriage return, to which a line feed may belong.
    returned: bool,
    begun: bool,
    kind: String,
    data: Option<String>,
}

impl Events {
    /// Nothing read yet. An event may have `max` bytes of data, and a line too.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, line: Vec::new(), returned: false, begun: false, kind: String::new(), data: None }
    }

    /// Takes bytes off the front of `input` until an event is complete; `None` when more bytes are needed, and then
    /// `input` is empty. An event that the end of the stream cuts off does not count.
    ///
    /// # Errors
    /// [`TooLarge`]; nothing more can be read then.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, TooLarge> {
        while let Some((&byte, rest)) = input.split_first() {
            if std::mem::take(&mut self.returned) && byte == b'\n' {
                *input = rest;
                continue;
            }
            let end = input.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let (part, rest) = input.split_at(end.unwrap_or(input.len()));
            if self.line.len() + part.len() > self.max {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(part);
            let Some((&ending, rest)) = rest.split_first() else {
                *input = rest;
                return Ok(None);
            };
            *input = rest;
            self.returned = ending == b'\r';
            if let Some(event) = self.line()? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The present line is complete.
    fn line(&mut self) -> Result<Option<Event>, TooLarge> {
        let bytes = std::mem::take(&mut self.line);
        let bytes = if self.begun { &bytes[..] } else { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) };
        self.begun = true;
        let line = String::from_utf8_lossy(bytes);
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            return Ok(self.data.take().map(|data| Event { kind, data }));
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                let held = self.data.as_ref().map_or(0, |data| data.len() + 1);
                if held + value.len() > self.max {
                    return Err(TooLarge);
                }
                match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                }
            }
            // Comments, ids, times to wait, and what the standard does not know.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(max: usize, pieces: &[&[u8]]) -> Result<Vec<(String, String)>, TooLarge> {
        let mut events = Events::new(max);
        let mut read = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(event) = events.next(&mut input)? {
                read.push((event.kind, event.data));
            }
            assert!(input.is_empty());
        }
        Ok(read)
    }

    fn read(text: &[u8]) -> Vec<(String, String)> {
        let whole = pieces(100, &[text]).unwrap();
        for at in 0..=text.len() {
            let (head, tail) = text.split_at(at);
            assert_eq!(pieces(100, &[head, tail]).as_ref(), Ok(&whole), "cut at {at}");
        }
        assert_eq!(pieces(100, &text.chunks(1).collect::<Vec<_>>()).as_ref(), Ok(&whole));
        whole
    }

    fn event(kind: &str, data: &str) -> (String, String) {
        (kind.into(), data.into())
    }

    #[test]
    fn streams() {
        for (text, want) in [
            (&b""[..], vec![]),
            (b"data: a\n\n", vec![event("", "a")]),
            (b"data: a", vec![]),
            (b"data: a\n", vec![]),
            (b"data:a\r\rdata:  b\r\n\r\n", vec![event("", "a"), event("", " b")]),
            (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", vec![event("", "a")]),
            (b": keep-alive\n\nevent: message\nid: 1\nretry: 5\ndata: {\ndata: }\n\n", vec![event("message", "{\n}")]),
            (b"data\n\ndata\ndata\n\n", vec![event("", ""), event("", "\n")]),
            (b"event: x\n\ndata: y\n\n", vec![event("", "y")]),
            (b"Data: a\n data: b\ndatax: c\n\n", vec![]),
            (b"data: \xff\n\n", vec![event("", "\u{fffd}")]),
            (b"data: a\n\r\n\n\n", vec![event("", "a")]),
        ] {
            assert_eq!(read(text), want, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn lines_and_events_are_bounded() {
        assert!(pieces(10, &[b"data: abcd\n\n"]).is_ok());
        assert_eq!(pieces(10, &[b"data: abcde"]), Err(TooLarge));
        assert_eq!(pieces(10, &[b":", b"aaaaaaaaaa"]), Err(TooLarge));
        assert!(pieces(10, &[b"data:aaaaa\ndata:bbbb\n\n"]).is_ok());
        assert_eq!(pieces(10, &[b"data:aaaaa\ndata:bbbbb\n\n"]), Err(TooLarge));
    }
}
