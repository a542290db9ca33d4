use std::{
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use rustix::net;
use stockade_sys::{notify, socket};

use super::*;

fn root() -> OwnedFd {
    use rustix::fs::{Mode, OFlags, open};
    open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// A listener, and a way to connect to it from a thread whose connects are reported.
struct World {
    peers: Arc<Peers>,
    door: tokio::net::TcpListener,
    /// With the client's own address, where one is wanted.
    order: mpsc::Sender<Option<SocketAddr>>,
    connected: mpsc::Receiver<StdStream>,
}

async fn world() -> World {
    let door = StdListener::bind("127.0.0.1:0").unwrap();
    let target = door.local_addr().unwrap();
    door.set_nonblocking(true).unwrap();
    let (made, listener) = mpsc::channel();
    let (order, orders) = mpsc::channel::<Option<SocketAddr>>();
    let (done, connected) = mpsc::channel();
    thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        made.send(notify::report_connects().unwrap()).unwrap();
        while let Ok(own) = orders.recv() {
            let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
            own.iter().for_each(|own| net::bind(&socket, own).unwrap());
            net::connect(&socket, &target).unwrap();
            done.send(StdStream::from(socket)).unwrap();
        }
    });
    let sources = Sources {
        diag: socket::open_diag().unwrap(),
        connects: listener.recv().unwrap(),
        root: root(),
        init: std::os::unix::process::parent_id(),
    };
    let peers = Peers::start(sources).unwrap();
    peers.started(Process::open(std::process::id()).unwrap().inside().unwrap());
    World { peers, door: tokio::net::TcpListener::from_std(door).unwrap(), order, connected }
}

impl World {
    fn who(&self, accepted: &TcpStream) -> Result<Evidence, IdentityError> {
        self.peers.find(accepted)
    }

    async fn connect(&self) -> (StdStream, TcpStream) {
        self.connect_from(None).await
    }

    async fn connect_from(&self, own: Option<SocketAddr>) -> (StdStream, TcpStream) {
        self.order.send(own).unwrap();
        let (accepted, _) = self.door.accept().await.unwrap();
        (self.connected.recv().unwrap(), accepted)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_opener_is_known_and_known_again() {
    let world = world().await;
    let (client, accepted) = world.connect().await;
    let evidence = world.who(&accepted).unwrap();
    assert_eq!(evidence.pid(), std::process::id());
    assert_eq!(evidence.path(), std::env::current_exe().unwrap().to_str().unwrap());
    assert_eq!(evidence.above.as_ref().map(Vec::len), Some(0), "{evidence:?}");
    world.peers.recheck(&evidence, &[]).await.unwrap();
    assert_eq!(world.who(&accepted).unwrap_err().reason(), Reason::IdentityUnresolved, "a claim is used once");
    // Under another number it is the same socket.
    let moved = client.try_clone().unwrap();
    drop(client);
    world.peers.recheck(&evidence, &[]).await.unwrap();
    drop(moved);
    let error = world.peers.recheck(&evidence, &[]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::IdentityUnresolved);
}

/// A request can be left in a connection that its opener resets, and another program can then get the same addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_reset_is_nobodys() {
    let world = world().await;
    let (client, accepted) = world.connect().await;
    net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    let address = client.local_addr().unwrap();
    drop(client);
    let (_next, accepted_next) = world.connect_from(Some(address)).await;
    assert_eq!(accepted_next.peer_addr().unwrap(), address);
    assert_eq!(world.who(&accepted).unwrap_err().reason(), Reason::IdentityUnresolved);
    world.who(&accepted_next).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_that_was_not_seen_is_nobodys() {
    let world = world().await;
    let _client = StdStream::connect(world.door.local_addr().unwrap()).unwrap();
    let (accepted, _) = world.door.accept().await.unwrap();
    assert_eq!(world.who(&accepted).unwrap_err().reason(), Reason::IdentityUnresolved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_executable_makes_it_ambiguous() {
    let world = world().await;
    let (client, accepted) = world.connect().await;
    let evidence = world.who(&accepted).unwrap();
    assert!(client.as_raw_fd() > 2);
    let stdin: std::os::fd::OwnedFd = client.try_clone().unwrap().into();
    let mut other = Command::new("/bin/sleep").arg("60").stdin(Stdio::from(stdin)).spawn().unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(30), world.peers.lost(&evidence, &[])).await.unwrap();
    assert_eq!(lost, IdentityError::Ambiguous);
    assert_eq!(world.peers.recheck(&evidence, &[]).await, Err(IdentityError::Ambiguous));
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn named_executables_must_be_out_of_reach() {
    use stockade_policy::Binary;
    let root = root();
    let binary = |path: &str| Binary { path: path.into(), sha256: None };
    let absent = Pins::resolve(&root, &[binary("/no/such/program")]).unwrap();
    assert!(absent.notices()[0].contains("no such file inside"), "{:?}", absent.notices());
    let file = std::env::current_exe().unwrap();
    let writable = Pins::resolve(&root, &[binary(file.to_str().unwrap())]);
    assert!(matches!(writable, Err(PinError::Writable(_))), "{writable:?}");
    assert!(matches!(Pins::resolve(&root, &[binary("/etc")]), Err(PinError::Kind(_))));
    assert!(matches!(Pins::resolve(&root, &[binary("/etc/passwd")]), Err(PinError::Kind(_))));
}
