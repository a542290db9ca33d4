//! From what a client sends to what is run.

use crate::{limits, spawner::Spawner};

/// What programs look for to know that they run over SSH. The client's real address is nothing for whoever runs inside.
pub(crate) const MARKS: &[&str] = &["SSH_CONNECTION=127.0.0.1 0 127.0.0.1 22", "SSH_CLIENT=127.0.0.1 0 22"];

/// Runs a command as OpenSSH does: the text goes to the shell as one argument, nothing is added to it. Without a shell in
/// the view, plain words are run as they are.
pub(crate) fn shell(spawner: &dyn Spawner, command: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    match spawner.shell() {
        Ok(_) => Ok(vec![b"/bin/sh".to_vec(), b"-c".to_vec(), command.to_vec()]),
        Err(why) => words(command).ok_or_else(|| format!("{why}; without one, only plain words can be run")),
    }
}

/// Splits at blanks what no shell would read in another way.
fn words(command: &[u8]) -> Option<Vec<Vec<u8>>> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_./=:,@%+- ".contains(b);
    if !command.iter().all(plain) {
        return None;
    }
    let words: Vec<_> = command.split(|b| *b == b' ').filter(|w| !w.is_empty()).map(<[u8]>::to_vec).collect();
    // `A=b program` sets a variable in a shell.
    let is_program = words.first().is_some_and(|w| !w.contains(&b'='));
    is_program.then_some(words)
}

/// Variables that say how to write, not what to run, load or trust.
pub(crate) fn may_set(name: &str) -> bool {
    let tail = name.strip_prefix("LC_");
    name == "LANG" || name == "COLORTERM" || tail.is_some_and(|t| !t.is_empty() && t.len() <= 32 && is_word(t))
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A locale with a `/` in it would be a path.
pub(crate) fn is_harmless(value: &str) -> bool {
    value.len() <= limits::VALUE && value.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_would_change_are_not_split() {
        assert_eq!(words(b"/app --port=80  x"), Some(vec![b"/app".to_vec(), b"--port=80".to_vec(), b"x".to_vec()]));
        for command in ["echo $HOME", "a;b", "a|b", "a > b", "echo 'x'", "echo \"x\"", "a\nb", "X=1 env", "", " "] {
            assert_eq!(words(command.as_bytes()), None, "{command:?}");
        }
    }

    #[test]
    fn only_how_to_write_can_be_set() {
        for name in ["LANG", "LC_ALL", "LC_TERMINAL_VERSION", "COLORTERM"] {
            assert!(may_set(name), "{name}");
        }
        for name in ["LD_PRELOAD", "PATH", "HTTP_PROXY", "https_proxy", "LC_", "LC_A=B", "BASH_ENV", "LANGUAGE", "lang"]
        {
            assert!(!may_set(name), "{name}");
        }
        assert!(is_harmless("en_GB.UTF-8"));
        assert!(!is_harmless("/tmp/evil") && !is_harmless("a\nb") && !is_harmless(&"x".repeat(257)));
    }
}
