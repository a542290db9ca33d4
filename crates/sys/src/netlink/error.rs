//! What the kernel says when it refuses.

use std::{fmt, io};

use super::{Frame, HEADER, NLMSG_ERROR, attributes};

const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Why a netlink operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused one message.
    #[error("{0}")]
    Refused(Refusal),
    /// The socket itself failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A message or an answer is larger than the bound.
    #[error("{operation}: more than {limit} bytes")]
    TooLarge {
        /// What was attempted.
        operation: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The kernel did not answer as netlink says it must.
    #[error("{operation}: the kernel's answer is incomplete")]
    Incomplete {
        /// What was attempted.
        operation: &'static str,
    },
}

/// One message that the kernel refused.
#[derive(Debug)]
pub struct Refusal {
    /// What was attempted.
    pub operation: &'static str,
    /// Which message of the request, counted from 0.
    pub index: usize,
    /// The error number.
    pub errno: i32,
    /// The kernel's own words (extended acknowledgement), if it has any.
    pub message: Option<String>,
    /// Offset of the attribute it blames, from the start of the message header.
    pub offset: Option<usize>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, io::Error::from_raw_os_error(self.errno))?;
        match &self.message {
            Some(m) => write!(f, " ({m})"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The error number, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(r) => Some(r.errno),
            Self::Io { source, .. } => source.raw_os_error(),
            Self::TooLarge { .. } | Self::Incomplete { .. } => None,
        }
    }
}

/// Reads an acknowledgement, an error, or the end of a dump: error number, then for errors the header of the
/// refused message (or all of it), then attributes.
pub(super) fn refusal(operation: &'static str, index: usize, frame: Frame<'_>) -> Refusal {
    let word = |at: usize| Some(i32::from_ne_bytes(frame.body.get(at..at + 4)?.try_into().ok()?));
    let errno = word(0).map_or(libc::EPROTO, i32::wrapping_neg);
    let mut refusal = Refusal { operation, index, errno, message: None, offset: None };
    if frame.kind != NLMSG_ERROR || frame.flags & NLM_F_ACK_TLVS == 0 {
        return refusal;
    }
    let original = match word(4) {
        Some(len) if frame.flags & NLM_F_CAPPED == 0 => usize::try_from(len).unwrap_or(HEADER).next_multiple_of(4),
        _ => HEADER,
    };
    for a in attributes(frame.body.get(4 + original..).unwrap_or_default()) {
        match a.kind {
            NLMSGERR_ATTR_MSG => refusal.message = Some(a.text().into_owned()),
            NLMSGERR_ATTR_OFFS => refusal.offset = a.u32().and_then(|o| usize::try_from(o).ok()),
            _ => {}
        }
    }
    refusal
}
