//! User modules: package `stockade.custom`, `deny contains msg if …` and `ask contains msg if …`.
//!
//! They are a program of their own beside the base policy: they see the same input, can only take away what the base
//! policy allows, and can neither read nor redefine a rule of it.

use regorus::Value;

use crate::{
    diagnostic::{Position, Rejected, Source},
    input,
    rego::{EngineError, Modules},
};

const PACKAGE: &str = "data.stockade.custom";
const DENY: &str = "data.stockade.custom.deny";
const ASK: &str = "data.stockade.custom.ask";
/// Largest module, and most of them.
const MAX_MODULE: usize = 1024 * 1024;
const MAX_MODULES: usize = 64;
/// Messages of one verdict that are shown.
const MAX_MESSAGES: usize = 8;

/// Built-in functions whose answer depends on more than their arguments. A verdict is a function of its input: it is
/// cached, explained and tested as one.
const NOT_A_FUNCTION: [&str; 6] = ["time.now_ns", "rand.", "uuid.", "http.send", "opa.runtime", "net.lookup_ip_addr"];

/// Compiled user modules.
#[derive(Debug)]
pub(crate) struct Custom {
    modules: Modules,
}

/// What user modules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// Nothing against it.
    Silent,
    /// Denied, with the messages.
    Deny(Vec<String>),
    /// A person would be asked.
    Ask(Vec<String>),
}

impl Custom {
    /// Compiles the modules; `None` where there are none.
    pub(crate) fn compile(modules: &[Source]) -> Result<Option<Self>, Rejected> {
        if modules.is_empty() {
            return Ok(None);
        }
        let whole = |message: String| Rejected::one(&names(modules), Position::default(), message, None);
        if modules.len() > MAX_MODULES {
            return Err(whole(format!("more than {MAX_MODULES} Rego modules")));
        }
        if let Some(large) = modules.iter().find(|m| m.text.len() > MAX_MODULE) {
            return Err(Rejected::one(&large.name, Position::default(), "the module is larger than 1 MiB", None));
        }
        let compiled = Modules::compile(modules, &[DENY, ASK], |package| match package.strip_prefix(PACKAGE) {
            Some(rest) if rest.is_empty() || rest.starts_with('.') => Ok(()),
            _ => {
                let package = package.strip_prefix("data.").unwrap_or(package);
                Err(format!("package {package}: a module of a policy begins with `package stockade.custom`"))
            }
        })?;
        impure(modules, &compiled)?;
        let custom = Self { modules: compiled };
        custom.probe(modules)?;
        Ok(Some(custom))
    }

    /// A module that fails for the plainest connection or request there is would deny everything; that is an error of
    /// the module, found now.
    fn probe(&self, modules: &[Source]) -> Result<(), Rejected> {
        for (what, plain) in input::plainest() {
            for (entry, name) in [(DENY, "deny"), (ASK, "ask")] {
                if !self.modules.defines(entry) {
                    continue;
                }
                let message = match self.modules.eval(entry, plain.clone()) {
                    Ok(answer) if answer.as_set().is_ok() => continue,
                    Ok(_) => format!("`{name}` is not a set of messages; write `{name} contains msg if {{ … }}`"),
                    Err(error) => format!("`{name}` fails for {what}: {error}"),
                };
                return Err(Rejected::one(&names(modules), Position::default(), message, None));
            }
        }
        Ok(())
    }

    /// What the modules say about an input that the base policy allows.
    pub(crate) fn opinion(&self, input: &Value) -> Result<Opinion, EngineError> {
        let deny = self.messages(DENY, input)?;
        if !deny.is_empty() {
            return Ok(Opinion::Deny(deny));
        }
        let ask = self.messages(ASK, input)?;
        Ok(if ask.is_empty() { Opinion::Silent } else { Opinion::Ask(ask) })
    }

    fn messages(&self, entry: &str, input: &Value) -> Result<Vec<String>, EngineError> {
        if !self.modules.defines(entry) {
            return Ok(Vec::new());
        }
        let answer = self.modules.eval(entry, input.clone())?;
        let set = answer.as_set().map_err(|_| EngineError::Unusable)?;
        let text = |v: &Value| match v.as_string() {
            Ok(text) => text.to_string(),
            Err(_) => v.to_string(),
        };
        Ok(set.iter().take(MAX_MESSAGES).map(|v| stockade_types::Escaped(&text(v)).to_string()).collect())
    }
}

fn names(modules: &[Source]) -> String {
    modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn impure(modules: &[Source], compiled: &Modules) -> Result<(), Rejected> {
    let called = compiled.code.builtin_info_table.iter().map(|b| b.name.as_str());
    let Some(name) = called.into_iter().find(|b| NOT_A_FUNCTION.iter().any(|bad| b.starts_with(bad))) else {
        return Ok(());
    };
    let place = modules.iter().find_map(|m| m.text.lines().position(|l| l.contains(name)).map(|line| (m, line)));
    let (file, line) = place.map_or_else(|| (names(modules), 0), |(m, line)| (m.name.clone(), line + 1));
    let at = Position { line: u32::try_from(line).unwrap_or(0), column: u32::from(line > 0) };
    let help = "a verdict may depend on the input alone".to_owned();
    Err(Rejected::one(&file, at, format!("`{name}` gives another answer each time"), Some(help)))
}
