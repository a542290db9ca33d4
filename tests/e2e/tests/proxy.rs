//! What the command may send to the proxy (PRX): things that are no request.
#![forbid(unsafe_code)]

use stockade_testkit::{Arena, Outer};

const POLICY: &str = "
version: 1
network:
  endpoints:
    all: {hosts: ['*.corp.test'], ports: [80], private_addresses: [192.0.2.0/24]}
";

#[test]
fn what_is_no_proxy_request_is_closed_in_bounded_time() {
    Outer::run(|_| {
        let tries = [
            "proxy:GET /x HTTP/1.1\\r\\nHost: up.corp.test\\r\\n\\r\\n",
            "proxy:PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n",
            "proxy:\\0\\0\\0\\0",
            "proxy:SSH-2.0-x\\r\\n\\r\\n",
            "proxy:nonsense\\r\\n\\r\\n",
        ];
        Arena::new(POLICY, "up.corp.test").run(&tries, |mode, run| {
            assert_eq!(run.events.refusals(), tries.len() as u64, "one event for each: {mode:?} {run:?}");
            for attempt in tries {
                let outcome = run.outcome(attempt);
                let refused = !outcome.what.starts_with("ok HTTP") || outcome.what.starts_with("ok HTTP/1.1 4");
                assert!(refused && outcome.millis < 11_000, "{mode:?} {attempt} {outcome:?}");
            }
        });
    });
}
