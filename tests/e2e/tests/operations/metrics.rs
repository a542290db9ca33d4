//! Metrics: what happened is counted, and nothing of what was said is a label.

use stockade_testkit::{Mode, Outer, Stockade};

use super::*;

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().unwrap()
}

#[test]
fn what_happened_is_counted_without_a_word_of_what_was_said() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        for mode in Mode::available() {
            let script = "
                curl -sS http://up.test/canary-path?canary-query=1 -H 'x-canary: canary-field'
                curl -sS http://up.test/canary-path
                curl -sS http://canary-host.test/
                curl -sS --noproxy '*' --max-time 5 http://192.0.2.77:7777/
                getent hosts canary-name.test
                echo done; read x";
            let stockade = Stockade::new(*mode).policy(POLICY).arg("--health").arg(SHOWN).arg("--metrics").arg(SHOWN);
            let run = stockade.env("STOCKADE_CANARY", "canary-variable").spawn(&["sh", "-c", script]);
            run.wait_for("done");
            let text = wait_until("/metrics", SOON, |status, text| {
                status == 200 && text.contains("stockade_fence_refused_total{") && text.contains("reason=\"no_policy\"")
            });
            assert!(!text.contains("canary"), "{mode:?}\n{text}");
            let requests = |outcome, reason| {
                value(
                    &text,
                    &format!("stockade_requests_total{{door=\"forward\",outcome=\"{outcome}\",reason=\"{reason}\"}}"),
                )
            };
            assert!(requests("allowed", "none") >= 2.0 && requests("denied", "no_policy") >= 1.0, "{text}");
            assert!(value(&text, "stockade_responses_total{class=\"2xx\"}") >= 2.0);
            assert!(value(&text, "stockade_fence_refused_total{protocol=\"tcp\"}") >= 1.0);
            assert!(value(&text, "stockade_body_bytes_total{direction=\"in\"}") >= 2.0 * 20.0);
            assert!(value(&text, "stockade_dns_questions_total") >= 1.0);
            assert!(value(&text, "stockade_lookups_total{result=\"found\"}") >= 1.0);
            assert!(value(&text, "stockade_connections_accepted_total") >= 3.0);
            assert!(value(&text, "stockade_start_seconds") > 0.0);
            assert!(value(&text, "stockade_processes") >= 1.0);
            assert!((value(&text, "stockade_ready"), value(&text, "stockade_policy_generation")) == (1.0, 1.0));
            every_name_is_documented(&text);
            run.finish().assert_code(1);
        }
    });
}

fn every_name_is_documented(text: &str) {
    let docs = include_str!("../../../../docs/operations.md");
    for name in text.lines().filter_map(|l| l.strip_prefix("# TYPE stockade_")?.split(' ').next()) {
        let documented =
            [format!("`{name}`"), format!("`{name}_total`"), format!("`{name}{{"), format!("`{name}_total{{")];
        assert!(documented.iter().any(|n| docs.contains(n)), "docs/operations.md does not explain {name}");
    }
}
