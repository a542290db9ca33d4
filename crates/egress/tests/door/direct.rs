//! Direct connections, as the transparent listener gets them.

use std::net::SocketAddr;

use stockade_testkit::upstream::{Http, Tcp};
use stockade_types::Reason;

use crate::{
    names::lookup,
    world::{Client, World, client_hello},
};

fn direct(to: &str) -> Client {
    Client::connect(to.parse::<SocketAddr>().unwrap())
}

#[test]
fn a_synthetic_address_leads_to_the_name_it_was_given_for() {
    World::run(|world| {
        let tls = Tcp::echo("192.0.2.10:443");
        let web = Http::hello("192.0.2.10:80");
        assert_eq!(lookup(world, "allowed.test", "A"), ["198.18.0.1"]);
        assert_eq!(lookup(world, "allowed.test", "AAAA"), ["fd53:746f:636b::1"]);
        let hello = client_hello(Some("allowed.test"));
        for to in ["198.18.0.1:443", "[fd53:746f:636b::1]:443"] {
            let mut client = direct(to);
            client.send(&hello);
            assert_eq!(client.read(hello.len()), hello, "{to}");
        }
        assert_eq!(tls.counters.arrivals(), 2);
        let mut client = direct("198.18.0.1:80");
        client.send("GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
        assert_eq!(client.answer().body, "hello from upstream\n");
        assert_eq!(web.requests()[0].header("host"), Some("allowed.test"));
        world.no_refusal();
    });
}

#[test]
fn a_fronted_name_or_host_is_refused() {
    World::run(|world| {
        let tls = Tcp::sink("192.0.2.10:443");
        let web = Http::hello("192.0.2.10:80");
        lookup(world, "allowed.test", "A");
        let mut client = direct("198.18.0.1:443");
        client.send(client_hello(Some("other.test")));
        assert_eq!(client.rest().0.first(), Some(&21), "an alert");
        world.one_refusal(Reason::SniMismatch);
        let mut client = direct("198.18.0.1:80");
        client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
        assert_eq!(client.answer().status, 421);
        world.one_refusal(Reason::AuthorityMismatch);
        tls.counters.assert_untouched();
        web.counters().assert_untouched();
    });
}

#[test]
fn refusals_speak_the_clients_protocol() {
    World::run(|world| {
        for (to, reason) in [("203.0.113.10:443", Reason::NoPolicy), ("198.18.77.77:443", Reason::MappingUnknown)] {
            let mut http = direct(to);
            http.send("GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
            let answer = http.answer();
            assert_eq!((answer.status, answer.reason().as_str()), (403, reason.code()), "{to}");
            world.one_refusal(reason);
            let mut tls = direct(to);
            tls.send(client_hello(Some("allowed.test")));
            assert_eq!(tls.rest().0.first(), Some(&21), "{to}");
            world.one_refusal(reason);
            let mut silent = direct(to);
            assert_eq!(silent.rest(), (Vec::new(), true), "reset, {to}");
            world.one_refusal(reason);
        }
    });
}

#[test]
fn an_opaque_endpoint_is_reached_directly_too_and_only_on_its_ports() {
    World::run(|world| {
        let upstream = Tcp::serve("192.0.2.10:9000", |mut s| std::io::Write::write_all(&mut s, b"welcome"));
        assert_eq!(lookup(world, "raw.test", "A"), ["198.18.0.1"], "the first name asked for");
        let mut client = direct("198.18.0.1:9000");
        assert_eq!(client.rest().0, b"welcome");
        assert_eq!(upstream.counters.arrivals(), 1);
        world.no_refusal();
        let mut other = direct("198.18.0.1:80");
        other.send("GET / HTTP/1.1\r\nHost: raw.test\r\n\r\n");
        assert_eq!(other.answer().reason(), "no_policy");
        world.one_refusal(Reason::NoPolicy);
    });
}

#[test]
fn a_synthetic_literal_in_connect_is_its_name() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.10:443");
        lookup(world, "allowed.test", "A");
        let mut tunnel = world.tunnel("198.18.0.1:443");
        let hello = client_hello(Some("allowed.test"));
        tunnel.send(&hello);
        assert_eq!(tunnel.read(hello.len()), hello);
        assert_eq!(upstream.counters.arrivals(), 1);
    });
}
