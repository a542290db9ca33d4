//! The tokens of a GraphQL document (specification of October 2021, section 2.1).
//!
//! Where lexers in use disagree about where a comment or string ends, the document is refused: text that one of them
//! takes for a comment is a mutation to another.

use crate::protocol::Unreadable;

/// Most tokens of a document.
pub(super) const MAX_TOKENS: usize = 16_384;

/// A token. What a number or string holds is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// One of `! $ & ( ) : = @ [ ] { | }`.
    Mark(char),
    /// `...`
    Spread,
    Name(&'a str),
    Number,
    Text,
    End,
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    tokens: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, tokens: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, Unreadable> {
        self.ignored()?;
        self.tokens += 1;
        if self.tokens > MAX_TOKENS {
            return Err(Unreadable::TooMany);
        }
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        match first {
            '!' | '$' | '&' | '(' | ')' | ':' | '=' | '@' | '[' | ']' | '{' | '|' | '}' => {
                self.skip(1);
                Ok(Token::Mark(first))
            }
            '.' if self.rest.starts_with("...") => {
                self.skip(3);
                Ok(Token::Spread)
            }
            '_' | 'a'..='z' | 'A'..='Z' => {
                let end = self.rest.find(|c: char| !name(c)).unwrap_or(self.rest.len());
                let (name, rest) = self.rest.split_at(end);
                self.rest = rest;
                Ok(Token::Name(name))
            }
            '-' | '0'..='9' => self.number(),
            '"' if self.rest.starts_with("\"\"\"") => self.block(),
            '"' => self.string(),
            _ => Err(Unreadable::Syntax),
        }
    }

    /// Forgets `bytes` bytes, which are known to be there and to end at a character.
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// White space, line ends, commas and comments.
    fn ignored(&mut self) -> Result<(), Unreadable> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', ',']);
            if !self.rest.starts_with('#') {
                return Ok(());
            }
            // Characters that end a line for some are refused, a carriage return alone among them.
            let end = self.rest.find(|c: char| (c != '\t' && c.is_control()) || matches!(c, '\u{2028}' | '\u{2029}'));
            let (comment, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            if !(rest.is_empty() || rest.starts_with('\n') || rest.starts_with("\r\n")) || comment.contains('\u{feff}')
            {
                return Err(Unreadable::Syntax);
            }
            self.rest = rest;
        }
    }

    fn number(&mut self) -> Result<Token<'a>, Unreadable> {
        self.take('-');
        let zero = self.rest.starts_with('0');
        let digits = self.digits();
        if digits == 0 || (zero && digits > 1) || (self.take('.') && self.digits() == 0) {
            return Err(Unreadable::Syntax);
        }
        if self.take('e') || self.take('E') {
            if !self.take('+') {
                self.take('-');
            }
            if self.digits() == 0 {
                return Err(Unreadable::Syntax);
            }
        }
        let torn = self.rest.starts_with(|c: char| c == '.' || name(c));
        if torn { Err(Unreadable::Syntax) } else { Ok(Token::Number) }
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.rest.starts_with(c);
        if found {
            self.skip(c.len_utf8());
        }
        found
    }

    fn digits(&mut self) -> usize {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        self.skip(digits);
        digits
    }

    fn string(&mut self) -> Result<Token<'a>, Unreadable> {
        self.skip(1);
        loop {
            let special = |c: char| c == '"' || c == '\\' || (c != '\t' && c.is_control());
            self.skip(self.rest.find(special).ok_or(Unreadable::Syntax)?);
            if self.take('"') {
                return Ok(Token::Text);
            }
            if !self.take('\\') {
                return Err(Unreadable::Syntax);
            }
            self.escape()?;
        }
    }

    /// What follows a backslash in a string.
    fn escape(&mut self) -> Result<(), Unreadable> {
        if !self.take('u') {
            let known = self.rest.starts_with(['"', '\\', '/', 'b', 'f', 'n', 'r', 't']);
            self.skip(1);
            return if known { Ok(()) } else { Err(Unreadable::Syntax) };
        }
        let braced = self.take('{');
        let digits = self.rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if braced {
            self.skip(digits);
            return if digits > 0 && self.take('}') { Ok(()) } else { Err(Unreadable::Syntax) };
        }
        self.skip(4);
        if digits >= 4 { Ok(()) } else { Err(Unreadable::Syntax) }
    }

    fn block(&mut self) -> Result<Token<'a>, Unreadable> {
        self.skip(3);
        loop {
            self.skip(self.rest.find(['"', '\\']).ok_or(Unreadable::Syntax)?);
            if self.rest.starts_with("\\\"\"\"") {
                self.skip(4);
            } else if self.rest.starts_with("\"\"\"") {
                self.skip(3);
                // Four quotes, or a backslash before an escaped end: not every lexer ends here.
                return if self.rest.starts_with('"') { Err(Unreadable::Syntax) } else { Ok(Token::Text) };
            } else if self.rest.starts_with("\\\\\"\"\"") || self.rest.starts_with("\\\\\\") {
                return Err(Unreadable::Syntax);
            } else {
                self.skip(1);
            }
        }
    }
}

fn name(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}
