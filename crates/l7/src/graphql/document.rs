//! The grammar of executable documents, as far as rules need it: every token is checked, selections of the root are kept.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Lexer, Token};
use crate::{
    operation::{GraphQl, GraphQlKind},
    protocol::Unreadable,
};

/// Deepest nesting of selections, values, types and fragments.
pub(super) const MAX_DEPTH: usize = 64;
/// Most fields of the root that one operation selects.
pub(super) const MAX_FIELDS: usize = 256;
/// Longest name of an operation or field.
pub(super) const MAX_NAME: usize = 256;

/// Reads a document; the operation of that name, or the only one.
pub(super) fn operation(text: &str, name: Option<&str>) -> Result<GraphQl, Unreadable> {
    let document = Parser::parse(text)?;
    let found = match (name, document.operations.as_slice()) {
        // Servers take an empty name for none.
        (None | Some(""), [only]) => only,
        (None | Some(""), _) => return Err(Unreadable::OperationName),
        (name, all) => all.iter().find(|o| o.name == name).ok_or(Unreadable::OperationName)?,
    };
    let mut roots = Roots {
        fragments: &document.fragments,
        within: Vec::new(),
        done: BTreeSet::new(),
        fields: Vec::new(),
        seen: BTreeSet::new(),
    };
    roots.add(&found.selections)?;
    Ok(GraphQl {
        kind: found.kind,
        name: found.name.map(str::to_owned),
        fields: roots.fields.into_iter().map(str::to_owned).collect(),
    })
}

/// Collects the fields of the root.
struct Roots<'d, 'a> {
    fragments: &'d BTreeMap<&'a str, Vec<Selection<'a>>>,
    /// Fragments around the present one.
    within: Vec<&'a str>,
    done: BTreeSet<&'a str>,
    fields: Vec<&'a str>,
    seen: BTreeSet<&'a str>,
}

impl<'a> Roots<'_, 'a> {
    fn add(&mut self, selections: &[Selection<'a>]) -> Result<(), Unreadable> {
        for selection in selections {
            match *selection {
                Selection::Field(field) => self.field(field)?,
                Selection::Fragment(name) if self.within.contains(&name) => return Err(Unreadable::Fragment),
                Selection::Fragment(name) => {
                    let inside = self.fragments.get(name).ok_or(Unreadable::Fragment)?;
                    if !self.done.insert(name) {
                        continue;
                    }
                    self.within.push(name);
                    if self.within.len() > MAX_DEPTH {
                        return Err(Unreadable::TooDeep);
                    }
                    self.add(inside)?;
                    self.within.pop();
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &'a str) -> Result<(), Unreadable> {
        if !self.seen.insert(field) {
            return Ok(());
        }
        if self.fields.len() >= MAX_FIELDS {
            return Err(Unreadable::TooMany);
        }
        self.fields.push(field);
        Ok(())
    }
}

#[derive(Default)]
struct Document<'a> {
    operations: Vec<Definition<'a>>,
    fragments: BTreeMap<&'a str, Vec<Selection<'a>>>,
}

struct Definition<'a> {
    kind: GraphQlKind,
    name: Option<&'a str>,
    selections: Vec<Selection<'a>>,
}

/// What a selection set selects; inline fragments are dissolved.
#[derive(Clone, Copy)]
enum Selection<'a> {
    /// By its real name.
    Field(&'a str),
    Fragment(&'a str),
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn parse(text: &'a str) -> Result<Document<'a>, Unreadable> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next()?;
        let mut parser = Self { lexer, token, depth: 0 };
        let mut document = Document::default();
        while parser.token != Token::End {
            parser.definition(&mut document)?;
        }
        let names: BTreeSet<_> = document.operations.iter().map(|o| o.name).collect();
        let count = document.operations.len();
        // Names must be unique, and an operation without one alone.
        if names.len() < count || (count > 1 && names.contains(&None)) {
            return Err(Unreadable::OperationName);
        }
        Ok(document)
    }

    /// The present token, behind which it moves.
    fn next(&mut self) -> Result<Token<'a>, Unreadable> {
        Ok(std::mem::replace(&mut self.token, self.lexer.next()?))
    }

    /// Moves behind the mark if it is next.
    fn take(&mut self, mark: char) -> Result<bool, Unreadable> {
        let found = self.token == Token::Mark(mark);
        if found {
            self.next()?;
        }
        Ok(found)
    }

    fn mark(&mut self, mark: char) -> Result<(), Unreadable> {
        if self.take(mark)? { Ok(()) } else { Err(Unreadable::Syntax) }
    }

    fn name(&mut self) -> Result<&'a str, Unreadable> {
        match self.next()? {
            Token::Name(name) if name.len() <= MAX_NAME => Ok(name),
            Token::Name(_) => Err(Unreadable::Name),
            _ => Err(Unreadable::Syntax),
        }
    }

    /// Runs a rule one level deeper.
    fn deeper<T>(&mut self, rule: impl FnOnce(&mut Self) -> Result<T, Unreadable>) -> Result<T, Unreadable> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unreadable::TooDeep);
        }
        let value = rule(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn definition(&mut self, document: &mut Document<'a>) -> Result<(), Unreadable> {
        let mut selections = Vec::new();
        if self.token == Token::Mark('{') {
            self.selections(&mut selections)?;
            document.operations.push(Definition { kind: GraphQlKind::Query, name: None, selections });
            return Ok(());
        }
        let word = self.name()?;
        if word == "fragment" {
            let name = self.name()?;
            if name == "on" || self.name()? != "on" {
                return Err(Unreadable::Syntax);
            }
            self.name()?;
            self.directives()?;
            self.selections(&mut selections)?;
            let twice = document.fragments.insert(name, selections).is_some();
            return if twice { Err(Unreadable::Fragment) } else { Ok(()) };
        }
        let kind = GraphQlKind::ALL.into_iter().find(|kind| kind.word() == word).ok_or(Unreadable::Syntax)?;
        let name = if matches!(self.token, Token::Name(_)) { Some(self.name()?) } else { None };
        if self.take('(')? {
            self.variable()?;
            while !self.take(')')? {
                self.variable()?;
            }
        }
        self.directives()?;
        self.selections(&mut selections)?;
        document.operations.push(Definition { kind, name, selections });
        Ok(())
    }

    fn variable(&mut self) -> Result<(), Unreadable> {
        self.mark('$')?;
        self.name()?;
        self.mark(':')?;
        self.kind()?;
        if self.take('=')? {
            self.value()?;
        }
        self.directives()
    }

    /// The type of a variable.
    fn kind(&mut self) -> Result<(), Unreadable> {
        if self.take('[')? {
            self.deeper(Self::kind)?;
            self.mark(']')?;
        } else {
            self.name()?;
        }
        self.take('!').map(|_| ())
    }

    fn directives(&mut self) -> Result<(), Unreadable> {
        while self.take('@')? {
            self.name()?;
            self.arguments()?;
        }
        Ok(())
    }

    fn arguments(&mut self) -> Result<(), Unreadable> {
        if self.take('(')? {
            self.pair()?;
            while !self.take(')')? {
                self.pair()?;
            }
        }
        Ok(())
    }

    /// `name: value`
    fn pair(&mut self) -> Result<(), Unreadable> {
        self.name()?;
        self.mark(':')?;
        self.value()
    }

    fn value(&mut self) -> Result<(), Unreadable> {
        match self.next()? {
            Token::Name(_) | Token::Number | Token::Text => Ok(()),
            Token::Mark('$') => self.name().map(|_| ()),
            Token::Mark('[') => self.deeper(|p| {
                while !p.take(']')? {
                    p.value()?;
                }
                Ok(())
            }),
            Token::Mark('{') => self.deeper(|p| {
                while !p.take('}')? {
                    p.pair()?;
                }
                Ok(())
            }),
            Token::Mark(_) | Token::Spread | Token::End => Err(Unreadable::Syntax),
        }
    }

    fn selections(&mut self, into: &mut Vec<Selection<'a>>) -> Result<(), Unreadable> {
        self.mark('{')?;
        self.deeper(|p| {
            p.selection(into)?;
            while !p.take('}')? {
                p.selection(into)?;
            }
            Ok(())
        })
    }

    fn selection(&mut self, into: &mut Vec<Selection<'a>>) -> Result<(), Unreadable> {
        if self.token == Token::Spread {
            self.next()?;
            return self.spread(into);
        }
        let mut field = self.name()?;
        if self.take(':')? {
            field = self.name()?;
        }
        self.arguments()?;
        self.directives()?;
        if self.token == Token::Mark('{') {
            // Rules know the fields of the root only.
            self.selections(&mut Vec::new())?;
        }
        into.push(Selection::Field(field));
        Ok(())
    }

    /// What follows `...`.
    fn spread(&mut self, into: &mut Vec<Selection<'a>>) -> Result<(), Unreadable> {
        match self.token {
            Token::Name("on") => {
                self.next()?;
                self.name()?;
            }
            Token::Name(_) => {
                into.push(Selection::Fragment(self.name()?));
                return self.directives();
            }
            _ => {}
        }
        self.directives()?;
        self.selections(into)
    }
}

#[cfg(test)]
mod tests;
