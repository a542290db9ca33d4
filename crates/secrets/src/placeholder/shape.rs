//! What well-known tokens look like. Clients look at the beginning and sometimes at the length; the shapes are data.

use super::{CORE, MAX_PLACEHOLDER, TAIL};

/// A kind of token.
struct Known {
    /// How it begins.
    prefix: &'static str,
    /// How long it is, prefix included.
    length: usize,
    /// Variables that hold it, for when its value is not known yet.
    variables: &'static [&'static str],
}

/// Longer prefixes stand before those they begin with.
const KNOWN: &[Known] = &[
    Known { prefix: "sk-ant-oat01-", length: 108, variables: &["CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"] },
    Known { prefix: "sk-ant-api03-", length: 108, variables: &["ANTHROPIC_API_KEY"] },
    Known { prefix: "sk-ant-", length: 108, variables: &[] },
    Known { prefix: "sk-or-v1-", length: 73, variables: &["OPENROUTER_API_KEY"] },
    Known { prefix: "sk-proj-", length: 164, variables: &["OPENAI_API_KEY", "CODEX_API_KEY"] },
    Known { prefix: "sk-svcacct-", length: 167, variables: &[] },
    Known { prefix: "sk_live_", length: 107, variables: &[] },
    Known { prefix: "sk_test_", length: 107, variables: &["STRIPE_API_KEY", "STRIPE_SECRET_KEY"] },
    Known { prefix: "sk-", length: 51, variables: &["DEEPSEEK_API_KEY", "MISTRAL_API_KEY"] },
    Known { prefix: "github_pat_", length: 93, variables: &[] },
    Known { prefix: "ghp_", length: 40, variables: &["GITHUB_TOKEN", "GH_TOKEN"] },
    Known { prefix: "gho_", length: 40, variables: &[] },
    Known { prefix: "ghs_", length: 40, variables: &[] },
    Known { prefix: "ghu_", length: 40, variables: &[] },
    Known { prefix: "glpat-", length: 40, variables: &["GITLAB_TOKEN", "GL_TOKEN"] },
    Known { prefix: "xoxb-", length: 57, variables: &["SLACK_BOT_TOKEN", "SLACK_TOKEN"] },
    Known { prefix: "xoxp-", length: 76, variables: &[] },
    Known { prefix: "xapp-", length: 100, variables: &["SLACK_APP_TOKEN"] },
    Known { prefix: "AKIA", length: 38, variables: &["AWS_ACCESS_KEY_ID"] },
    Known { prefix: "ASIA", length: 38, variables: &[] },
    Known { prefix: "", length: 40, variables: &["AWS_SECRET_ACCESS_KEY"] },
    Known { prefix: "hf_", length: 37, variables: &["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] },
    Known { prefix: "npm_", length: 40, variables: &["NPM_TOKEN", "NODE_AUTH_TOKEN"] },
    Known { prefix: "pypi-AgEIcHlwaS5vcmc", length: 179, variables: &["TWINE_PASSWORD", "UV_PUBLISH_TOKEN"] },
    Known { prefix: "pypi-", length: 179, variables: &[] },
    Known { prefix: "AIza", length: 39, variables: &["GEMINI_API_KEY", "GOOGLE_API_KEY"] },
    Known { prefix: "ya29.", length: 200, variables: &[] },
    Known { prefix: "gsk_", length: 56, variables: &["GROQ_API_KEY"] },
    Known { prefix: "xai-", length: 84, variables: &["XAI_API_KEY"] },
    Known { prefix: "dckr_pat_", length: 44, variables: &["DOCKER_TOKEN"] },
    Known { prefix: "hvs.", length: 95, variables: &["VAULT_TOKEN"] },
];

/// How a placeholder begins and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) prefix: &'static str,
    pub(super) length: usize,
}

/// By the value where there is one, else by the variable's name. A value that is long enough is stood for by a text of
/// the same length: a response can then be scrubbed without changing its length.
pub(super) fn of(env: Option<&str>, value: &str) -> Shape {
    let by_value = KNOWN.iter().find(|k| !k.prefix.is_empty() && value.starts_with(k.prefix));
    let by_name = || KNOWN.iter().find(|k| value.is_empty() && env.is_some_and(|env| k.variables.contains(&env)));
    let known = by_value.or_else(by_name);
    let prefix = known.map_or("", |k| k.prefix);
    let length = match (value.len(), known) {
        (0, Some(known)) => known.length,
        (0, None) => 0,
        (length, _) => length,
    };
    Shape { prefix, length: length.clamp(prefix.len() + CORE + TAIL, MAX_PLACEHOLDER) }
}
