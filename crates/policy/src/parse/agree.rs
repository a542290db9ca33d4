//! Whether the parts of a policy agree with each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stockade_types::Port;

use crate::{
    caller::Callers,
    credential::Credential,
    diagnostic::{Diagnostic, Report, nearest, shown},
    model::{Endpoint, HostPattern},
};

/// No name twice, and no host and port that two endpoints treat differently. Those for other executables are no
/// contradiction: who asks decides between them, and the first written where both name the one that asks.
pub(crate) fn endpoints(endpoints: &[Endpoint], report: &mut Report) {
    let mut names: HashMap<&str, &Endpoint> = HashMap::new();
    let mut claims: HashMap<(&HostPattern, Port, Option<&Callers>), &Endpoint> = HashMap::new();
    for endpoint in endpoints {
        if let Some(other) = names.insert(&endpoint.name, endpoint) {
            let help = "rename one of them".to_owned();
            clash(report, endpoint, format!("the endpoint is written twice: see {}", place(other)), help);
        }
        for host in &endpoint.hosts {
            for port in &endpoint.ports {
                let other = *claims.entry((host, *port, endpoint.callers.as_deref())).or_insert(endpoint);
                let Some(what) = difference(endpoint, other) else { continue };
                let message = format!(
                    "{host} on port {port} is also in endpoint `{}` ({}), with another {what}",
                    other.name,
                    place(other)
                );
                clash(report, endpoint, message, "leave it in one of the two".to_owned());
                if report.is_full() {
                    return;
                }
            }
        }
    }
}

fn difference(a: &Endpoint, b: &Endpoint) -> Option<&'static str> {
    let same_blocks = || {
        let set = |e: &Endpoint| e.private_addresses.iter().copied().collect::<BTreeSet<_>>();
        set(a) == set(b)
    };
    if a.protocol != b.protocol {
        Some("protocol")
    } else if a.tls != b.tls {
        Some("tls")
    } else if a.mode != b.mode {
        Some("mode")
    } else if !same_blocks() {
        Some("private_addresses")
    } else if !a.rules.same(&b.rules) {
        Some("set of rules")
    } else if a.limits != b.limits {
        Some("limits")
    } else if a.credentials != b.credentials {
        Some("credentials")
    } else if a.encoded_slash != b.encoded_slash {
        Some("encoded_slash")
    } else if a.upstream != b.upstream {
        Some("upstream")
    } else {
        None
    }
}

/// Adds the credentials of another file.
pub(crate) fn unite(all: &mut BTreeMap<String, Credential>, more: BTreeMap<String, Credential>, report: &mut Report) {
    for (name, credential) in more {
        match all.get(&name) {
            Some(other) => report.push(Diagnostic {
                file: credential.file.to_string(),
                line: credential.at.line,
                column: credential.at.column,
                path: format!("credentials.{name}"),
                message: format!("written twice: see {}:{}:{}", other.file, other.at.line, other.at.column),
                help: Some("rename one of them".to_owned()),
            }),
            None => drop(all.insert(name, credential)),
        }
    }
}

/// No endpoint with a credential that does not exist, and no variable for two credentials.
pub(crate) fn credentials(endpoints: &[Endpoint], all: &BTreeMap<String, Credential>, report: &mut Report) {
    for endpoint in endpoints {
        for name in endpoint.credentials.iter().filter(|name| !all.contains_key(*name)) {
            let help = match nearest(name, all.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write it under `credentials`".to_owned(),
            };
            clash(report, endpoint, format!("there is no credential {}", shown(name)), help);
        }
    }
    let mut variables: HashMap<&str, &str> = HashMap::new();
    for (name, credential) in all {
        for env in credential.variables() {
            if let Some(other) = variables.insert(env, name) {
                report.push(Diagnostic {
                    file: credential.file.to_string(),
                    line: credential.at.line,
                    column: credential.at.column,
                    path: format!("credentials.{name}"),
                    message: format!("the variable {} is also that of `{other}`", shown(env)),
                    help: Some("each credential has its own".to_owned()),
                });
            }
        }
    }
}

fn place(endpoint: &Endpoint) -> String {
    endpoint.origin.as_ref().map_or_else(|| "given on the command line".to_owned(), ToString::to_string)
}

fn clash(report: &mut Report, endpoint: &Endpoint, message: String, help: String) {
    let origin = endpoint.origin.as_ref();
    report.push(Diagnostic {
        file: origin.map_or_else(|| "command line".to_owned(), |o| o.file.to_string()),
        line: origin.map_or(0, |o| o.at.line),
        column: origin.map_or(0, |o| o.at.column),
        path: format!("network.endpoints.{}", endpoint.name),
        message,
        help: Some(help),
    });
}
