//! `cargo xtask sbom`: what the program is made of, as CycloneDX 1.5. The same sources give the same bytes: no time and no
//! random number is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    process::{Command, ExitCode},
};

use serde::Deserialize;
use serde_json::{Value, json};

/// The package that becomes the program.
const PROGRAM: &str = "stockade-cli";
/// The platform that `make dist` builds for.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// Nothing for what is linked; `build` and `dev` otherwise.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

pub(crate) fn print() -> ExitCode {
    match read().and_then(|(metadata, lock)| document(&metadata, &lock)) {
        Ok(document) => {
            println!("{document:#}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("sbom: {e}");
            ExitCode::FAILURE
        }
    }
}

fn read() -> io::Result<(Metadata, Lock)> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", PLATFORM])
        .output()?;
    if !out.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    let lock = std::fs::read_to_string("Cargo.lock")?;
    Ok((serde_json::from_slice(&out.stdout)?, toml::from_str(&lock).map_err(io::Error::other)?))
}

/// What is linked into the program, directly or not.
fn linked<'a>(metadata: &'a Metadata, from: &'a str) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut found = BTreeMap::new();
    let mut next = vec![from];
    while let Some(id) = next.pop() {
        if found.contains_key(id) {
            continue;
        }
        let deps = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
        let is_linked = |d: &&Dependency| d.dep_kinds.iter().any(|kind| kind.kind.is_none());
        let below: BTreeSet<&str> = deps.iter().filter(is_linked).map(|d| d.pkg.as_str()).collect();
        next.extend(below.iter());
        found.insert(id, below);
    }
    found
}

fn document(metadata: &Metadata, lock: &Lock) -> io::Result<Value> {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let program = metadata.packages.iter().find(|p| p.name == PROGRAM);
    let program = program.ok_or_else(|| io::Error::other(format!("the workspace has no package {PROGRAM}")))?;
    let purl = |p: &Package| format!("pkg:cargo/{}@{}", p.name, p.version);
    let mut components = BTreeMap::new();
    let mut graph = BTreeMap::new();
    for (id, below) in linked(metadata, &program.id) {
        let Some(package) = packages.get(id) else { continue };
        let names: BTreeSet<String> = below.iter().filter_map(|id| packages.get(id)).map(|p| purl(p)).collect();
        graph.insert(purl(package), json!({"ref": purl(package), "dependsOn": names}));
        if package.id != program.id {
            components.insert(purl(package), component(package, &purl(package), lock));
        }
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application", "name": "stockade", "version": program.version, "bom-ref": purl(program),
            "licenses": [{"expression": program.license}],
        }},
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": graph.into_values().collect::<Vec<_>>(),
    }))
}

fn component(package: &Package, purl: &str, lock: &Lock) -> Value {
    let locked = lock.package.iter().find(|l| l.name == package.name && l.version == package.version);
    let mut component = json!({"type": "library", "name": package.name, "version": package.version, "bom-ref": purl});
    if let Some(license) = &package.license {
        // Old manifests write a slash for OR.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if package.source.is_some() {
        component["purl"] = json!(purl);
    }
    if let Some(checksum) = locked.and_then(|l| l.checksum.as_ref()) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> Package {
        let outside = (!name.starts_with("stockade")).then(|| "registry".to_owned());
        Package {
            id: name.into(),
            name: name.into(),
            version: "1.0.0".into(),
            license: Some("MIT/Apache-2.0".into()),
            source: outside,
        }
    }

    fn node(id: &str, deps: &[(&str, Option<&str>)]) -> Node {
        let dep = |(pkg, kind): &(&str, Option<&str>)| Dependency {
            pkg: (*pkg).to_owned(),
            dep_kinds: vec![Kind { kind: kind.map(str::to_owned) }],
        };
        Node { id: id.into(), deps: deps.iter().map(dep).collect() }
    }

    #[test]
    fn what_is_linked_is_listed_and_nothing_else() {
        let metadata = Metadata {
            packages: [PROGRAM, "a", "b", "builder", "tester", "stranger"].map(package).into(),
            resolve: Resolve {
                nodes: vec![
                    node(PROGRAM, &[("a", None), ("builder", Some("build")), ("tester", Some("dev"))]),
                    node("a", &[("b", None)]),
                    node("b", &[]),
                    node("stranger", &[]),
                ],
            },
        };
        let lock =
            Lock { package: vec![Locked { name: "b".into(), version: "1.0.0".into(), checksum: Some("abc".into()) }] };
        let document = document(&metadata, &lock).unwrap();
        let names: Vec<&str> =
            document["components"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(document["components"][1]["hashes"][0]["content"], "abc");
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(document["dependencies"][0]["dependsOn"], json!(["pkg:cargo/b@1.0.0"]));
    }
}
