//! A door in an outer world of documentation addresses, with upstreams, a name server and an audit that is read.

use std::{
    cell::Cell,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use stockade_audit::{Action, Audit, Event, Network, Record, Settings, Tap, Writer};
use stockade_egress::{Config, Deps, Door, InForce, Listeners, System, Tls};
use stockade_policy::{Policy, Posture, Snapshot, Source};
use stockade_testkit::{
    outer::{self, Outer, RESOLVER},
    upstream::{Dns, https::Authority},
};
use stockade_tls::{Ca, Connector, Interceptor, Roots};
use stockade_types::{Generation, Reason, SandboxId};
use tokio::{runtime::Runtime, sync::watch};

/// Longest that any answer may take.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// An endpoint that lets everything named here through, to documentation addresses.
pub(crate) const POLICY: &str = "
version: 1
network:
  endpoints:
    web:
      hosts: [allowed.test, other.test, '*.wild.test', 192.0.2.10]
      ports: [80, 443, 8080]
      protocol: http
      tls: passthrough
      private_addresses: [192.0.2.0/24, 198.51.100.0/24, '2001:db8::/32']
    raw:
      hosts: [raw.test]
      ports: [22, 443, 9000]
      protocol: tcp
      private_addresses: [192.0.2.0/24]
    plain:
      hosts: [plain.test]
      ports: [80]
      private_addresses: [192.0.2.0/24]
    public:
      hosts: [public.test]
      ports: [443]
      tls: passthrough
    cluster:
      hosts: [10.0.0.1]
      ports: [6443]
      tls: passthrough
      private_addresses: [10.0.0.1/32]
";

pub(crate) struct World {
    pub(crate) proxy: SocketAddr,
    pub(crate) dns: SocketAddr,
    /// Answers the supervisor's questions.
    pub(crate) names: Dns,
    pub(crate) door: Door,
    /// Signs the certificates of HTTPS origins.
    pub(crate) authority: Authority,
    /// What the command trusts.
    pub(crate) ca: String,
    policy: watch::Sender<Arc<InForce>>,
    generation: Cell<u64>,
    audit: Audit,
    records: Arc<Mutex<Vec<Record>>>,
    _writer: Writer,
    _runtime: Runtime,
}

/// Addresses that direct connections may go to.
pub(crate) const DIRECT: [&str; 6] = [
    "198.18.0.1:443",
    "198.18.0.1:80",
    "198.18.0.1:9000",
    "[fd53:746f:636b::1]:443",
    "198.18.77.77:443",
    "203.0.113.10:443",
];

impl World {
    #[track_caller]
    pub(crate) fn run(body: impl FnOnce(&Self)) {
        Self::configured(Config::default(), body);
    }

    #[track_caller]
    pub(crate) fn configured(config: Config, body: impl FnOnce(&Self)) {
        Self::with_authority_of(SystemTime::now(), config, body);
    }

    /// The authority that the command trusts was made then.
    #[track_caller]
    pub(crate) fn with_authority_of(then: SystemTime, config: Config, body: impl FnOnce(&Self)) {
        Outer::run(|_| {
            outer::ip(&["-4", "route", "add", "local", "198.18.0.0/15", "dev", "lo"]);
            outer::ip(&["-6", "route", "add", "local", "fd53:746f:636b::/48", "dev", "lo"]);
            body(&Self::start(then, config));
        });
    }

    fn start(then: SystemTime, config: Config) -> Self {
        let names = Dns::start((RESOLVER, 53));
        for name in ["allowed.test", "other.test", "raw.test", "plain.test"] {
            names.host(name, "192.0.2.10");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let records = Arc::<Mutex<Vec<Record>>>::default();
        let seen = Arc::clone(&records);
        let tap = Tap::new(move |record: &Record| seen.lock().unwrap().push(record.clone()));
        let (audit, writer) = Audit::start(Settings::new(SandboxId::from_random([7; 8])).sink(tap)).unwrap();
        let (sender, policy) = watch::channel(snapshot(POLICY, &[], 1));
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let dns_tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let dns = dns_tcp.local_addr().unwrap();
        let address = proxy.local_addr().unwrap();
        let listeners = Listeners {
            proxy,
            transparent: DIRECT.iter().map(|a| TcpListener::bind(a).expect(a)).collect(),
            dns_udp: vec![UdpSocket::bind(dns).unwrap()],
            dns_tcp: vec![dns_tcp],
        };
        let resolver = Arc::new(System::from_host().unwrap());
        let authority = Authority::new();
        let tls = Tls {
            interceptor: Interceptor::new(Ca::new(then).unwrap()).unwrap(),
            connector: Connector::new(&Roots::none().with_pem(authority.pem().as_bytes()).unwrap()).unwrap(),
        };
        let ca = tls.interceptor.certificate_pem().to_owned();
        let door = config.build(Deps { policy, audit: audit.clone(), peers: None, resolver, tls });
        let serving = door.clone();
        runtime.spawn(async move { serving.serve(listeners, std::future::pending()).await.unwrap() });
        Self {
            proxy: address,
            dns,
            names,
            door,
            authority,
            ca,
            policy: sender,
            generation: Cell::new(1),
            audit,
            records,
            _writer: writer,
            _runtime: runtime,
        }
    }

    /// Puts another policy in force.
    pub(crate) fn reload(&self, text: &str) {
        self.reload_with(text, &[]);
    }

    /// The same, with Rego modules.
    pub(crate) fn reload_with(&self, text: &str, modules: &[Source]) {
        self.generation.set(self.generation.get() + 1);
        self.policy.send(snapshot(text, modules, self.generation.get())).unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.proxy)
    }

    /// A connection that CONNECT opened.
    #[track_caller]
    pub(crate) fn tunnel(&self, authority: &str) -> Client {
        let mut client = self.client();
        client.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        client
    }

    /// Sends a request head and returns the answer.
    pub(crate) fn ask(&self, head: &str) -> Answer {
        let mut client = self.client();
        client.send(head);
        client.answer()
    }

    /// Everything recorded so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        assert!(self.audit.flush(SOON));
        self.records.lock().unwrap().iter().map(|r| r.event.clone()).collect()
    }

    /// The connection facts of every refusal and failure so far, in order.
    pub(crate) fn refusals(&self) -> Vec<Network> {
        let refused = |n: &&Network| matches!(n.action, Action::Denied | Action::Failed);
        self.events()
            .iter()
            .filter_map(|e| match e {
                Event::Network(n) => Some(n),
                Event::Http(h) => Some(&h.network),
                _ => None,
            })
            .filter(refused)
            .cloned()
            .collect()
    }

    /// Waits for a refusal and asserts that it is the only one, and why. Forgets all records.
    #[track_caller]
    pub(crate) fn one_refusal(&self, reason: Reason) -> Network {
        let deadline = Instant::now() + SOON;
        loop {
            let refusals = self.refusals();
            if !refusals.is_empty() || Instant::now() > deadline {
                let reasons: Vec<_> = refusals.iter().map(|n| n.reason).collect();
                assert_eq!(reasons, [Some(reason)], "{refusals:#?}");
                self.records.lock().unwrap().clear();
                return refusals.into_iter().next().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub(crate) fn no_refusal(&self) {
        let refusals = self.refusals();
        assert!(refusals.is_empty(), "{refusals:#?}");
    }
}

fn snapshot(text: &str, modules: &[Source], generation: u64) -> Arc<InForce> {
    let policy = Policy::parse(&[Source::new("test.yaml", text)]).unwrap_or_else(|e| panic!("{e}"));
    Arc::new(Snapshot::compile(&policy, modules, Generation(generation), Posture::Enforce).unwrap().into())
}

/// A raw client.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn read(&mut self, n: usize) -> Vec<u8> {
        let mut buffer = vec![0; n];
        self.0.read_exact(&mut buffer).unwrap();
        buffer
    }

    /// Everything until the connection ends, however it ends; and whether it was reset.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        match self.0.read_to_end(&mut all) {
            Ok(_) => (all, false),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => (all, true),
            Err(e) => panic!("after {all:?}: {e}"),
        }
    }

    /// One response.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer before the end")
    }

    /// One response, or the end of the connection.
    #[track_caller]
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        Answer::read(&mut self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// One response, or the end of the connection.
    #[track_caller]
    pub(crate) fn read(stream: &mut impl Read) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) if head.is_empty() => return None,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
            }
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let field = |name: &str| {
            head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()))
        };
        let mut body = vec![0; field("content-length:").map_or(0, |l| l.parse().unwrap())];
        stream.read_exact(&mut body).unwrap();
        Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap().to_owned()
    }
}

/// A ClientHello as a real client would send it, with this server name.
pub(crate) fn client_hello(name: Option<&str>) -> Vec<u8> {
    let server_name = |name: &str| {
        let n = u16::try_from(name.len()).unwrap();
        let list = [&[0][..], &n.to_be_bytes(), name.as_bytes()].concat();
        let list = [&(n + 3).to_be_bytes()[..], &list].concat();
        [&[0, 0][..], &(n + 5).to_be_bytes(), &list].concat()
    };
    hello_with(&name.map(server_name).unwrap_or_default())
}

/// A ClientHello with these extensions beside the one that TLS 1.3 needs.
pub(crate) fn hello_with(extensions: &[u8]) -> Vec<u8> {
    let extensions = [&[0, 43, 0, 3, 2, 3, 4][..], extensions].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &len[1..], &body].concat();
    [&[0x16, 3, 1][..], &u16::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
