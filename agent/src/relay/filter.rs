//! Where a message can be stopped, and who does it.
//!
//! A [`Filter`] is asked at the points it names, in the order of the conversation. The first that refuses decides. What it
//! says is turned into what the client hears by the filter's [`Action`]: behind the mail server's queue a refusal becomes a
//! report to a sender who may be forged, so it is not always the right thing.

mod bounce;
mod chain;
mod limits;
mod rate;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::message::Headers;
use super::origin::{Forwarded, Origin};
use super::settings::Action;
use super::spool::Spool;
use super::wire::reply::Reply;

pub use bounce::{BounceGuard, Refused};
pub(super) use chain::Chain;
pub use chain::FilterStatus;

/// A point of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A client has connected.
    Connect,
    /// It has said its name.
    Helo,
    /// It has named the sender.
    Mail,
    /// It has named a recipient.
    Rcpt,
    /// It wants to send the message.
    Data,
    /// The message is there but for its end, without which the upstream does not take it.
    End,
}

impl Point {
    /// All of them, in the order of the conversation.
    pub const ALL: [Self; 6] = [Self::Connect, Self::Helo, Self::Mail, Self::Rcpt, Self::Data, Self::End];

    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::End => "end",
        }
    }
}

/// What a filter sees. What is not known yet is empty.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Who connected.
    pub origin: &'a Origin,
    /// What XFORWARD told.
    pub forwarded: &'a Forwarded,
    /// The client's name for itself.
    pub helo: &'a str,
    /// The envelope's sender; empty for the null sender.
    pub sender: Option<&'a str>,
    /// The recipient that is asked about, at [`Point::Rcpt`].
    pub recipient: Option<&'a str>,
    /// How many recipients there are so far, without that one.
    pub recipients: &'a [String],
    /// The bytes of the message: those that the client has announced, or at the end those that came.
    pub size: u64,
    /// What its header says, at the end.
    pub headers: Option<&'a Headers>,
    /// All of it, at the end, if some filter wants it.
    pub message: Option<&'a Spool>,
}

/// What a filter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Accept,
    /// Go on, and put a field into the message's header. At [`Point::End`] that is possible only if some filter wants the
    /// whole message; else it is recorded only.
    Tag {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Go on after a while.
    Delay(Duration),
    /// Stop.
    Refuse(Refusal),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is done about it.
    pub action: Action,
    /// The code of a reply that rejects.
    pub code: u16,
    /// The subject and detail of its enhanced code (RFC 3463), as `7.1`.
    pub detail: &'static str,
    /// Why, in words.
    pub text: String,
}

impl Refusal {
    /// What the client hears. `id` is the message's.
    #[must_use]
    pub fn reply(&self, id: &str) -> Reply {
        let (text, detail) = (&self.text, self.detail);
        match self.action {
            Action::Reject => Reply::new(self.code, &format!("5.{detail} portreeve: {text} ({id})")),
            Action::Hold => Reply::new(451, &format!("4.{detail} portreeve: {text} ({id})")),
            Action::Discard => Reply::new(250, &format!("2.0.0 Ok ({id})")),
        }
    }
}

/// An answer, now or when it is known.
pub enum Answer<'a> {
    /// It is known.
    Now(Verdict),
    /// Somebody has to be asked.
    Later(Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>),
}

/// One that looks at messages.
pub trait Filter: Send + Sync + std::fmt::Debug {
    /// Its name in records.
    fn name(&self) -> &str;

    /// Where it is asked.
    fn points(&self) -> &[Point];

    /// Whether it must see the whole message at [`Point::End`]. The upstream then gets none of it before that.
    fn wants_message(&self) -> bool {
        false
    }

    /// What it says at one of its points.
    fn look<'a>(&'a self, point: Point, seen: Seen<'a>) -> Answer<'a>;
}
