//! What the tests of this crate share.

use std::io;

/// Bytes that a test can draw again: a linear congruential generator, read from its upper half.
pub(crate) fn entropy(seed: u64) -> impl FnMut(&mut [u8]) -> io::Result<()> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0];
        }
        Ok(())
    }
}

/// A value of a token's length.
pub(crate) const CANARY: &str = "ghp_canary7f3a+9Qz/Kx2mW~8vLb0TnYrD4s6Ju";

/// A text as somebody may write it, between other text.
pub(crate) struct Writing {
    pub(crate) name: String,
    pub(crate) before: Vec<u8>,
    pub(crate) text: Vec<u8>,
    pub(crate) after: Vec<u8>,
}

/// Writes a text in some way.
type Layer = fn(&[u8]) -> Vec<u8>;

/// Plain, percent-encoded, JSON-escaped, in base64 at each alignment and in both alphabets, and two layers of these.
pub(crate) fn writings(text: &str) -> Vec<Writing> {
    let plain = |name: &str, text: Vec<u8>| Writing {
        name: name.to_owned(),
        before: b"\"a: ".to_vec(),
        text,
        after: b"\" end".to_vec(),
    };
    let layers: [(&str, Layer); 5] = [
        ("%all", |t| t.iter().flat_map(|b| format!("%{b:02X}").into_bytes()).collect()),
        ("%mixed", |t| {
            let one = |(i, b): (usize, &u8)| match i % 3 {
                0 => format!("%{b:02x}").into_bytes(),
                _ if b.is_ascii_alphanumeric() => vec![*b],
                _ => format!("%{b:02X}").into_bytes(),
            };
            t.iter().enumerate().flat_map(one).collect()
        }),
        ("\\all", |t| t.iter().flat_map(|b| format!("\\u{b:04x}").into_bytes()).collect()),
        ("\\some", |t| {
            let one = |b: &u8| match b {
                b'/' | b'\\' | b'"' => vec![b'\\', *b],
                b'+' | b'a' => format!("\\u{b:04X}").into_bytes(),
                _ => vec![*b],
            };
            t.iter().flat_map(one).collect()
        }),
        ("\\last", |t| [&t[..t.len() - 1], format!("\\u{:04x}", t[t.len() - 1]).as_bytes()].concat()),
    ];
    let mut all = vec![plain("plain", text.as_bytes().to_vec())];
    for (name, layer) in &layers {
        let once = layer(text.as_bytes());
        all.extend(layers.iter().map(|(outer, layer)| plain(&format!("{outer} over {name}"), layer(&once))));
        all.push(plain(name, once));
    }
    all.extend((0..6).map(|i| base64(text, i % 3, i >= 3)));
    all
}

/// The whole characters of the text are `text`; those it shares with its neighbours count as theirs.
fn base64(text: &str, lead: usize, url: bool) -> Writing {
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    let whole = [&b"us"[..lead], text.as_bytes(), b":more"].concat();
    let encoded = if url { URL_SAFE_NO_PAD.encode(whole) } else { STANDARD.encode(whole) };
    let (start, end) = ((lead * 8).div_ceil(6), (lead + text.len()) * 8 / 6);
    Writing {
        name: format!("base64 {lead} {url}"),
        before: [b"Basic ", &encoded.as_bytes()[..start]].concat(),
        text: encoded.as_bytes()[start..end].to_vec(),
        after: encoded.as_bytes()[end..].to_vec(),
    }
}

/// What a reader may make of it: independent of how the product decodes.
pub(crate) fn decodings(bytes: &[u8]) -> Vec<String> {
    use base64::{
        Engine,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut all = vec![text.clone()];
    for once in [percent(&text), json(&text)] {
        all.extend([percent(&once), json(&once), once]);
    }
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&::base64::alphabet::STANDARD, lenient);
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || "+/-_".contains(c))) {
        let word: String = word.replace('-', "+").replace('_', "/");
        let word = if word.len() % 4 == 1 { &word[..word.len() - 1] } else { &word };
        all.extend(engine.decode(word).map(|d| String::from_utf8_lossy(&d).into_owned()));
    }
    all
}

fn percent(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) if !part.starts_with('+') => {
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[2..]);
            }
            _ => out.extend_from_slice(format!("%{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn json(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let ahead = rest.as_str();
        match (ahead.chars().next(), ahead.get(1..5).and_then(|d| u32::from_str_radix(d, 16).ok())) {
            (Some('u'), Some(code)) => {
                out.extend(char::from_u32(code));
                rest = ahead[5..].chars();
            }
            (Some(c @ ('\\' | '/' | '"')), _) => {
                out.push(c);
                rest = ahead[1..].chars();
            }
            _ => out.push('\\'),
        }
    }
    out
}

/// Cuts bytes into pieces of these lengths, over and over.
pub(crate) fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, more) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces
}
