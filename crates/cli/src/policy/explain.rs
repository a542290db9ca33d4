//! `policy explain`.

use std::{fmt::Display, path::Path, sync::Arc};

use serde::Serialize;
use stockade_policy::{Caller, Claim, Door, Intent, Request, Snapshot};
use stockade_types::{Authority, Port};

use crate::{Failure, args::ExplainArgs};

pub(super) fn run(args: &ExplainArgs) -> Result<u8, Failure> {
    let (_, snapshot) = super::usable(&args.policy)?;
    let (mut intent, target) = destination(&args.target)?;
    intent.caller = caller(args, &snapshot);
    let asked = target.is_some() || args.method.is_some() || !args.header.is_empty() || args.body.is_some();
    if !asked {
        let explanation = snapshot.explain(&intent);
        return answer(&explanation, explanation.allowed, args.json);
    }
    let default = if args.body.is_some() { "POST" } else { "GET" };
    let (method, target) = (args.method.as_deref().unwrap_or(default), target.as_deref().unwrap_or("/"));
    let mut request = Request::parse(method, target, &args.header)
        .map_err(|e| Failure::new(format_args!("{method} {target}: {e}")))?;
    let body = match &args.body {
        Some(file) => std::fs::read(file).map_err(|e| Failure::new(format_args!("--body {}: {e}", file.display())))?,
        None => Vec::new(),
    };
    if let Some(protocol) = snapshot.explain(&intent).protocol
        && let Err(why) = request.read(protocol, &body)
    {
        let unreadable = format!("{method} {target}: denied: {why}; what cannot be read is denied");
        match args.json {
            true => println!("{}", serde_json::json!({"allowed": false, "unreadable": unreadable})),
            false => println!("{unreadable}"),
        }
        return Ok(1);
    }
    let explanation = snapshot.explain_request(&intent, &request);
    answer(&explanation, explanation.allowed, args.json)
}

/// Who asks, if that is said. What the policy names is looked for on this machine, where links may lead elsewhere.
fn caller(args: &ExplainArgs, snapshot: &Snapshot) -> Option<Arc<Caller>> {
    let claim = Claim {
        exe: args.program.clone()?,
        sha256: args.sha256,
        ancestors: args.ancestor.clone(),
        script: args.script.clone(),
    };
    let same = |a: &Path, b: &Path| a == b || a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a));
    Some(Arc::new(snapshot.claimed(&claim, &same)))
}

fn answer<E: Serialize + Display>(explanation: &E, allowed: bool, json: bool) -> Result<u8, Failure> {
    if json {
        println!("{}", serde_json::to_string(explanation).map_err(Failure::new)?);
    } else {
        println!("{explanation}");
    }
    Ok(u8::from(!allowed))
}

/// `host:port`, or a URL whose scheme supplies the port, and what follows the authority in it.
fn destination(text: &str) -> Result<(Intent, Option<String>), Failure> {
    let (rest, default, door) = match text.split_once("://") {
        Some(("http", rest)) => (rest, Some(Port::HTTP), Door::Forward),
        Some(("https", rest)) => (rest, Some(Port::HTTPS), Door::Connect),
        Some((scheme, _)) => return Err(Failure::new(format_args!("{scheme}: expected http or https, or HOST:PORT"))),
        None => (text, None, Door::Connect),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let Authority { host, port } = Authority::parse(authority, default)
        .map_err(|e| Failure::new(format_args!("{text}: {e}; write HOST:PORT or a URL")))?;
    let target = match tail.chars().next() {
        None => None,
        Some('?') => Some(format!("/{tail}")),
        Some(_) => Some(tail.to_owned()),
    };
    Ok((Intent::new(door, host, port), target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let parse = |t: &str| {
            let (i, target) = destination(t).map_err(|f| f.text)?;
            Ok::<_, String>((i.door, i.host.to_string(), i.port.get(), target))
        };
        let some = |t: &str| Some(t.to_owned());
        assert_eq!(parse("https://a.test/x?y#z"), Ok((Door::Connect, "a.test".into(), 443, some("/x?y"))));
        assert_eq!(parse("https://a.test?y"), Ok((Door::Connect, "a.test".into(), 443, some("/?y"))));
        assert_eq!(parse("http://a.test:8080"), Ok((Door::Forward, "a.test".into(), 8080, None)));
        assert_eq!(parse("a.test:22"), Ok((Door::Connect, "a.test".into(), 22, None)));
        for bad in ["a.test", "ftp://a.test", "http://u@a.test", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
