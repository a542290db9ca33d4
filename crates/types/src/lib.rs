//! Ids, host names, address classes, layers: the words every crate shares.
//!
//! Nothing here does I/O. Everything that parses hostile text returns a typed error and has one canonical form:
//! the form that is judged is the form that is resolved, dialled, logged and shown.
#![forbid(unsafe_code)]

pub mod address;
pub mod escape;
pub mod host;
pub mod id;
pub mod layer;
pub mod reason;
pub mod secret;

pub use address::{AddressClass, Cidr};
pub use escape::{Escaped, EscapedLines};
pub use host::{Authority, AuthorityError, Host, HostName, Port};
pub use id::{Generation, SandboxId};
pub use layer::{Enforcement, Layer, LayerStatus};
pub use reason::Reason;
pub use secret::{NotText, Secret};
