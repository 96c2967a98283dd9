//! One file a hook.

pub(crate) mod connect;
pub(crate) mod exec;
pub(crate) mod learn;
