//! `stockade learn` on a real tool, and then `stockade run` with what it wrote, unedited.

use std::time::Duration;

use stockade_testkit::{
    Mode, Outer, Stockade,
    outer::ip,
    upstream::{Http, Response, Tcp},
};

use crate::{
    need_tools,
    world::{HELLO, World},
};

#[test]
fn what_was_learned_is_what_works() {
    need_tools!(inside: "git", "curl", "bash");
    need_tools!(outside: "git");
    Outer::run_within(Duration::from_secs(170), |outer| {
        // Learning keeps the rules about addresses, so the site has one that counts as public. It is local in here.
        ip(&["route", "add", "local", "99.99.99.0/24", "dev", "lo"]);
        let world = World::start(outer);
        world.repository();
        let dir = outer.dir().join("site");
        let public = Http::start("99.99.99.10:80", move |request| {
            let path = request.target().trim_start_matches('/').split('?').next().unwrap_or_default().to_owned();
            match std::fs::read(dir.join(path)) {
                Ok(bytes) => Response::Whole(200, bytes),
                Err(_) => Response::Whole(404, Vec::new()),
            }
        });
        let echo = Tcp::echo("99.99.99.11:22");
        world.dns.host("code.up.test", "99.99.99.10");
        world.dns.host("echo.up.test", "99.99.99.11");
        let script = "git clone -q http://code.up.test/repo.git out && cat out/hello; rm -rf out
            bash -c 'exec 3<>/dev/tcp/echo.up.test/22; echo echoed >&3; head -n 1 <&3'";
        for mode in Mode::available() {
            let stockade = Stockade::new(*mode);
            let learned = stockade.work().with_file_name("conf").join("learned.yaml");
            let run = stockade.subcommand("learn").arg("-o").arg(&learned).sh(script);
            run.assert_code(0);
            assert_eq!(run.text(), format!("{HELLO}echoed\n"), "{mode:?} {run:?}");
            let text = std::fs::read_to_string(&learned).unwrap_or_else(|e| panic!("{e}: {run:?}"));
            assert!(text.contains("hosts: [code.up.test]") && text.contains("ports: [80]"), "{mode:?} {text}");
            assert!(text.contains("hosts: [echo.up.test]") && text.contains("ports: [22]"), "{mode:?} {text}");
            assert_eq!(text.matches("hosts:").count(), 2, "no more than was seen: {text}");

            let (before, echoed) = (public.requests().len(), echo.counters.arrivals());
            let script = format!("{script}; curl -sS -o /dev/null -w '%{{http_code}}' --max-time 10 http://up.test/");
            let run = Stockade::new(*mode).policy(&text).sh(&script);
            assert_eq!(run.text(), format!("{HELLO}echoed\n403"), "{mode:?} {run:?}\n{text}");
            assert!(public.requests().len() > before && echo.counters.arrivals() > echoed, "{mode:?} {run:?}");
            assert_eq!(
                run.events.one("no_policy").host(),
                Some("up.test"),
                "nothing else was refused: {mode:?} {run:?}"
            );
        }
        world.http.counters().assert_untouched();
    });
}
