use super::*;

fn spec(ports: &[u16]) -> Spec {
    Spec { transparent_ports: ports.iter().copied().collect(), private_port: 15_001, group: 5 }
}

#[test]
fn a_specification_that_contradicts_itself_is_refused_before_the_kernel_is_asked() {
    let many = Spec { transparent_ports: (20_000..20_000 + 2049).collect(), ..spec(&[]) };
    for (bad, word) in [
        (spec(&[443, 15_001]), "15001"),
        (spec(&[0]), "ports 0"),
        (many, "at most 2048"),
        (Spec { group: 0, ..spec(&[443]) }, "group"),
        (Spec { private_port: 0, ..spec(&[443]) }, "private port"),
    ] {
        let error = bad.check().unwrap_err();
        assert!(matches!(&error, FenceError::Spec(s) if s.contains(word)), "{error}");
    }
    assert!(spec(&[80, 443]).check().is_ok());
}

#[test]
fn every_way_out_of_the_output_chain_is_loopback_the_door_or_refused() {
    use rules::{Action, Chain, Match};
    for mode in [Mode::Tproxy, Mode::Listeners] {
        let rules = rules::rules(&spec(&[443]), mode);
        let output: Vec<_> = rules.iter().filter(|r| r.chain == Chain::Output).collect();
        for rule in output.iter().filter(|r| r.action == Action::Accept) {
            let narrow = |m: &Match| matches!(m, Match::ToLoopback(_) | Match::ToTransparentPort | Match::ResetFlag);
            assert!(rule.matches.iter().any(narrow), "{rule:?}");
        }
        let first_accept = output.iter().position(|r| r.action == Action::Accept).unwrap();
        let refused = |m: Match| output.iter().take(first_accept).any(|r| r.matches.contains(&m));
        assert!(refused(Match::NotOutLo));
        assert_eq!(refused(Match::ToPort(15_001)), mode == Mode::Tproxy);
        assert_eq!((&output.last().unwrap().action, output.last().unwrap().matches.len()), (&Action::Refuse, 0));
    }
}
