//! Grammars of single values: sizes, paths, names, patterns.

use std::{num::NonZeroU64, path::PathBuf};

/// Longest path.
const MAX_PATH: usize = 4096;

/// A number of bytes: `4GiB`, `512MiB`, `1500000`.
///
/// # Errors
/// What to write instead.
pub fn size(text: &str) -> Result<NonZeroU64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("", 1),
    ];
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit.trim_start_matches(' ')) else {
        return Err("not a size; write a whole number and a unit, such as 512MiB or 4GiB".to_owned());
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)).filter(|n| i64::try_from(*n).is_ok());
    bytes.and_then(NonZeroU64::new).ok_or_else(|| "not a size above 0 that fits in 63 bits".to_owned())
}

/// A path of the file system section: absolute, or relative to the workspace, with nothing to resolve.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    let why = if text.is_empty() {
        "empty; `.` is the workspace"
    } else if text.len() > MAX_PATH {
        "longer than 4,096 characters"
    } else if text.contains(char::is_control) {
        "has a control character"
    } else if text.starts_with('~') || text.contains('$') {
        "`~` and variables are not expanded; write the path out, or relative to the workspace"
    } else if text.contains(['*', '?', '[']) {
        "patterns are not expanded; name the directory"
    } else if text.split('/').any(|part| part == "..") {
        "`..` is not allowed; write where it leads"
    } else if text.starts_with("//") {
        "begins with two slashes"
    } else {
        use std::path::Component;
        let plain: PathBuf = std::path::Path::new(text).components().filter(|c| *c != Component::CurDir).collect();
        return Ok(if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain });
    };
    Err(why.to_owned())
}

/// The name of an environment variable.
pub(crate) fn env_name(text: &str) -> Result<(), String> {
    let head = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if head && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err("not the name of an environment variable".to_owned())
}

/// An HTTP method: upper-case letters and `-`, or `*`.
pub(crate) fn method(text: &str) -> Result<(), String> {
    let token = |t: &str| !t.is_empty() && t.len() <= 32 && t.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if text == "*" || token(text) {
        return Ok(());
    }
    Err(match text.to_ascii_uppercase() {
        upper if token(&upper) => format!("methods are upper case; write `{upper}`"),
        _ => "not an HTTP method".to_owned(),
    })
}

/// A path pattern of a request rule: segments, `*` within one, `**` for any number of whole segments.
pub(crate) fn path_glob(text: &str) -> Result<(), String> {
    let why = if !text.starts_with('/') {
        "a path begins with `/`"
    } else if text.len() > MAX_PATH {
        "longer than 4,096 characters"
    } else if text.contains(['?', '#']) {
        "`?` and `#` are not part of the path; the query goes in `query`"
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        "has a character that no request path has; percent-encode it"
    } else if text.split('/').any(|s| s == "." || s == "..") {
        "`.` and `..` never reach a rule: paths are normalised first"
    } else if text.contains("//") {
        "empty segments never reach a rule: paths are normalised first"
    } else if text.split('/').any(|s| s.contains("**") && s != "**") {
        "`**` is a whole segment"
    } else {
        return Ok(());
    };
    Err(why.to_owned())
}

/// A kind of GraphQL operation.
pub(crate) fn graphql_operation(text: &str) -> Result<(), String> {
    match text {
        "query" | "mutation" | "subscription" => Ok(()),
        _ => Err("one of query, mutation, subscription".to_owned()),
    }
}

/// A SHA-256 in hexadecimal.
///
/// # Errors
/// What is expected instead.
pub fn sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "not 64 lower-case hexadecimal digits".to_owned();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(wrong());
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

/// A pattern of a header or query value.
pub(crate) fn value_glob(text: &str) -> Result<(), String> {
    if text.len() <= MAX_PATH && !text.contains(char::is_control) {
        return Ok(());
    }
    Err("has a control character, or is longer than 4,096 characters".to_owned())
}

/// The name of a header, lower case.
pub(crate) fn header_name(text: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 256 || !text.bytes().all(token) {
        return Err("not the name of a header".to_owned());
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!("header names are lower case; write `{}`", text.to_ascii_lowercase()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in
            [("4GiB", 4 << 30), ("10MiB", 10 << 20), ("1 kB", 1_000), ("123", 123), ("2TB", 2_000_000_000_000)]
        {
            assert_eq!(size(text).map(NonZeroU64::get), Ok(want), "{text}");
        }
        for text in ["", "0", "0GiB", "-1", "4gb", "4 XiB", "1.5GiB", "99999999999TiB", "GiB", "16EiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        for (text, want) in
            [(".", "."), ("./a//b/", "a/b"), ("/opt/tools/", "/opt/tools"), (".git/hooks", ".git/hooks")]
        {
            assert_eq!(path(text), Ok(PathBuf::from(want)), "{text}");
        }
        for text in ["", "~/x", "$HOME", "a/../b", "..", "*.env", "a\0b", "//x", &"x".repeat(5_000)] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn request_rule_grammar() {
        for (ok, text) in [(true, "GET"), (true, "*"), (true, "M-SEARCH"), (false, "get"), (false, ""), (false, "G T")]
        {
            assert_eq!(method(text).is_ok(), ok, "{text}");
        }
        assert_eq!(method("get"), Err("methods are upper case; write `GET`".to_owned()));
        for (ok, text) in [
            (true, "/"),
            (true, "/repos/**"),
            (true, "/repos/*/*/settings/**"),
            (true, "/a/*.json"),
            (true, "/**"),
            (false, "repos"),
            (false, "/a?b=1"),
            (false, "/a/../b"),
            (false, "/a//b"),
            (false, "/a/**b"),
            (false, "/ü"),
            (false, "/a b"),
        ] {
            assert_eq!(path_glob(text).is_ok(), ok, "{text}");
        }
        assert!(header_name("accept").is_ok() && header_name("Accept").is_err() && header_name("a b").is_err());
        assert!(value_glob("application/*").is_ok() && value_glob("a\nb").is_err());
        assert!(env_name("GITHUB_TOKEN").is_ok() && env_name("1A").is_err() && env_name("").is_err());
    }
}
