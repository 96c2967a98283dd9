//! The relay: what passes it, what does not, and what becomes of mail when anything breaks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "relay/brought.rs"]
mod brought;
#[path = "relay/chaos.rs"]
mod chaos;
#[path = "relay/faults.rs"]
mod faults;
#[path = "relay/secure.rs"]
mod secure;
#[path = "relay/servers.rs"]
mod servers;
#[path = "relay/stage.rs"]
mod stage;
#[path = "relay/talk.rs"]
mod talk;
#[path = "relay/upstream.rs"]
mod upstream;
#[path = "relay/wire.rs"]
mod wire;
