//! The command's environment: an allow-list of the caller's, what the sandbox adds, what the operator names.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use stockade_tls::Bundle;

use crate::{identity::Account, trust};

/// What a program needs to find its way about a machine and a terminal. Everything else stays outside, because the
/// environment of a developer's shell is full of credentials; `--env NAME` passes one variable on.
const KEPT: [&str; 13] = [
    "PATH",
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "NO_COLOR",
    "FORCE_COLOR",
    "CI",
    "LANG",
    "LANGUAGE",
    "TZ",
    "EDITOR",
    "PAGER",
    "COLUMNS",
];

/// Used when the caller has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Hosts that are never sent to the proxy: they are inside.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// Builds the environment, sorted, one `K=V` each, and what there is to say about it. `named` wins over everything but
/// trust: a program that does not trust the sandbox's CA could speak to no inspected host.
#[must_use]
pub(crate) fn build(
    outside: impl Iterator<Item = (OsString, OsString)>,
    named: &[(OsString, OsString)],
    account: &Account,
    proxy_port: u16,
    cwd: &Path,
) -> (Vec<Vec<u8>>, Vec<String>) {
    let mut env: BTreeMap<OsString, OsString> = outside.filter(|(k, _)| kept(k)).collect();
    env.entry("PATH".into()).or_insert_with(|| PATH.into());
    let proxy = format!("http://127.0.0.1:{proxy_port}");
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        env.insert(name.into(), proxy.clone().into());
    }
    for name in ["no_proxy", "NO_PROXY"] {
        env.insert(name.into(), NO_PROXY.into());
    }
    // Node ignores the variables above unless told; npm and yarn read their own.
    env.insert("NODE_USE_ENV_PROXY".into(), "1".into());
    env.insert("npm_config_noproxy".into(), NO_PROXY.into());
    env.insert("HOME".into(), account.home.clone().into());
    env.insert("USER".into(), account.name.clone().into());
    env.insert("LOGNAME".into(), account.name.clone().into());
    env.insert("SHELL".into(), "/bin/sh".into());
    env.insert("TMPDIR".into(), "/tmp".into());
    env.insert("PWD".into(), cwd.into());
    env.insert("STOCKADE".into(), "1".into());
    env.extend(named.iter().cloned());
    let mut said = Vec::new();
    for variable in Bundle::variables(trust::DIRECTORY) {
        let old = env.get(OsStr::new(variable.name)).filter(|old| !old.is_empty());
        let value = match (old, variable.joins) {
            (Some(old), Some(between)) => [old, OsStr::new(between), OsStr::new(&variable.value)].into_iter().collect(),
            (Some(_), None) => {
                said.push(format!(
                    "--env {}: replaced by {}, which holds this machine's authorities and the sandbox's; \
                     `--upstream-ca` adds others",
                    variable.name, variable.value
                ));
                OsString::from(variable.value)
            }
            (None, _) => OsString::from(variable.value),
        };
        env.insert(variable.name.into(), value);
    }
    (env.into_iter().map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat()).collect(), said)
}

fn kept(name: &OsString) -> bool {
    let name = name.as_bytes();
    KEPT.iter().any(|k| k.as_bytes() == name) || name.starts_with(b"LC_")
}

#[cfg(test)]
mod tests {
    use stockade_confine::privileges::Identity;

    use super::*;

    #[test]
    fn secrets_stay_outside_and_named_variables_win() {
        let account = Account {
            identity: Identity { uid: 1, gid: 1, groups: vec![] },
            name: "ann".into(),
            home: "/home/ann".into(),
            notice: None,
        };
        let outside =
            [("AWS_SECRET_ACCESS_KEY", "s"), ("PATH", "/p"), ("LC_ALL", "C"), ("HTTPS_PROXY", "http://corp:1")];
        let outside = outside.into_iter().map(|(k, v)| (k.into(), v.into()));
        let named = [("TZ", "UTC"), ("GIT_SSL_CAINFO", "/own.pem"), ("PIP_CERT", "")];
        let joined = [("JAVA_TOOL_OPTIONS", "-Xmx1g"), ("PHP_INI_SCAN_DIR", "/own.d")];
        let named: Vec<_> = named.into_iter().chain(joined).map(|(k, v)| (k.into(), v.into())).collect();
        let (env, said) = build(outside, &named, &account, 3128, Path::new("/w"));
        let env: Vec<String> = env.into_iter().map(|e| String::from_utf8(e).unwrap()).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("--env GIT_SSL_CAINFO: replaced by /run/stockade/tls/bundle.pem"));
        assert!(env.contains(&"PHP_INI_SCAN_DIR=/own.d:/run/stockade/tls".to_owned()), "{env:?}");
        let java = env.iter().find(|e| e.starts_with("JAVA_TOOL_OPTIONS=")).unwrap();
        assert!(java.starts_with("JAVA_TOOL_OPTIONS=-Xmx1g -Djavax.net.ssl.trustStore=/run/stockade/tls/"), "{java}");
        for name in ["GIT_SSL_CAINFO", "SSL_CERT_FILE", "PIP_CERT"] {
            assert!(env.iter().any(|e| *e == format!("{name}=/run/stockade/tls/bundle.pem")), "{env:?}");
        }
        for want in ["PATH=/p", "LC_ALL=C", "TZ=UTC", "HTTPS_PROXY=http://127.0.0.1:3128", "HOME=/home/ann", "PWD=/w"] {
            assert!(env.iter().any(|e| e == want), "{want} in {env:?}");
        }
        assert!(!env.iter().any(|e| e.starts_with("AWS_SECRET")));
    }
}
