//! The fence as data: what each rule matches, what it does, and why it is there. The back ends only spell it.

use super::{Mode, Spec};

/// Refused packets that are logged per second and at once; the rest are counted.
const LOGGED: Match = Match::Rate { per_second: 250, burst: 500 };

/// A chain. All but [`Chain::Refuse`] are entered by a hook and drop what no rule accepts, except before routing,
/// where nothing is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    Prerouting,
    Input,
    Forward,
    Output,
    Refuse,
}

impl Chain {
    /// In the order they are made: a chain exists before a rule goes to it.
    pub(super) const ALL: [Self; 5] = [Self::Refuse, Self::Prerouting, Self::Input, Self::Forward, Self::Output];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Refuse => "refuse",
        }
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

/// A condition. Those about addresses follow [`Match::Family`], those about ports follow [`Match::Tcp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Family(Ip),
    InLo,
    NotOutLo,
    ToLoopback(Ip),
    NotToLoopback(Ip),
    FromLoopback(Ip),
    Tcp,
    ToPort(u16),
    ToTransparentPort,
    ResetFlag,
    Rate { per_second: u32, burst: u32 },
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    /// Go to the chain `refuse` and do not come back.
    Refuse,
    /// Hand the connection to the transparent listener on this port.
    Transparent(Ip, u16),
    Count,
    Log(u16),
    /// TCP reset: the one refusal that `connect(2)` notices at once.
    Reset,
    /// ICMP port unreachable.
    Unreachable,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: Chain,
    pub(super) why: &'static str,
    pub(super) matches: Vec<Match>,
    pub(super) action: Action,
}

/// Every rule, chain by chain in the order of evaluation.
pub(super) fn rules(spec: &Spec, mode: Mode) -> Vec<Rule> {
    use {Action as A, Chain as C, Match as M};
    let rule = |chain, why, matches: &[Match], action| Rule { chain, why, matches: matches.to_vec(), action };
    let mut rules = Vec::new();
    if mode == Mode::Tproxy {
        for ip in [Ip::V4, Ip::V6] {
            rules.push(rule(
                C::Prerouting,
                "transparent ports of every address but loopback belong to the door",
                &[M::Family(ip), M::NotToLoopback(ip), M::Tcp, M::ToTransparentPort],
                A::Transparent(ip, spec.private_port),
            ));
        }
    }
    rules.push(rule(C::Input, "nothing arrives but from inside", &[M::InLo], A::Accept));
    rules.push(rule(C::Output, "a link that appears later carries nothing", &[M::NotOutLo], A::Refuse));
    if mode == Mode::Tproxy {
        rules.push(rule(
            C::Output,
            "the transparent listener takes no direct connection: it would have no destination",
            &[M::Tcp, M::ToPort(spec.private_port)],
            A::Refuse,
        ));
    }
    for ip in [Ip::V4, Ip::V6] {
        let why = "the command's own servers, the proxy, DNS, and every answer";
        rules.push(rule(C::Output, why, &[M::Family(ip), M::ToLoopback(ip)], A::Accept));
    }
    for ip in [Ip::V4, Ip::V6] {
        let matches = [M::Family(ip), M::FromLoopback(ip), M::Tcp, M::ToTransparentPort];
        rules.push(rule(C::Output, "on its way to the door", &matches, A::Accept));
    }
    rules.push(rule(
        C::Output,
        "the fence's own reset reaches a client bound to another address; it carries no data",
        &[M::Tcp, M::ResetFlag],
        A::Accept,
    ));
    rules.push(rule(C::Output, "everything else is refused", &[], A::Refuse));
    rules.push(rule(C::Refuse, "how many, also of those that are not logged", &[], A::Count));
    rules.push(rule(C::Refuse, "what the command tried, bounded", &[LOGGED], A::Log(spec.group)));
    rules.push(rule(C::Refuse, "connect(2) fails at once", &[M::Tcp], A::Reset));
    rules.push(rule(C::Refuse, "other protocols learn it too; what has no answer is dropped", &[], A::Unreachable));
    rules
}
