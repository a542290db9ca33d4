//! Credentials as a policy describes them. Their values never come near this crate.

use std::{path::PathBuf, sync::Arc};

use crate::diagnostic::Position;

/// One entry of `credentials`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The environment variable in which the command finds a placeholder.
    pub env: String,
    /// Where the value comes from.
    pub source: Store,
    /// How it is put into a request.
    pub inject: Inject,
    /// Where it is written, for messages.
    pub(crate) file: Arc<str>,
    pub(crate) at: Position,
}

impl Credential {
    /// One that no file describes.
    #[must_use]
    pub fn new(env: String, source: Store, inject: Inject) -> Self {
        Self { env, source, inject, file: Arc::from(""), at: Position::default() }
    }

    /// Every variable in which the command finds a placeholder.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let more = match &self.inject {
            Inject::Sigv4(signing) => Some(signing),
            _ => None,
        };
        let parts = more.into_iter().flat_map(|s| std::iter::once(&s.access_key_id).chain(&s.session_token));
        std::iter::once(self.env.as_str()).chain(parts.map(|part| part.env.as_str()))
    }
}

/// Where a value comes from. Other stores are known words and not available yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Store {
    /// `env:NAME`: a variable of the supervisor's environment, which the command does not get.
    Env(String),
    /// `file:PATH`: relative to the policy file; one final line break is not part of the value.
    File(PathBuf),
}

/// How a value is put into a request: the only place where it may stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Inject {
    /// `{header: NAME, value: "Bearer {secret}"}`.
    Header {
        /// Name of the field, lower case.
        name: String,
        /// What stands before the value.
        before: String,
        /// What stands after it.
        after: String,
    },
    /// `{basic: USER}`: the password of HTTP Basic authentication.
    Basic {
        /// The user name.
        user: String,
    },
    /// `{query: NAME}`: the value of a query parameter.
    Query {
        /// The parameter.
        name: String,
    },
    /// `{path: "/bot{secret}/**"}`: one segment of the path, or part of one.
    Path {
        /// The path pattern up to the value.
        before: String,
        /// The rest of it.
        after: String,
    },
    /// `{body: json, field: /auth/token}`: a string in a JSON body, by JSON pointer.
    Json {
        /// The pointer.
        pointer: String,
    },
    /// `{body: form, field: client_secret}`: a field of a form body.
    Form {
        /// The field.
        name: String,
    },
    /// `{sigv4: {…}}`: requests are signed anew, with this credential as the secret access key.
    Sigv4(Sigv4),
}

/// Signing for AWS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sigv4 {
    /// Service that the client's scope must name; `None`: any.
    pub service: Option<String>,
    /// Region that it must name; `None`: any.
    pub region: Option<String>,
    /// The access key id.
    pub access_key_id: Part,
    /// The session token of temporary credentials.
    pub session_token: Option<Part>,
}

/// A value that goes with a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Part {
    /// The environment variable in which the command finds its placeholder.
    pub env: String,
    /// Where it comes from.
    pub source: Store,
}
