//! Alerts: what was found, kept until somebody has dealt with it, and told to whoever should know.

mod model;
mod settings;
mod sink;
mod xarf;

pub use model::{Alert, CHANGES, Change, DESTINATIONS, Destination, FINDINGS, Occasion, Resolution, State, Who};
pub use settings::{
    CERTIFICATES, JOURNAL, SYSLOG, Settings, SinkKind, SinkSettings, SyslogFormat, SyslogTo, Template, Webhook,
    is_loopback,
};
pub use sink::{SinkStatus, Sinks};
pub use xarf::{Reporter, report};
