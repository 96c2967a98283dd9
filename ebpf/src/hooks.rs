//! One file a hook.

pub(crate) mod connect;
pub(crate) mod exec;
pub(crate) mod existing;
pub(crate) mod lan;
pub(crate) mod learn;
pub(crate) mod packet;
pub(crate) mod refusal;
pub(crate) mod setsockopt;
pub(crate) mod witness;
