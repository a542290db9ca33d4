//! What the command trusts: files and the variables that point at them.

use crate::{Ca, Roots};

mod pkcs12;
mod variables;

pub use self::variables::Variable;

/// The CA's certificate alone, for programs that add it to what they have.
pub const CERTIFICATE: &str = "ca.pem";
/// The machine's authorities and ours, for programs that take a whole bundle.
pub const BUNDLE: &str = "bundle.pem";
/// The same for Java.
pub const TRUSTSTORE: &str = "truststore.p12";
/// wget knows no variable for a bundle, but one for its settings.
pub const WGETRC: &str = "wgetrc";
/// So does PHP, whose curl reads no variable: every file of a directory with this ending.
pub const PHP: &str = "php.ini";

/// Public certificates only; made once, at start.
#[derive(Debug, Clone)]
pub struct Bundle {
    certificate: String,
    pem: String,
    truststore: Vec<u8>,
}

/// A file of the directory that the variables name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Within the directory.
    pub name: &'static str,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Bundle {
    /// The authorities that the supervisor trusts, and the sandbox's own.
    #[must_use]
    pub fn new(roots: &Roots, ca: &Ca) -> Self {
        let certificate = ca.certificate_pem().to_owned();
        let ours = std::iter::once(("stockade".to_owned(), ca.certificate_der()));
        let theirs = roots.certificates().iter().enumerate().map(|(at, der)| (format!("root-{}", at + 1), der));
        Self {
            pem: format!("{certificate}{}", roots.pem()),
            truststore: pkcs12::truststore(ours.chain(theirs)),
            certificate,
        }
    }

    /// The CA's certificate.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// All of them.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// All of them, as Java reads them without a password.
    #[must_use]
    pub fn truststore(&self) -> &[u8] {
        &self.truststore
    }

    /// The files of `directory`, to be put where the command can read and nobody but root write.
    #[must_use]
    pub fn files(&self, directory: &str) -> Vec<File> {
        let wgetrc = format!("ca_certificate = {directory}/{BUNDLE}\n");
        let php = format!("curl.cainfo = {directory}/{BUNDLE}\nopenssl.cafile = {directory}/{BUNDLE}\n");
        vec![
            File { name: CERTIFICATE, bytes: self.certificate.clone().into_bytes() },
            File { name: BUNDLE, bytes: self.pem.clone().into_bytes() },
            File { name: TRUSTSTORE, bytes: self.truststore.clone() },
            File { name: WGETRC, bytes: wgetrc.into_bytes() },
            File { name: PHP, bytes: php.into_bytes() },
        ]
    }

    /// The variables that make programs trust the files in `directory`.
    #[must_use]
    pub fn variables(directory: &str) -> Vec<Variable> {
        variables::all(directory)
    }
}

#[cfg(test)]
mod tests;
