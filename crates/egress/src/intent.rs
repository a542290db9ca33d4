//! What a connection wants, from each front door in the same words.

use std::net::SocketAddr;

use stockade_policy::{Door, Intent};
use stockade_types::{Authority, AuthorityError, Host, Port};

use crate::{
    dns::pool::{Meaning, Pool},
    http::head::Violation,
    rescue::Refusal,
};

/// What an authority asks for. A synthetic address is the name it stands for, on every door.
pub(crate) fn of(door: Door, authority: Authority, pool: &Pool) -> Result<Intent, (Intent, Refusal)> {
    let Authority { host, port } = authority;
    let Host::Addr(addr) = host else { return Ok(Intent::new(door, host, port)) };
    match pool.meaning(addr) {
        Meaning::Itself => Ok(Intent::new(door, Host::Addr(addr.to_canonical()), port)),
        Meaning::Name(name) => Ok(Intent::new(door, Host::Name(name), port)),
        Meaning::Nothing => Err((Intent::new(door, Host::Addr(addr), port), Refusal::Mapping)),
    }
}

/// What a direct connection to `destination` asks for.
pub(crate) fn of_destination(destination: SocketAddr) -> Result<Authority, Refusal> {
    let port = Port::new(destination.port()).ok_or(Violation::Authority(AuthorityError::BadPort))?;
    Ok(Authority { host: Host::Addr(destination.ip().to_canonical()), port })
}

#[cfg(test)]
mod tests {
    use stockade_types::HostName;

    use super::*;

    #[test]
    fn a_synthetic_address_is_its_name_or_nothing() {
        let pool = Pool::new(10, 10);
        let name = HostName::parse("a.test").unwrap();
        let (given, _) = pool.assign(&name, true).unwrap();
        let ask = |text: String| of(Door::Connect, Authority::parse(&text, None).unwrap(), &pool);
        for literal in [format!("{}:443", given.v4), format!("[{}]:443", given.v6)] {
            assert_eq!(ask(literal).unwrap().host, Host::Name(name.clone()));
        }
        assert!(matches!(ask("198.18.99.99:443".into()), Err((_, Refusal::Mapping))));
        assert_eq!(ask("[::ffff:192.0.2.1]:443".into()).unwrap().host.to_string(), "192.0.2.1");
        assert_eq!(ask("a.test:443".into()).unwrap().host.to_string(), "a.test");
    }
}
