//! `publish`: ports outside that lead to servers inside.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use stockade_types::Port;

/// How many a sandbox may have.
pub const MAX_PUBLISHED: usize = 64;

/// One of them: `[ADDR:]PORT[:PORT]`, in the policy and on the command line alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Publish {
    /// Where it listens, outside.
    pub listen: SocketAddr,
    /// Where it leads, on the sandbox's loopback.
    pub port: Port,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected [ADDRESS:]PORT[:PORT INSIDE], such as 8080, 8080:3000 or 0.0.0.0:80:3000".to_owned();
        let (addr, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (addr, ports) = rest.split_once("]:").ok_or_else(wrong)?;
                (IpAddr::V6(addr.parse().map_err(|_| wrong())?), ports)
            }
            None => match text.split_once(':') {
                Some((addr, ports)) if addr.contains('.') => (IpAddr::V4(addr.parse().map_err(|_| wrong())?), ports),
                // Who wants it to be reached from elsewhere says so.
                _ => (IpAddr::V4(Ipv4Addr::LOCALHOST), text),
            },
        };
        let port = |text: &str| match text.parse::<u16>().ok().filter(|_| !text.starts_with('+')) {
            Some(0) => Err("port 0 is none".to_owned()),
            Some(n) => Port::new(n).ok_or_else(wrong),
            None => Err(wrong()),
        };
        let (outer, inner) = match ports.split_once(':') {
            Some((outer, inner)) => (port(outer)?, port(inner)?),
            None => (port(ports)?, port(ports)?),
        };
        Ok(Self { listen: SocketAddr::new(addr, outer.get()), port: inner })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.listen, self.port.get())
    }
}

/// Ports inside that the door itself has in every sandbox: its proxy, and DNS.
const DOOR: [u16; 2] = [3128, 53];

impl Publish {
    /// Whether it leads to the door, which is not the command's server.
    #[must_use]
    pub(crate) fn leads_to_the_door(&self) -> bool {
        DOOR.contains(&self.port.get())
    }
}

/// The first two that listen on the same address.
#[must_use]
pub fn clash(all: &[Publish]) -> Option<Publish> {
    all.iter().enumerate().find_map(|(n, p)| all.iter().skip(n + 1).any(|o| o.listen == p.listen).then_some(*p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, Source};

    #[test]
    fn texts() {
        for (text, listen, port) in [
            ("8080", "127.0.0.1:8080", 8080),
            ("8080:3000", "127.0.0.1:8080", 3000),
            ("0.0.0.0:80", "0.0.0.0:80", 80),
            ("0.0.0.0:80:3000", "0.0.0.0:80", 3000),
            ("[::]:80", "[::]:80", 80),
            ("[::1]:80:3000", "[::1]:80", 3000),
        ] {
            let publish: Publish = text.parse().unwrap();
            assert_eq!((publish.listen.to_string().as_str(), publish.port.get()), (listen, port), "{text}");
            assert_eq!(publish.to_string().parse(), Ok(publish), "what is shown can be read");
        }
        for bad in [
            "",
            ":",
            "0",
            "8080:0",
            "0:80",
            "65536",
            "-1",
            "+80",
            "1:2:3",
            "::1:80",
            "[::1]80",
            "[::1]:",
            "host:80",
            "0.0.0.0",
            "0.0.0.0:",
            "1.2.3:80",
            "0.0.0.0:80:",
            "0.0.0.0:80:3000:1",
            " 80",
            "80/tcp",
            "0x50",
        ] {
            assert!(bad.parse::<Publish>().is_err(), "{bad:?}");
        }
    }

    fn policy(texts: &[&str]) -> Result<Vec<String>, String> {
        let sources: Vec<Source> = texts.iter().map(|t| Source::new("p.yaml", format!("version: 1\n{t}\n"))).collect();
        let policy = Policy::parse(&sources).map_err(|e| e.to_string())?;
        Ok(policy.publish().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_policy_says_it_in_the_same_words() {
        let both = policy(&["publish: [8080, '0.0.0.0:80:3000']", "publish: [81]"]).unwrap();
        assert_eq!(both, ["127.0.0.1:8080:8080", "0.0.0.0:80:3000", "127.0.0.1:81:81"]);
        assert_eq!(policy(&["publish: []"]), Ok(Vec::new()));
        for (text, said) in [
            ("publish: [0]", "publish[0]"),
            ("publish: [70000]", "publish[0]"),
            ("publish: ['host:80']", "expected [ADDRESS:]PORT"),
            ("publish: [{port: 80}]", "publish[0]"),
            ("publish: 8080", "publish"),
            ("publish: [80, '127.0.0.1:80:3000']", "published twice"),
            ("published: [80]", "publish"),
        ] {
            let refused = policy(&[text]).unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        let many: Vec<String> = (8000..=8000 + MAX_PUBLISHED).map(|n| n.to_string()).collect();
        let refused = policy(&[&format!("publish: [{}]", many.join(", "))]).unwrap_err();
        assert!(refused.contains("more than 64"), "{refused}");
    }

    #[test]
    fn it_is_fixed_when_the_sandbox_starts() {
        let parse = |text: &str| Policy::parse(&[Source::new("p.yaml", text)]).unwrap();
        let (one, other) = (parse("version: 1\npublish: [80]"), parse("version: 1\npublish: [81]"));
        assert!(one.same_static(&one) && !one.same_static(&other));
    }

    #[test]
    fn two_of_one_address_clash() {
        let all = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Publish>>();
        assert_eq!(clash(&all(&["80", "81", "0.0.0.0:80"])), None);
        assert_eq!(clash(&all(&["80", "81", "80:3000"])).map(|p| p.listen.port()), Some(80));
    }
}
