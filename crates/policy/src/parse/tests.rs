use std::time::{Duration, Instant};

use stockade_types::{Layer, Port};

use super::*;
use crate::{
    Relaxation,
    decision::{Mode, Protocol, TlsMode},
    model::PathGrant,
};

fn parsed(text: &str) -> Result<Policy, Rejected> {
    Policy::parse(&[Source::new("policy.yaml", text)])
}

fn refused(text: &str) -> String {
    parsed(text).map(|_| ()).expect_err(text).to_string()
}

fn endpoint(keys: &str) -> Result<Policy, Rejected> {
    parsed(&format!("version: 1\nnetwork: {{endpoints: {{x: {{{keys}}}}}}}"))
}

#[test]
fn a_whole_policy() {
    let policy = parsed(
        "version: 1
filesystem:
  baseline: false
  read_only: [/opt/tools, {path: lib}]
  read_write: [., {path: build, create: true}]
  hidden: [.env, .git/hooks/]
process:
  user: 1000:1001
  relax: [ptrace, io_uring]
  limits: {memory: 4GiB, cpus: 2, pids: 512, open_files: 4096, best_effort: true}
  require: [netns, fence, mounts, landlock, seccomp, namespaces, privileges, hidden]
network:
  unmatched: deny
  endpoints:
    github:
      hosts: [API.github.com., '*.githubusercontent.com']
      ports: [443, 80]
      protocol: http
      tls: passthrough
      mode: audit
      private_addresses: [10.0.0.0/8]
      allow:
      deny: []
    ssh: {hosts: ['**.example.org'], ports: [22], protocol: tcp}
rego: [extra.rego]
",
    );
    // `allow:` with nothing after it is an empty list, which allows nothing; that needs request rules.
    let text = policy.map(|_| ()).unwrap_err().to_string();
    assert!(text.starts_with("policy.yaml:22:7: request rules cannot work with `tls: passthrough`"), "{text}");
}

#[test]
fn typed_values() {
    let text = "version: 1
filesystem: {baseline: false, read_only: [/opt/tools], read_write: [., {path: build, create: true}], hidden: [.git/hooks/]}
process:
  user: 1000:1001
  relax: [ptrace, io_uring]
  limits: {memory: 4GiB, cpus: 1.5, pids: 512, open_files: 4096, best_effort: true}
  require: [netns, hidden]
network:
  endpoints:
    web: {hosts: [API.github.com., '*.githubusercontent.com'], ports: [443, 80], tls: passthrough, mode: audit, private_addresses: [10.0.0.0/8]}
    ssh: {hosts: ['**.example.org'], ports: [22], protocol: tcp}
rego: [extra.rego]
";
    let policy = parsed(text).unwrap_or_else(|e| panic!("{e}"));
    let grant = |path: &str, create| PathGrant { path: path.into(), create };
    let fs = policy.filesystem();
    assert!(!fs.baseline);
    assert_eq!(fs.read_only, [grant("/opt/tools", false)]);
    assert_eq!(fs.read_write, [grant(".", false), grant("build", true)]);
    assert_eq!(fs.hidden, [PathBuf::from(".git/hooks")]);
    let process = policy.process();
    assert_eq!(process.user, User::Ids { uid: 1000, gid: 1001 });
    assert_eq!(process.relax, BTreeSet::from([Relaxation::Ptrace, Relaxation::IoUring]));
    let l = &process.limits;
    assert_eq!((l.memory.unwrap().get(), l.cpus, l.pids.unwrap().get()), (4 << 30, Some(1.5), 512));
    assert_eq!((l.open_files.unwrap().get(), l.best_effort), (4096, true));
    assert_eq!(process.require, BTreeSet::from([Layer::Netns, Layer::Hidden]));
    let weakened = [Layer::Namespaces, Layer::Fence, Layer::Mounts, Layer::Landlock, Layer::Seccomp];
    assert_eq!(process.require_weakened(), weakened);
    let [web, ssh] = policy.network().endpoints.as_slice() else { panic!("{policy:?}") };
    let hosts: Vec<String> = web.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["api.github.com", "*.githubusercontent.com"]);
    assert_eq!((web.protocol, web.tls, web.mode), (Protocol::Http, TlsMode::Passthrough, Mode::Audit));
    assert_eq!(web.ports.iter().map(|p| p.get()).collect::<Vec<_>>(), [80, 443]);
    assert_eq!(web.private_addresses, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!((ssh.protocol, ssh.tls, ssh.mode), (Protocol::Tcp, TlsMode::Passthrough, Mode::Enforce));
    assert_eq!(ssh.origin.as_ref().unwrap().to_string(), "policy.yaml:11:5");
    assert_eq!(policy.rego()[0].path, PathBuf::from("extra.rego"));
    assert!(!policy.same_static(&parsed("version: 1").unwrap()) && policy.same_static(&parsed(text).unwrap()));
}

#[test]
fn defaults() {
    let policy = parsed("version: 1").unwrap();
    assert!(policy.filesystem().baseline && policy.process().require_weakened().is_empty());
    assert_eq!(policy.process().user, User::Default);
    assert_eq!(policy.process().require, DEFAULT_REQUIRE.into_iter().collect());
    let policy = endpoint("hosts: [a.b.example], tls: passthrough").unwrap();
    let x = &policy.network().endpoints[0];
    assert_eq!((x.ports.len(), x.protocol, x.mode), (1, Protocol::Http, Mode::Enforce));
    assert!(x.ports.contains(&Port::HTTPS));
}

#[test]
fn a_policy_about_the_network_alone_has_the_builtin_view() {
    let builtin = Policy::builtin().unwrap();
    assert_eq!(parsed("version: 1\nnetwork: {}").unwrap().filesystem(), builtin.filesystem());
    assert!(parsed("version: 1\nfilesystem: {}").unwrap().filesystem().read_write.is_empty());
}

/// What the host would execute or obey later stays read-only until somebody says otherwise: granting the workspace
/// alone does not.
#[test]
fn protected_paths_are_those_of_the_builtin_policy_until_a_policy_names_its_own() {
    let builtin = Policy::builtin().unwrap().filesystem().protected.clone();
    assert!(builtin.len() > 10);
    let protected = |texts: &[&str]| {
        let sources: Vec<_> = texts.iter().map(|text| Source::new("p.yaml", format!("version: 1\n{text}"))).collect();
        Policy::parse(&sources).unwrap_or_else(|e| panic!("{e}")).filesystem().protected.clone()
    };
    for unsaid in ["filesystem: {}", "filesystem: {read_write: [.]}", "filesystem: {protected: }", "network: {}"] {
        assert_eq!(protected(&[unsaid]), builtin, "{unsaid}");
        assert_eq!(protected(&[unsaid, "filesystem: {protected: [a]}"]), [PathBuf::from("a")], "{unsaid}");
    }
    assert!(protected(&["filesystem: {protected: []}"]).is_empty());
    assert!(protected(&["filesystem: {read_write: [.]}", "filesystem: {protected: []}"]).is_empty());
    assert_eq!(protected(&["filesystem: {protected: [b]}", "filesystem: {protected: []}"]), [PathBuf::from("b")]);
}

/// The policies that documents and images give as examples.
#[test]
fn documented_policies_protect_what_the_host_obeys() {
    let builtin = Policy::builtin().unwrap().filesystem().protected.clone();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in ["README.md", "docs/agents.md", "docs/policy.md", "deploy/docker/agent/policy.yaml"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let text = match text.split_once("```yaml\n") {
            Some((_, rest)) => rest.split("```").next().unwrap(),
            None => &text,
        };
        let policy = parsed(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(policy.filesystem().protected, builtin, "{file}");
        assert!(policy.filesystem().read_write.iter().any(|g| g.path.as_os_str() == "."), "tripwire: {file}");
    }
}

#[test]
fn diagnostics_of_the_document() {
    for (text, want) in [
        ("{}", "policy.yaml:1:1: `version` is missing\n  help: begin with `version: 1`"),
        // What a write that was cut short leaves.
        ("", "policy.yaml:1:1: `version` is missing\n  help: begin with `version: 1`"),
        ("# a comment\n", "`version` is missing"),
        ("---\n", "`version` is missing"),
        ("network: {}", "policy.yaml:1:1: `version` is missing"),
        (
            "version: 2",
            "policy.yaml:1:10: unknown version of the policy language (at version)\n  help: this program reads `version: 1`",
        ),
        ("version: '1'", "unknown version of the policy language"),
        ("[1]", "policy.yaml:1:1: expected a map, found a list"),
        ("version: 1\nnetwrok: {}", "policy.yaml:2:1: unknown key `netwrok`\n  help: did you mean `network`?"),
        ("version: 1\nzzz: {}", "help: known here: version, filesystem"),
        ("version: 1\nnetwork: []", "policy.yaml:2:10: expected a map, found a list (at network)"),
        (
            "version: 1\nnetwork: {unmatched: dney}",
            "unknown word `dney` (at network.unmatched)\n  help: did you mean `deny`?",
        ),
        ("version: 1\nrego: [x.txt]", "policy.yaml:2:8: `x.txt`: not a .rego file (at rego[0])"),
        ("version: 1\nrego: x.rego", "expected a list (`[a, b]`), found text (at rego)"),
        ("version: 1\nrego: [../x.rego]", "`..` is not allowed"),
        ("version: 1\npublish: [3128]", "policy.yaml:2:11: port 3128 inside is the proxy's own (at publish[0])"),
        ("version: 1\npublish: ['5353:53']", "port 53 inside is the proxy's own"),
        ("version: 1\npublish: [80, '80:81']", "policy.yaml:2:15: 127.0.0.1:80 is published twice (at publish[1])"),
    ] {
        assert!(refused(text).contains(want), "{text}: {}", refused(text));
    }
}

#[test]
fn diagnostics_of_filesystem_and_process() {
    for (text, want) in [
        ("filesystem: {baseline: yes}", "expected true or false, found text (at filesystem.baseline)"),
        ("filesystem: {readonly: []}", "did you mean `read_only`?"),
        ("filesystem: {read_write: [/]}", "`/`: grants the whole machine"),
        ("filesystem: {read_only: [~/x]}", "`~` and variables are not expanded"),
        ("filesystem: {read_only: ['a/*']}", "patterns are not expanded"),
        ("filesystem: {read_only: [{path: a, create: true}]}", "unknown key `create` (at filesystem.read_only[0])"),
        ("filesystem: {read_write: [{create: true}]}", "`path` is missing (at filesystem.read_write[0])"),
        ("filesystem: {read_write: [{path: a, create: 1}]}", "expected true or false, found a number"),
        (
            "filesystem: {read_write: [7]}",
            "expected text, found a number (at filesystem.read_write[0])\n  help: put it in quotes",
        ),
        ("filesystem: {hidden: [.]}", "hides everything"),
        ("filesystem: {hidden: [a/../b]}", "`..` is not allowed"),
        ("filesystem: {read_only: [a], read_write: [./a/]}", "`a` is both in read_only and in read_write"),
        ("process: {user: root}", "`root`: the command never runs as root (at process.user)"),
        ("process: {user: '0:0'}", "the command never runs as root"),
        ("process: {user: '1000:0'}", "the command never runs as root"),
        ("process: {user: 1000}", "a user id without a group id"),
        ("process: {user: 'A b'}", "not a user name"),
        (
            "process: {relax: [ptraec]}",
            "unknown relaxation `ptraec` (at process.relax[0])\n  help: did you mean `ptrace`?",
        ),
        ("process: {relax: [everything]}", "help: one of ptrace, userns, io_uring"),
        ("process: {limits: {memory: 4gb}}", "`4gb`: not a size"),
        ("process: {limits: {memory: 0}}", "expected a number from 1"),
        ("process: {limits: {cpus: 0}}", "expected a number of processors"),
        ("process: {limits: {cpus: -1}}", "expected a number of processors"),
        ("process: {limits: {cpus: .inf}}", "policy.yaml:2:26: not valid YAML: non-finite float"),
        ("process: {limits: {cpus: two}}", "expected a number of processors"),
        ("process: {limits: {pids: 0}}", "expected a number from 1 to 4194304, found 0"),
        ("process: {limits: {open_files: many}}", "expected a number from 1 to 1048576, found text"),
        ("process: {limits: {memroy: 1}}", "did you mean `memory`?"),
        (
            "process: {require: [landlok]}",
            "unknown layer `landlok` (at process.require[0])\n  help: did you mean `landlock`?",
        ),
    ] {
        let text = format!("version: 1\n{text}");
        assert!(refused(&text).contains(want), "{text}: {}", refused(&text));
    }
}

#[test]
fn diagnostics_of_endpoints() {
    for (keys, want) in [
        ("ports: [443], tls: passthrough", "an endpoint without `hosts`"),
        (
            "hosts: a.b.example, tls: passthrough",
            "expected a list (`[a, b]`), found text (at network.endpoints.x.hosts)",
        ),
        (
            "hosts: [a.b.example, 'b.b.example:443'], tls: passthrough",
            "`b.b.example:443`: a host with a port (at network.endpoints.x.hosts[1])\n  help: write the port in `ports`",
        ),
        ("hosts: ['*.com'], tls: passthrough", "a wildcard below the single label `com`"),
        ("hosts: ['*'], tls: passthrough", "a wildcard for every host there is"),
        ("hosts: [bücher.example], tls: passthrough", "neither Unicode nor punycode (xn--) names are accepted"),
        ("hosts: [localhost], tls: passthrough", "`localhost` cannot be an endpoint"),
        ("hosts: [inference.local], tls: passthrough", "it is served by Stockade itself"),
        ("hosts: [metadata.google.internal], tls: passthrough", "it is a cloud metadata service"),
        (
            "hosts: [10.0.0.5], tls: passthrough",
            "10.0.0.5 is a private address and would be refused (at network.endpoints.x.hosts)\n  help: add `private_addresses: [10.0.0.5/32]`",
        ),
        (
            "hosts: [a.b.example], ports: [0], tls: passthrough",
            "expected a number from 1 to 65535, found 0 (at network.endpoints.x.ports[0])",
        ),
        ("hosts: [a.b.example], ports: [65536], tls: passthrough", "found 65536"),
        ("hosts: [a.b.example], ports: ['443'], tls: passthrough", "expected a number from 1 to 65535, found text"),
        ("hosts: [a.b.example], ports: 443, tls: passthrough", "expected a list"),
        (
            "hosts: [a.b.example], protocol: htpp, tls: passthrough",
            "unknown protocol `htpp` (at network.endpoints.x.protocol)\n  help: did you mean `http`?",
        ),
        ("hosts: [a.b.example], protocol: tcp", "an endpoint with `protocol: tcp` must name its ports"),
        (
            "hosts: [a.b.example], protocol: tcp, ports: [22], tls: inspect",
            "`tls: inspect` cannot work with `protocol: tcp`",
        ),
        ("hosts: [a.b.example], tls: passthru", "unknown word for tls `passthru`"),
        ("hosts: [a.b.example], tls: skip", "help: one of inspect, passthrough"),
        (
            "hosts: [a.b.example], tls: passthrough, mode: adit",
            "unknown mode `adit` (at network.endpoints.x.mode)\n  help: did you mean `audit`?",
        ),
        (
            "hosts: [a.b.example], tls: passthrough, host: 1",
            "unknown key `host` (at network.endpoints.x)\n  help: did you mean `hosts`?",
        ),
        ("hosts: [a.b.example], tls: passthrough, private_addresses: [10.0.0.1/8]", "bits set past the prefix"),
        ("hosts: [a.b.example], tls: passthrough, private_addresses: [ten]", "expected ADDRESS/BITS"),
        (
            "hosts: [a.b.example], tls: passthrough, private_addresses: [0.0.0.0/0]",
            "`0.0.0.0/0`: every address there is (at network.endpoints.x.private_addresses[0])",
        ),
        ("hosts: [a.b.example], tls: passthrough, private_addresses: ['::/0']", "every address there is"),
        ("hosts: [a.b.example], tls: passthrough, private_addresses: [127.0.0.0/8]", "overlaps 127.0.0.0/8: loopback"),
        ("hosts: [a.b.example], tls: passthrough, private_addresses: [169.254.0.0/16]", "link-local"),
        (
            "hosts: [a.b.example], tls: passthrough, private_addresses: ['::ffff:168.0.0.0/103']",
            "an IPv4-mapped IPv6 block",
        ),
        (
            "hosts: [a.b.example], tls: passthrough, private_addresses: [198.18.0.0/16]",
            "the pool of synthetic addresses",
        ),
        (
            "hosts: [a.b.example], tls: passthrough, private_addresses: ['fd53:746f:636b::/64']",
            "the pool of synthetic addresses",
        ),
        ("hosts: [a.b.example], tls: passthrough, private_addresses: [8.8.8.0/24]", "is public"),
    ] {
        let text = endpoint(keys).map(|_| ()).expect_err(keys).to_string();
        assert!(text.contains(want), "{keys}: {text}");
    }
    let text = refused("version: 1\nnetwork: {endpoints: {'a b': {hosts: [a.b.example], tls: passthrough}}}");
    assert!(text.contains("`a b` is not a name"), "{text}");
}

#[test]
fn keys_of_later_versions_are_checked() {
    let good = "hosts: [a.b.example], ports: [80]";
    for (keys, want) in [
        ("allow: [{}]", "a rule that names nothing (at network.endpoints.x.allow[0])"),
        ("allow: [{method: [GET]}]", "did you mean `methods`?"),
        ("allow: [{methods: []}]", "an empty list (at network.endpoints.x.allow[0].methods)"),
        ("deny: [{paths: [repos]}]", "a path begins with `/`"),
        ("deny: [{paths: ['/a/**b']}]", "`**` is a whole segment"),
        ("ask: [{headers: {Accept: x}}]", "header names are lower case; write `accept`"),
        ("ask: [{query: {a: [x, 1]}}]", "expected text, found a number (at network.endpoints.x.ask[0].query.a[1])"),
        ("limits: {requests_per_minute: 0}", "expected a number from 1 to 1000000"),
        ("limits: {request_body: 10Mib}", "`10Mib`: not a size"),
        ("limits: {rate: 1}", "unknown key `rate` (at network.endpoints.x.limits)"),
        ("binaries: [git]", "`git`: not an absolute path"),
        ("binaries: [{path: /usr/bin/git, sha256: abc}]", "not 64 lower-case hexadecimal digits"),
        ("binaries: [{sha256: abc}]", "`path` is missing"),
        ("credentials: [1]", "expected text"),
        ("credentials: [token]", "credentials of an endpoint without https (at network.endpoints.x.credentials)"),
    ] {
        let text = endpoint(&format!("{good}, {keys}")).map(|_| ()).expect_err(keys).to_string();
        assert!(text.contains(want), "{keys}: {text}");
    }
    for (text, want) in [
        (
            "credentials: {t: {env: 1A, source: 'env:T', inject: {header: a, value: '{secret}'}}}",
            "not the name of an environment variable",
        ),
        (
            "credentials: {t: {env: A, source: 'envv:T', inject: {header: a, value: '{secret}'}}}",
            "did you mean `env:`?",
        ),
        ("credentials: {t: {env: A, source: T, inject: {header: a, value: '{secret}'}}}", "write STORE:NAME"),
        (
            "credentials: {t: {env: A, source: 'zzzzzz:x', inject: {header: a, value: '{secret}'}}}",
            "unknown store; one of env, file",
        ),
        (
            "credentials: {t: {env: A, source: 'env:T', inject: {header: a, value: secret}}}",
            "must hold `{secret}` once",
        ),
        ("credentials: {t: {env: A, source: 'env:T'}}", "`inject` is missing (at credentials.t)"),
        (
            "credentials: {t: {env: A, source: 'env:T', inject: {header: a, value: '{secret}'}, approval: once}}",
            "unknown approval `once`",
        ),
        ("inference: {routes: [{name: a, protocol: openia, base_url: 'https://a.b'}]}", "did you mean `openai`?"),
        ("inference: {routes: [{name: a, protocol: openai, base_url: 'http://a.b'}]}", "not an https:// URL"),
        ("inference: {routes: [{protocol: openai}]}", "`name` is missing"),
    ] {
        let text = refused(&format!("version: 1\n{text}"));
        assert!(text.contains(want), "{text}");
    }
}

#[test]
fn everything_wrong_is_reported_at_once_and_in_order() {
    let text = "version: 1\nnetwork:\n  endpoints:\n    a: {hosts: ['*'], prot: 1}\n    b: {hosts: [b.c.example], ports: [0]}\nprocess: {relax: [x]}\n";
    let Rejected(all) = parsed(text).unwrap_err();
    let lines: Vec<u32> = all.iter().map(|d| d.line).collect();
    assert_eq!(lines, [4, 4, 5, 6], "{all:#?}");
}

#[test]
fn sources_merge() {
    let a = Source::new(
        "a.yaml",
        "version: 1\nfilesystem: {read_only: [/a]}\nprocess: {limits: {pids: 5}, require: [netns]}\nnetwork: {endpoints: {a: {hosts: [a.b.example], tls: passthrough}}}",
    );
    let b = Source::new(
        "b.yaml",
        "version: 1\nfilesystem: {read_only: [/b]}\nprocess: {limits: {pids: 5}, require: [fence]}\nnetwork: {endpoints: {b: {hosts: [b.b.example], tls: passthrough}}}",
    );
    let policy = Policy::parse(&[a.clone(), b.clone()]).unwrap();
    assert_eq!(policy.filesystem().read_only.len(), 2);
    assert_eq!(policy.network().endpoints.len(), 2);
    assert_eq!(policy.process().require, BTreeSet::from([Layer::Netns, Layer::Fence]));
    assert_eq!(policy.process().limits.pids.unwrap().get(), 5);
    assert_ne!(policy.digest(), Policy::parse(&[b, a]).unwrap().digest());
}

#[test]
fn sources_that_disagree() {
    for (a, b, want) in [
        (
            "process: {limits: {pids: 5}}",
            "process: {limits: {pids: 6}}",
            "b.yaml:2:26: differs from a.yaml:2:26 (at process.limits.pids)",
        ),
        ("filesystem: {baseline: true}", "filesystem: {baseline: false}", "(at filesystem.baseline)"),
        ("process: {user: caller}", "process: {user: x}", "(at process.user)"),
        (
            "network: {endpoints: {a: {hosts: [a.b.example], tls: passthrough}}}",
            "network: {endpoints: {a: {hosts: [b.b.example], tls: passthrough}}}",
            "b.yaml:2:23: the endpoint is written twice: see a.yaml:2:23",
        ),
        (
            "network: {endpoints: {a: {hosts: [a.b.example], tls: passthrough}}}",
            "network: {endpoints: {b: {hosts: [a.b.example], protocol: tcp, ports: [443]}}}",
            "b.yaml:2:23: a.b.example on port 443 is also in endpoint `a` (a.yaml:2:23), with another protocol",
        ),
        ("nope: 1", "nope: 2", "b.yaml:2:1: unknown key"),
    ] {
        let source = |name: &str, text: &str| Source::new(name, format!("version: 1\n{text}"));
        let text = Policy::parse(&[source("a.yaml", a), source("b.yaml", b)]).unwrap_err().to_string();
        assert!(text.contains(want), "{text}");
    }
    let many = vec![Source::new("x", "version: 1"); MAX_SOURCES + 1];
    assert!(Policy::parse(&many).unwrap_err().to_string().contains("more than 64 files"));
}

#[test]
fn a_hundred_thousand_hosts_load_and_more_do_not() {
    let hosts = |n: usize| {
        let list: Vec<String> = (0..n).map(|i| format!("h{i}.example.org")).collect();
        format!("version: 1\nnetwork: {{endpoints: {{x: {{tls: passthrough, hosts: [{}]}}}}}}", list.join(","))
    };
    let begun = Instant::now();
    assert_eq!(parsed(&hosts(MAX_HOSTS)).unwrap().network().endpoints[0].hosts.len(), MAX_HOSTS);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(refused(&hosts(MAX_HOSTS + 1)).contains("more than 100000 hosts"));
    let rules = format!("hosts: [a.b.example], ports: [80], allow: [{}]", "{methods: [GET]},".repeat(MAX_ITEMS + 1));
    let begun = Instant::now();
    let text = endpoint(&rules).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("more than 100000 endpoints and rules"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn hostile_text_is_refused_in_bounded_words() {
    let long = "x".repeat(1 << 20);
    for text in [
        format!("version: 1\nnetwork: {{endpoints: {{x: {{hosts: ['{long}'], tls: passthrough}}}}}}"),
        format!("version: 1\nprocess: {{user: '{long}'}}"),
        format!("version: 1\nfilesystem: {{hidden: ['{long}']}}"),
        format!("version: 1\n{long}: 1"),
        "version: 1\nprocess: {user: \"\\e[2J\\u202E\"}".to_owned(),
    ] {
        let said = refused(&text);
        assert!(said.len() < 2_000 && !said.contains('\x1b') && !said.contains('\u{202e}'), "{}", said.len());
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(version: 1\n)?[a-z:\\[\\]{},&*!| \n'\"0-9.-]{0,200}") {
        // Whether it is accepted does not matter here.
        let refused = parsed(&text).is_err();
        proptest::prop_assert!(refused || parsed(&text).is_ok());
    }
}
