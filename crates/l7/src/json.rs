//! JSON, read so that no other reader can take it for something else.

use std::{cell::Cell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::protocol::Unreadable;

/// Deepest nesting read.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most values of one text, those inside others counted.
pub(crate) const MAX_VALUES: usize = 65_536;

/// A value. Keys of an object are unique, whatever their case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// In one spelling, if every reader takes it for the same number.
    Number(Option<String>),
    String(String),
    Array(Vec<Value>),
    Object(Object),
}

impl Value {
    /// Reads exactly one JSON text.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let state = State { values: Cell::new(0), fault: Cell::new(None) };
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let parsed = Seed { state: &state, depth: 0 }.deserialize(&mut deserializer);
        parsed
            .and_then(|value| deserializer.end().map(|()| value))
            .map_err(|_| state.fault.take().unwrap_or(Unreadable::NotJson))
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }
}

/// An object: keys in lower case, by which it is sorted, with their spelling and value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Object(Vec<(String, String, Value)>);

impl Object {
    /// The value of a key of the protocol, given in the spelling of the protocol; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Result<Option<&Value>, Unreadable> {
        Ok(self.entry(key)?.filter(|value| **value != Value::Null))
    }

    /// The same, `null` included.
    pub(crate) fn entry(&self, key: &str) -> Result<Option<&Value>, Unreadable> {
        let folded = fold(key);
        let found = self.0.binary_search_by(|(own, ..)| own.cmp(&folded)).ok().and_then(|at| self.0.get(at));
        match found {
            // encoding/json of Go, for one, would take it for the key.
            Some((_, spelling, _)) if spelling != key => Err(Unreadable::KeySpelling),
            found => Ok(found.map(|(.., value)| value)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(_, key, value)| (key.as_str(), value))
    }
}

/// A key without case, as the readers that ignore case compare keys: the long s is an s to them.
fn fold(key: &str) -> String {
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    key.chars().flat_map(char::to_lowercase).map(|c| if c == '\u{17f}' { 's' } else { c }).collect()
}

/// What is shared by all values of a text.
struct State {
    values: Cell<usize>,
    fault: Cell<Option<Unreadable>>,
}

#[derive(Clone, Copy)]
struct Seed<'s> {
    state: &'s State,
    depth: usize,
}

impl Seed<'_> {
    /// Ends the parse; the reason is kept beside, because errors of serde are texts.
    fn refuse<E: de::Error>(self, why: Unreadable) -> E {
        self.state.fault.set(Some(why));
        E::custom(why)
    }

    /// For what is inside this value.
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH { Err(self.refuse(Unreadable::TooDeep)) } else { Ok(Self { depth, ..self }) }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let values = self.state.values.get() + 1;
        self.state.values.set(values);
        if values > MAX_VALUES {
            return Err(self.refuse(Unreadable::TooMany));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(Some(value.to_string())))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(Some(value.to_string())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        // From here on not every integer has a double of its own.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        // The sum turns -0 into 0. `{}` never writes an exponent, and no point after an integer.
        Ok(Value::Number((value.abs() < EXACT).then(|| (value + 0.0).to_string())))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inside)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut object = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            // To some readers the text ends there, and the key is another.
            if key.contains('\0') {
                return Err(self.refuse(Unreadable::Name));
            }
            object.push((fold(&key), key, map.next_value_seed(inside)?));
        }
        object.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        if object.windows(2).any(|pair| matches!(pair, [(a, ..), (b, ..)] if a == b)) {
            return Err(self.refuse(Unreadable::DuplicateKey));
        }
        Ok(Value::Object(Object(object)))
    }
}

#[cfg(test)]
mod tests;
