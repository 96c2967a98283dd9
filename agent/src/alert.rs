//! Alerts: what was found, kept until somebody has dealt with it, and told to whoever should know.

mod advice;
mod book;
mod filter;
mod model;
mod narrowest;
mod reporter;
pub mod response;
mod settings;
mod sink;
mod store;
mod told;
mod who;
mod xarf;

#[cfg(test)]
pub(crate) mod examples;

pub use book::{Book, ChangeError, Left, MOST, PORTREEVE, Save};
pub use filter::Filter;
pub use model::{Alert, CHANGES, Change, DESTINATIONS, Destination, FINDINGS, Occasion, Resolution, State, Who};
pub use narrowest::{Narrowest, NarrowestLan, NoRule, Wishes, narrowest, narrowest_lan};
pub use reporter::{Incomplete, ReporterSettings, is_domain, is_mail_address};
pub use settings::{
    CERTIFICATES, JOURNAL, SYSLOG, Settings, SinkKind, SinkSettings, SyslogFormat, SyslogTo, Template, Webhook,
    is_loopback,
};
pub use sink::{SinkStatus, Sinks};
pub use store::{Glimpse, Keep, Outcome, Page, Store, StoreEvent, glimpse, store_path};
pub use told::Told;
pub use xarf::{Reporter, report};
