//! Who alerts are told to: a syslog daemon, the journal, an HTTPS server. The real ones, apart from the machine's own.

mod https;
mod journald;
mod rsyslogd;

pub use https::{HttpsServer, certificates};
pub use journald::Journald;
pub use rsyslogd::Rsyslogd;
