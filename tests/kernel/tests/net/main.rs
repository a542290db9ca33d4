//! The network of the sandbox on the real kernel, as root and as two kinds of nobody: NET-01 to NET-06, NET-10,
//! NET-20, NET-22, NET-25, NET-26, DNS-03 at the level of the fence.
#![allow(clippy::unwrap_used, clippy::panic)]

mod drift;
mod fence;
mod iptables;
mod log;
mod routes;
mod transparent;

/// Makes a test of each case for each kind of user.
macro_rules! cases {
    ($($case:ident),* $(,)?) => { $(mod $case {
        #[test]
        fn root() {
            stockade_test_kernel::net::as_root(super::$case);
        }
        #[test]
        fn uid_1000() {
            stockade_test_kernel::net::as_user(1000, super::$case);
        }
        #[test]
        fn uid_65534() {
            stockade_test_kernel::net::as_user(65_534, super::$case);
        }
    })* };
}
pub(crate) use cases;
