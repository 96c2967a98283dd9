//! The asking side.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::{Failure, Request};

/// How long an answer may take. Putting a large policy in force is the slowest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent is running (nobody answers at {}); start it: portreeve run", .0.display())]
    NotRunning(PathBuf),
    /// The socket file's group.
    #[error("you may not ask the agent; be root or a member of the group {group}", group = super::GROUP)]
    NotAllowed,
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("the agent's answer broke off: {0}")]
    Broken(#[source] io::Error),
}

/// A conversation with the agent.
#[derive(Debug)]
pub struct Client {
    lines: io::Lines<BufReader<UnixStream>>,
}

impl Client {
    /// Asks.
    ///
    /// # Errors
    ///
    /// When no agent runs or the caller may not ask it.
    pub fn ask(socket: &Path, request: &Request) -> Result<Self, ClientError> {
        let mut stream = UnixStream::connect(socket).map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotAllowed
            } else {
                ClientError::NotRunning(socket.to_owned())
            }
        })?;
        let follows = matches!(
            request,
            Request::Attempts { follow: true, .. }
                | Request::Alerts { follow: true, .. }
                | Request::Mail { follow: true, .. }
        );
        stream.set_read_timeout((!follows).then_some(PATIENCE)).map_err(ClientError::Broken)?;
        let mut line = serde_json::to_vec(request).map_err(|error| ClientError::Broken(error.into()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(ClientError::Broken)?;
        Ok(Self { lines: BufReader::new(stream).lines() })
    }

    /// The next line of the answer; `None` at its end.
    ///
    /// # Errors
    ///
    /// When the agent refuses or the conversation breaks off.
    pub fn next_line(&mut self) -> Result<Option<Value>, ClientError> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        let value: Value = line.and_then(|line| Ok(serde_json::from_str(&line)?)).map_err(ClientError::Broken)?;
        match serde_json::from_value::<Failure>(value.clone()) {
            Ok(Failure { forbidden: true, .. }) => Err(ClientError::NotAllowed),
            Ok(failure) => Err(ClientError::Refused(failure.error)),
            Err(_) => Ok(Some(value)),
        }
    }

    /// The only line of an answer that has one.
    ///
    /// # Errors
    ///
    /// As [`Self::next_line`], and when there is none.
    pub fn answer(mut self) -> Result<Value, ClientError> {
        self.next_line()?.ok_or_else(|| ClientError::Broken(io::ErrorKind::UnexpectedEof.into()))
    }
}
