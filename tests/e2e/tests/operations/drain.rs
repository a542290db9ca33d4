//! The end of a run: what was sent arrives, and nothing is waited for longer than the bound.

use std::{sync::mpsc, thread};

use stockade_testkit::{Mode, Outer, Stockade, upstream::Tcp};

use super::*;

/// A command that sends and ends at once has sent.
#[test]
fn what_was_sent_before_the_end_arrives() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        let (sender, received) = mpsc::channel();
        let _slow = Tcp::serve("192.0.2.10:9000", move |mut stream| {
            // By then the command has ended.
            thread::sleep(Duration::from_millis(300));
            let (mut all, mut chunk) = (0, [0; 4096]);
            loop {
                match stream.read(&mut chunk)? {
                    0 => break,
                    n => all += n,
                }
            }
            sender.send(all).map_err(std::io::Error::other)
        });
        for mode in Mode::available() {
            let script = "exec 3<>/dev/tcp/127.0.0.1/3128
                printf 'CONNECT raw.test:9000 HTTP/1.1\\r\\nHost: raw.test:9000\\r\\n\\r\\n' >&3
                read -r status <&3; read -r end <&3; head -c 50000 /dev/zero >&3; exit 0";
            let run = Stockade::new(*mode).policy(POLICY).run(&["bash", "-c", script]);
            run.assert_code(0);
            let got = received.recv_timeout(SOON).expect("the origin saw the end of what was sent");
            assert_eq!(got, 50_000, "{mode:?}");
            let closed: Vec<_> = run.events.iter().filter(|e| e.action() == Some("closed")).collect();
            assert_eq!(closed.len(), 1, "{mode:?} {run:?}");
            assert_eq!(closed[0].0["traffic"]["bytes_out"], 50_000, "{mode:?} {run:?}");
            let stop = run.events.iter().last().unwrap();
            assert_eq!(stop.class(), 6002, "the end of the run is the last event {run:?}");
        }
    });
}

/// An origin that never ends cannot keep the sandbox.
#[test]
fn who_never_ends_is_cut_off() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        let origin = Tcp::serve("192.0.2.10:9000", |mut stream| {
            stream.write_all(b"x")?;
            thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        let mode = *Mode::available().first().unwrap();
        let script = "exec 3<>/dev/tcp/127.0.0.1/3128
            printf 'CONNECT raw.test:9000 HTTP/1.1\\r\\nHost: raw.test:9000\\r\\n\\r\\n' >&3
            read -r status <&3; exit 3";
        let run = Stockade::new(mode).policy(POLICY).timeout(Duration::from_secs(30)).run(&["bash", "-c", script]);
        run.assert_code(3);
        assert_eq!(origin.counters.arrivals(), 1);
        assert!(run.events.iter().any(|e| e.action() == Some("closed")), "recorded all the same {run:?}");
    });
}
