//! One file a hook.

mod checksum;
pub(crate) mod connect;
pub(crate) mod exec;
pub(crate) mod existing;
mod first;
pub(crate) mod lan;
pub(crate) mod learn;
pub(crate) mod packet;
mod plain;
pub(crate) mod refusal;
pub(crate) mod relay;
pub(crate) mod setsockopt;
pub(crate) mod witness;
