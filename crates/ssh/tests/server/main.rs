//! The server against a client that does what no well-behaved one does. Programs are ordinary processes here; the end to
//! end tests have OpenSSH's clients and a sandbox.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::Duration;

use russh::{ChannelMsg, client};
use tokio::time::timeout;

use crate::world::{World, client_config};

const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that a channel says, until it closes.
async fn output(channel: &mut russh::Channel<client::Msg>) -> (Vec<u8>, Option<u32>) {
    let (mut bytes, mut code) = (Vec::new(), None);
    while let Ok(Some(message)) = timeout(PATIENCE, channel.wait()).await {
        match message {
            ChannelMsg::Data { data } => bytes.extend(&data[..]),
            ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
            _ => {}
        }
    }
    (bytes, code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_does_not_read_stops_its_client_and_nobody_else() {
    let world = World::start().await;
    let client = world.client(client_config()).await;
    let deaf = client.channel_open_session().await.unwrap();
    deaf.exec(true, "sleep 4; wc -c").await.unwrap();
    let (mut heard, write) = deaf.split();
    let sending = tokio::spawn(async move {
        let chunk = vec![b'x'; 1 << 20];
        for sent in 0..24u32 {
            // The client's library holds what windows do not let through; we see its own bound only.
            if timeout(PATIENCE, write.data_bytes(chunk.clone())).await.is_err() {
                return Err(sent);
            }
        }
        write.eof().await.unwrap();
        Ok(write)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The other channel is served while that one is stuck, in both directions.
    for _ in 0..5 {
        let mut echo = client.channel_open_session().await.unwrap();
        echo.exec(true, "cat").await.unwrap();
        echo.data(&b"hello"[..]).await.unwrap();
        echo.eof().await.unwrap();
        assert_eq!(output(&mut echo).await, (b"hello".to_vec(), Some(0)));
    }
    assert!(!sending.is_finished(), "24 MiB went to a program that reads nothing");
    let write = sending.await.unwrap().expect("the rest went through once it read");
    let mut counted = Vec::new();
    while let Ok(Some(message)) = timeout(PATIENCE, heard.wait()).await {
        if let ChannelMsg::Data { data } = message {
            counted.extend(&data[..]);
        }
    }
    drop(write);
    assert_eq!(String::from_utf8(counted).unwrap().trim(), (24 << 20).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_window_is_kept_to_and_holds_nobody_up() {
    let world = World::start().await;
    let mut config = client_config();
    config.window_size = 1000;
    let client = world.client(config).await;
    let mut slow = client.channel_open_session().await.unwrap();
    slow.exec(true, "head -c 3000000 /dev/zero").await.unwrap();
    // The client's library waits for whoever does not read, so it is read while the other is served.
    let reading = tokio::spawn(async move { output(&mut slow).await });
    let mut quick = client.channel_open_session().await.unwrap();
    quick.exec(true, "echo quick").await.unwrap();
    assert_eq!(output(&mut quick).await, (b"quick\n".to_vec(), Some(0)));
    let (bytes, code) = reading.await.unwrap();
    assert_eq!((bytes.len(), code), (3_000_000, Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_bounded_in_number_and_rate() {
    let world = World::start().await;
    let client = world.client(client_config()).await;
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..180 {
        match client.channel_open_session().await {
            Ok(channel) => open.push(channel),
            Err(_) => refused += 1,
        }
    }
    assert_eq!((open.len(), refused), (128, 52));
    let mut one = open.pop().unwrap();
    one.exec(true, "echo works").await.unwrap();
    assert_eq!(output(&mut one).await.0, b"works\n");
    drop(open);
    assert!(world.refusals("limit") > 0);
    // Whoever goes on is put out.
    let flood = async {
        for _ in 0..100_000u32 {
            if matches!(client.channel_open_session().await, Err(russh::Error::SendError | russh::Error::Disconnect)) {
                return true;
            }
            if client.is_closed() {
                return true;
            }
        }
        false
    };
    assert!(timeout(PATIENCE, flood).await.unwrap(), "a client that asks without end stays");
    // And others come in as before.
    let next = world.client(client_config()).await;
    let mut fine = next.channel_open_session().await.unwrap();
    fine.exec(true, "echo fine").await.unwrap();
    assert_eq!(output(&mut fine).await, (b"fine\n".to_vec(), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_exchanged_anew_under_load_and_as_often_as_a_client_wants() {
    let world = World::start().await;
    let mut config = client_config();
    config.limits = russh::Limits::new(100_000, 100_000, Duration::from_secs(3600));
    let client = world.client(config).await;
    let mut echo = client.channel_open_session().await.unwrap();
    echo.exec(true, "cat").await.unwrap();
    let (mut heard, write) = echo.split();
    let sending = tokio::spawn(async move {
        for n in 0..40u8 {
            write.data_bytes(vec![n; 50_000]).await.unwrap();
        }
        write.eof().await.unwrap();
        write
    });
    let mut bytes = Vec::<u8>::new();
    while let Ok(Some(message)) = timeout(PATIENCE, heard.wait()).await {
        if let ChannelMsg::Data { data } = message {
            bytes.extend(&data[..]);
        }
    }
    let _write = sending.await.unwrap();
    let want: Vec<u8> = (0..40u8).flat_map(|n| vec![n; 50_000]).collect();
    assert!(bytes == want, "{} of {} bytes", bytes.len(), want.len());
    echo = client.channel_open_session().await.unwrap();
    drop(echo);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_in_without_a_listed_key() {
    let world = World::start().await;
    let mut stranger = world.connect(client_config()).await;
    assert!(!stranger.authenticate_none("sandbox").await.unwrap().success());
    assert!(!stranger.authenticate_password("sandbox", "").await.unwrap().success());
    let key = world::key(9);
    let tried = stranger.authenticate_publickey("sandbox", world::with_hash(key)).await.unwrap();
    assert!(!tried.success());
    assert!(stranger.channel_open_session().await.is_err(), "no channel before a login");
    drop(stranger);
    assert!(timeout(PATIENCE, world.wait_for_refusal("ssh_auth")).await.is_ok());
    // The positive control.
    let client = world.client(client_config()).await;
    let mut fine = client.channel_open_session().await.unwrap();
    fine.exec(true, "exit 3").await.unwrap();
    assert_eq!(output(&mut fine).await.1, Some(3));
}
