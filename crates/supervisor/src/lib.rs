//! Boot, launch, session, reload: one sandbox from start to summary
#![forbid(unsafe_code)]
