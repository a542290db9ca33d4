use stockade_types::Generation;

use super::*;

fn event(host: &str, action: Action) -> Stamped {
    let network = Network {
        reason: Some(Reason::NoPolicy),
        host: Some(host.into()),
        port: Some(443),
        ..Network::new(action, "connect", Generation(1))
    };
    Stamped { time_ms: 0, event: Event::Network(network) }
}

fn stands_for(out: &[Stamped]) -> u64 {
    out.iter().map(|s| s.event.connection().unwrap().suppressed + 1).sum()
}

#[test]
fn burst_then_one_closing_event_with_the_rest() {
    let (mut fold, mut out) = (Fold::default(), Vec::new());
    for _ in 0..100 {
        fold.take(Duration::ZERO, event("a.test", Action::Denied), &mut out);
    }
    assert_eq!(out.len(), BURST as usize);
    fold.tick(WINDOW / 2, false, &mut out);
    assert_eq!(out.len(), BURST as usize, "the window is still open");
    fold.tick(WINDOW, false, &mut out);
    assert_eq!(out.len(), BURST as usize + 1);
    assert_eq!(out.last().unwrap().event.connection().unwrap().suppressed, 100 - u64::from(BURST) - 1);
    assert_eq!(stands_for(&out), 100);
    assert!(fold.is_empty());
}

#[test]
fn a_new_window_closes_the_old_one() {
    let (mut fold, mut out) = (Fold::default(), Vec::new());
    for n in 0..60 {
        fold.take(WINDOW / 20 * n, event("a.test", Action::Denied), &mut out);
    }
    fold.tick(Duration::ZERO, true, &mut out);
    assert_eq!(stands_for(&out), 60);
    assert_eq!(out.len(), 3 * (BURST as usize + 1));
}

#[test]
fn what_was_let_through_is_never_folded() {
    let (mut fold, mut out) = (Fold::default(), Vec::new());
    for _ in 0..100 {
        fold.take(Duration::ZERO, event("a.test", Action::Allowed), &mut out);
    }
    assert_eq!(out.len(), 100);
    assert!(fold.is_empty());
}

#[test]
fn events_that_stand_for_several_keep_their_count() {
    let (mut fold, mut out) = (Fold::default(), Vec::new());
    for _ in 0..BURST + 3 {
        let mut e = event("a.test", Action::Denied);
        e.event.connection_mut().unwrap().suppressed = 4;
        fold.take(Duration::ZERO, e, &mut out);
    }
    fold.tick(WINDOW, false, &mut out);
    assert_eq!(stands_for(&out), 5 * (u64::from(BURST) + 3));
}

#[test]
fn a_million_invented_names_take_a_bounded_table() {
    let (mut fold, mut out) = (Fold::default(), Vec::new());
    for n in 0..1_000_000 {
        fold.take(Duration::ZERO, event(&format!("x{n}.evil.test"), Action::Denied), &mut out);
    }
    assert!(fold.rows.len() <= MAX_KEYS + 1);
    assert!(out.len() <= MAX_KEYS + BURST as usize);
    fold.tick(WINDOW, false, &mut out);
    assert_eq!(stands_for(&out), 1_000_000);
}
