//! HTTP clients, git, and programs that know nothing of proxies.

use std::{fs, path::Path, process::Command, time::Duration};

use stockade_testkit::{Mode, Outer, Stockade, upstream::Tcp};

use crate::{
    need_tools,
    world::{HELLO, POLICY, World, quiet},
};

/// The longest that a tool may take to say that it was refused.
const QUICK: Duration = Duration::from_secs(15);

/// Runs `script`, where `HOST` is replaced, once with a host of the policy and once with another. Refused, the tool
/// must fail and say one of `words`.
fn client(script: &str, words: &[&str], prepare: impl Fn(&mut World, &Outer), furnish: impl Fn(&Outer, &Path)) {
    Outer::run_within(Duration::from_secs(170), |outer| {
        let mut world = World::start(outer);
        prepare(&mut world, outer);
        for mode in Mode::available() {
            let start = |host: &str| {
                let stockade = Stockade::new(*mode).policy(POLICY).timeout(Duration::from_secs(60));
                furnish(outer, &stockade.work());
                stockade.sh(&script.replace("HOST", host))
            };
            let run = start("up.test");
            assert_eq!((run.code(), run.text().as_str()), (0, HELLO), "allowed: {mode:?} {run:?}");
            let allowed = |e: &&stockade_testkit::Event| e.host() == Some("up.test") && e.action() == Some("allowed");
            assert!(run.events.iter().any(|e| allowed(&e)), "{mode:?} {run:?}");

            let before = world.http.requests().len();
            let run = start("evil.test");
            assert!(run.code() != 0 && !run.text().contains("hello"), "denied: {mode:?} {run:?}");
            let said = format!("{}{}", run.text(), run.stderr);
            assert!(words.iter().any(|w| said.contains(w)), "none of {words:?} is said: {mode:?} {run:?}");
            assert!(run.took < QUICK, "{mode:?} {run:?}");
            let refusal = |e: &stockade_testkit::Event| matches!(e.reason(), Some("no_policy" | "dns_no_policy"));
            let refused = run.events.iter().find(|e| refusal(e));
            assert_eq!(refused.and_then(|e| e.host()), Some("evil.test"), "{mode:?} {run:?}");
            assert!(
                run.stderr.contains("--allow evil.test") || run.stderr.contains("hosts: [evil.test]"),
                "{mode:?} {run:?}"
            );
            assert_eq!(world.http.requests().len(), before, "nothing arrived: {mode:?}");
            assert_eq!(world.dns.count("evil.test"), 0, "no resolver was asked: {mode:?}");
        }
    });
}

fn plain(_: &mut World, _: &Outer) {}

fn nothing(_: &Outer, _: &Path) {}

fn tls(world: &mut World, outer: &Outer) {
    world.tls(outer);
}

fn certificate(outer: &Outer, work: &Path) {
    fs::copy(outer.dir().join("cert.pem"), work.join("cert.pem")).unwrap();
}

#[test]
fn curl() {
    need_tools!(inside: "curl");
    need_tools!(outside: "openssl", "python3");
    client("curl -sSf http://HOST/hello", &["403"], plain, nothing);
    client("curl -sSf --cacert cert.pem https://HOST/hello", &["403"], tls, certificate);
    client("curl -sSf --noproxy '*' --cacert cert.pem https://HOST/hello", &["Could not resolve"], tls, certificate);
}

#[test]
fn wget() {
    need_tools!(inside: "wget");
    need_tools!(outside: "openssl", "python3");
    client("wget -nv -O- http://HOST/hello", &["403"], plain, nothing);
    client("wget -nv -O- --ca-certificate=cert.pem https://HOST/hello", &["Forbidden"], tls, certificate);
    client("wget -nv --no-proxy -O- http://HOST/hello", &["unable to resolve"], plain, nothing);
}

#[test]
fn git() {
    need_tools!(inside: "git");
    need_tools!(outside: "git", "openssl", "python3");
    let repository = |world: &mut World, outer: &Outer| {
        world.repository();
        world.tls(outer);
    };
    client("git clone -q http://HOST/repo.git out && cat out/hello", &["403"], repository, nothing);
    let https = "GIT_SSL_CAINFO=$PWD/cert.pem git clone -q https://HOST/repo.git out && cat out/hello";
    client(https, &["403"], repository, certificate);
}

#[test]
fn python() {
    need_tools!(inside: "python3");
    let urllib =
        "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://HOST/hello\").read().decode(), end=\"\")'";
    client(urllib, &["403"], plain, nothing);
    let socket = "python3 - <<'END'
import socket
s = socket.socket()
s.connect(('HOST', 80))
s.sendall(b'GET /hello HTTP/1.1\\r\\nHost: HOST\\r\\nConnection: close\\r\\n\\r\\n')
print(s.makefile().read().partition('\\n\\n')[2], end='')
END";
    client(socket, &["Name or service not known", "Name does not resolve"], plain, nothing);
}

/// Static, with the resolver and the dialler of Go itself, and told to use no proxy.
#[test]
fn a_static_go_program() {
    need_tools!(outside: "go");
    let source = r#"package main
import ("fmt"; "io"; "net/http"; "os")
func main() {
	c := http.Client{Transport: &http.Transport{Proxy: nil}}
	r, err := c.Get("http://" + os.Args[1] + "/hello")
	if err != nil { fmt.Fprintln(os.Stderr, err); os.Exit(1) }
	b, _ := io.ReadAll(r.Body)
	fmt.Print(string(b))
}
"#;
    let build = |_: &mut World, outer: &Outer| {
        fs::write(outer.dir().join("main.go"), source).unwrap();
        let mut go = Command::new("go");
        go.args(["build", "-o", "program", "main.go"]).current_dir(outer.dir()).env("CGO_ENABLED", "0");
        quiet(go.env("GOCACHE", outer.dir().join("cache")).env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off"));
    };
    client("./program HOST", &["no such host"], build, program);
}

#[test]
fn a_rust_program() {
    need_tools!(outside: "rustc");
    let source = r#"
use std::{env::args, io::{Read, Write}, net::TcpStream};
fn main() -> std::io::Result<()> {
    let host = args().nth(1).unwrap();
    let mut stream = TcpStream::connect((&*host, 80))?;
    write!(stream, "GET /hello HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    print!("{}", text.split_once("\r\n\r\n").unwrap().1);
    Ok(())
}
"#;
    let build = |_: &mut World, outer: &Outer| {
        fs::write(outer.dir().join("main.rs"), source).unwrap();
        quiet(Command::new("rustc").args(["--edition=2021", "-o", "program", "main.rs"]).current_dir(outer.dir()));
    };
    client("./program HOST", &["failed to lookup", "Name or service not known"], build, program);
}

fn program(outer: &Outer, work: &Path) {
    fs::copy(outer.dir().join("program"), work.join("program")).unwrap();
}

/// With the proxy's variables, where this Node heeds them, and without.
#[test]
fn node() {
    need_tools!(inside: "node");
    let fetch = "node -e '
        fetch(\"http://HOST/hello\").then(async r => {
            if (!r.ok) throw new Error(r.status);
            process.stdout.write(await r.text());
        }).catch(e => { console.error(String(e), String(e.cause)); process.exit(1) })'";
    client(fetch, &["403", "ENOTFOUND"], plain, nothing);
    client(&format!("unset NODE_USE_ENV_PROXY; {fetch}"), &["ENOTFOUND"], plain, nothing);
}

/// Told to speak HTTP/1.1: by default it offers to switch to HTTP/2 in the clear, which the door does not serve.
#[test]
fn java() {
    need_tools!(inside: "java", "javac");
    let source = r#"
import java.net.URI;
import java.net.http.*;
class Client {
    public static void main(String[] args) throws Exception {
        var request = HttpRequest.newBuilder(URI.create("http://" + args[0] + "/hello")).build();
        var response = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build().send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) throw new Exception(response.body());
        System.out.print(response.body());
    }
}
"#;
    let write = |_: &Outer, work: &Path| fs::write(work.join("Client.java"), source).unwrap();
    client("java Client.java HOST", &["UnresolvedAddress", "UnknownHost", "ConnectException"], plain, write);
}

/// The command's own server on its own loopback is nobody else's business; the machine's loopback is another one.
#[test]
fn a_server_inside_is_reached_from_inside() {
    need_tools!(inside: "python3", "curl");
    Outer::run(|_| {
        let machine = Tcp::sink("127.0.0.1:8001");
        for mode in Mode::available() {
            let script = "echo from inside > file
                python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 &
                curl -sS --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 20 http://127.0.0.1:8000/file
                curl -sS http://localhost:8000/file
                curl -sS --max-time 5 http://127.0.0.1:8001/; echo code=$?";
            let run = Stockade::new(*mode).timeout(Duration::from_secs(60)).sh(script);
            assert_eq!(run.text(), "from inside\nfrom inside\ncode=7\n", "{mode:?} {run:?}");
            assert_eq!(run.events.refusals(), 0, "{mode:?} {run:?}");
        }
        machine.counters.assert_untouched();
    });
}
