//! A server whose programs are ordinary processes, and clients of it.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use russh::{
    client,
    keys::{
        PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate,
        ssh_key::private::{Ed25519Keypair, KeypairData},
    },
};
use stockade_audit::{Audit, Event, Settings, Tap, Writer};
use stockade_ssh::{AuthorizedKeys, Config, Ended, Happened, HostKey, Listener, Program, Running, Spawner};
use stockade_types::SandboxId;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

pub(crate) fn with_hash(key: PrivateKey) -> PrivateKeyWithHashAlg {
    PrivateKeyWithHashAlg::new(Arc::new(key), None)
}

pub(crate) fn client_config() -> client::Config {
    client::Config::default()
}

/// Starts ordinary processes.
struct Processes;

struct Process(i32);

impl Running for Process {
    fn signal(&self, _: i32) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0) {
            // It may have ended.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::HUP);
        }
    }
}

impl Spawner for Processes {
    fn spawn(
        &self,
        program: Program,
        stdio: Vec<OwnedFd>,
    ) -> io::Result<(Box<dyn Running>, UnboundedReceiver<Happened>)> {
        let words: Vec<String> = program.argv.into_iter().map(|a| String::from_utf8(a).unwrap()).collect();
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]);
        let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(stdio).unwrap();
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        let mut child = command.spawn()?;
        drop(command);
        let process = Process(child.id().cast_signed());
        let (sender, events) = unbounded_channel();
        sender.send(Happened::Started { terminal: None }).unwrap();
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            let _ = sender.send(Happened::Ended(Ended::Exited(status.code().unwrap_or(255))));
        });
        Ok((Box::new(process), events))
    }

    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> {
        Box::pin(TcpStream::connect(to))
    }

    fn is_ours(&self, _: SocketAddr) -> bool {
        false
    }

    fn shell(&self) -> Result<Vec<u8>, String> {
        Ok(b"/bin/sh".to_vec())
    }

    fn sftp(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

pub(crate) struct World {
    address: SocketAddr,
    reasons: Arc<Mutex<Vec<&'static str>>>,
    _writer: Writer,
}

impl World {
    pub(crate) async fn start() -> Self {
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reasons);
        let tap = Tap::new(move |record: &stockade_audit::Record| {
            if let Event::Ssh(event) = &record.event {
                seen.lock().unwrap().extend(event.reason.map(stockade_types::Reason::code));
            }
        });
        let (audit, writer) = Audit::start(Settings::new(SandboxId::from_random([1; 8])).sink(tap)).unwrap();
        let keys = AuthorizedKeys::parse(&key(1).public_key().to_openssh().unwrap()).unwrap();
        let config = Config {
            host_key: HostKey::ephemeral().unwrap(),
            keys: Some(keys.into()),
            tokens: None,
            names: Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = config.build(Arc::new(Processes), audit);
        tokio::spawn(server.serve(Listener::Tcp(listener), std::future::pending()));
        Self { address, reasons, _writer: writer }
    }

    /// Connected, and nobody yet.
    pub(crate) async fn connect(&self, config: client::Config) -> client::Handle<Trusting> {
        client::connect(Arc::new(config), self.address, Trusting).await.unwrap()
    }

    /// Connected and logged in.
    pub(crate) async fn client(&self, config: client::Config) -> client::Handle<Trusting> {
        let mut client = self.connect(config).await;
        assert!(client.authenticate_publickey("sandbox", with_hash(key(1))).await.unwrap().success());
        client
    }

    pub(crate) fn refusals(&self, reason: &str) -> usize {
        self.reasons.lock().unwrap().iter().filter(|r| **r == reason).count()
    }

    pub(crate) async fn wait_for_refusal(&self, reason: &str) {
        while self.refusals(reason) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}
