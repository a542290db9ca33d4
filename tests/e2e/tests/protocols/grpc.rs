//! gRPC by grpcio: calls of every kind, judged by service and method.

use std::{fs, process::Command};

use stockade_testkit::{Mode, Outer};

use crate::{
    need_packages, need_programs,
    world::{ADDRESS, LONG, World, beside, clients, requests, said},
};

const ENDPOINTS: &str = "
    shop:
      hosts: [shop.test]
      @site
      protocol: grpc
      allow: [{services: [shop.Catalogue], methods: [Get, Watch, Add, Talk]}]
";

#[test]
fn calls_stream_both_ways_and_are_judged_by_service_and_method() {
    need_programs!("python3");
    need_packages!("python/grpc");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["shop.test"]);
        let python = clients().join("python");
        let mut server = Command::new("/usr/bin/python3");
        let mut server = world.serve(server.arg(beside("shop.py")).arg(ADDRESS).env("PYTHONPATH", &python));
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, ENDPOINTS);
            fs::copy(beside("shopper.py"), stockade.work().join("shopper.py")).unwrap();
            let run = stockade.sh(&format!("PYTHONPATH={} python3 shopper.py", python.display()));
            for (case, want) in [
                ("get", "got x"),
                ("watch", "x 0 x 1 x 2"),
                ("add", "added 3"),
                ("talk", "heard 0 heard 1 heard 2"),
                ("after", "got x"),
            ] {
                assert_eq!(said(&run, case), want, "{case} {mode:?} {run:?}");
            }
            for (case, call) in [
                ("drop", "/shop.Catalogue/Drop"),
                ("orders", "/shop.Orders/Get"),
                ("denied_stream", "/shop.Orders/Talk"),
            ] {
                let text = said(&run, case);
                let why = format!("l7: no rule in `allow` of endpoint `shop` covers POST {call}");
                assert!(text == format!("PERMISSION_DENIED {why}"), "{case}: {text} {mode:?} {run:?}");
            }
            let calls = ["Get", "Watch", "Add", "Talk"].map(|name| format!("/shop.Catalogue/{name}"));
            let mut want = calls.to_vec();
            want.extend(["heard 0", "heard 1", "heard 2", "/shop.Catalogue/Get"].map(str::to_owned));
            assert_eq!(server.seen(), want, "{mode:?}");
            let denied = ["POST /shop.Catalogue/Drop", "POST /shop.Orders/Get", "POST /shop.Orders/Talk"];
            assert_eq!(requests(&run, "denied"), denied, "{mode:?} {run:?}");
            assert_eq!(requests(&run, "allowed").len(), 5, "{mode:?} {run:?}");
            assert!(run.stderr.contains("{services: [shop.Orders], methods: [Get]}"), "{mode:?} {run:?}");
        }
    });
}
