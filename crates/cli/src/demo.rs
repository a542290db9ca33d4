//! `demo`.
use crate::{Failure, args::DemoArgs};
pub(crate) fn run(_: &DemoArgs) -> Result<u8, Failure> { Ok(0) }
