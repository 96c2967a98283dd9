//! What lists records and goes on with those to come: `portreeve attempts` and `portreeve mail`.

use std::fmt::Display;
use std::io::Write as _;

use clap::Args as ClapArgs;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Outcome, complain, say};
use crate::control::{Client, Lost, Request};
use crate::instance::Instance;

/// Which records, and how they are shown.
#[derive(Debug, ClapArgs)]
pub(super) struct Which {
    /// Go on with those to come; with --since, after those since then
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Only those since: a time (2026-11-24T10:00:00Z) or so long ago (90s, 15m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) since: Option<Timestamp>,
    /// As JSON Lines
    #[arg(long)]
    json: bool,
}

/// Asks the agent for records of one kind, which are `called` so, and shows them.
pub(super) fn list<T: Display + DeserializeOwned>(
    request: &Request,
    which: &Which,
    called: &str,
    instance: &Instance,
) -> Outcome {
    let mut client = match Client::ask(&instance.socket(), request) {
        Ok(client) => client,
        Err(error) => return complain(&error),
    };
    let mut any = false;
    loop {
        match client.next_line() {
            Ok(Some(value)) => {
                any = true;
                // Whoever reads has seen enough (head).
                if show::<T>(value, which.json, called).is_err() {
                    return Outcome::Done;
                }
            }
            Ok(None) => break,
            Err(error) => return complain(&error),
        }
    }
    if !any && !which.json && !which.follow {
        say(&format!("no {called}\n"));
    }
    Outcome::Done
}

fn show<T: Display + DeserializeOwned>(value: Value, json: bool, called: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{value}")?;
    } else if let Ok(record) = serde_json::from_value::<T>(value.clone()) {
        writeln!(out, "{record}")?;
    } else if let Ok(Lost { lost }) = serde_json::from_value(value) {
        writeln!(out, "({lost} {called} came too fast to be shown; `portreeve status` has counted them)")?;
    }
    out.flush()
}

/// A time, or how long ago.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: i64 = number.parse().ok()?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        Timestamp::now().checked_sub(SignedDuration::from_secs(number.checked_mul(seconds)?)).ok()
    };
    ago().ok_or_else(|| "neither a time like 2026-11-24T10:00:00Z nor an age like 90s, 15m, 2h, 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_understood() {
        assert_eq!(since("2026-11-24T10:00:00Z").map(|t| t.as_second()), Ok(1_795_514_400));
        let hour = Timestamp::now().as_second() - since("1h").unwrap().as_second();
        assert!((3599..=3601).contains(&hour));
        for wrong in ["", "h", "1w", "yesterday", "9223372036854775807d", "é"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
