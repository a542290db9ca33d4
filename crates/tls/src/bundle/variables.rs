//! The variables by which programs are told what to trust.

use super::{BUNDLE, CERTIFICATE, TRUSTSTORE, WGETRC};

/// One variable of the command's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What stands between a value of the operator's and ours, where ours does not replace it: options and lists are
    /// joined, paths not.
    pub joins: Option<&'static str>,
}

/// Name, file, and who reads it. A variable that replaces a program's own authorities gets the whole bundle; one that
/// adds to them gets the CA alone, which is quicker to load.
const FILES: [(&str, &str); 21] = [
    ("SSL_CERT_FILE", BUNDLE), // OpenSSL (Python ssl, urllib and httpx, Ruby, PHP's streams), Go, rustls-native-certs, uv
    ("CURL_CA_BUNDLE", BUNDLE), // curl, Python requests
    ("GIT_SSL_CAINFO", BUNDLE), // git
    ("REQUESTS_CA_BUNDLE", BUNDLE), // Python requests, conda
    ("PIP_CERT", BUNDLE),      // pip
    ("CONDA_SSL_VERIFY", BUNDLE), // conda
    ("HTTPLIB2_CA_CERTS", BUNDLE), // Python httplib2: Google's older clients
    ("NODE_EXTRA_CA_CERTS", CERTIFICATE), // Node and all that runs on it, Bun
    ("npm_config_cafile", BUNDLE), // npm, pnpm, yarn 1: a cafile of ~/.npmrc would win over Node's
    ("YARN_HTTPS_CA_FILE_PATH", BUNDLE), // yarn 2 and later
    ("DENO_CERT", CERTIFICATE), // Deno
    ("CARGO_HTTP_CAINFO", BUNDLE), // cargo
    ("AWS_CA_BUNDLE", BUNDLE), // AWS CLI and SDKs
    ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", BUNDLE), // gcloud
    ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", BUNDLE), // gRPC of C++, Python, Ruby, PHP
    ("NIX_SSL_CERT_FILE", BUNDLE), // programs of Nixpkgs, which do not read SSL_CERT_FILE
    ("PERL_LWP_SSL_CA_FILE", BUNDLE), // Perl LWP
    ("JULIA_SSL_CA_ROOTS_PATH", BUNDLE), // Julia
    ("HEX_CACERTS_PATH", BUNDLE), // Elixir mix
    ("BUNDLE_SSL_CA_CERT", BUNDLE), // Ruby bundler
    ("WGETRC", WGETRC),        // wget
];

pub(super) fn all(directory: &str) -> Vec<Variable> {
    let file =
        |(name, file): (&'static str, &str)| Variable { name, value: format!("{directory}/{file}"), joins: None };
    let mut variables: Vec<_> = FILES.into_iter().map(file).collect();
    variables.push(Variable {
        name: "JAVA_TOOL_OPTIONS",
        value: format!("-Djavax.net.ssl.trustStore={directory}/{TRUSTSTORE} -Djavax.net.ssl.trustStoreType=PKCS12"),
        joins: Some(" "),
    });
    // Behind the first colon, or behind the operator's: PHP reads its own settings first.
    variables.push(Variable { name: "PHP_INI_SCAN_DIR", value: format!(":{directory}"), joins: Some("") });
    variables
}
