//! `portreeve allow add`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use toml_edit::Datetime;

use super::change::{self, Answer};
use super::{Config, Outcome};
use crate::instance::Instance;
use crate::policy::edit::NewRule;
use crate::policy::{Account, CgroupPath};

/// Add a rule behind the others of the policy
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Everything a rule says must hold; of what is given more than once, one must. What is not given is left \
                  open. The change is checked and shown before it is written; the rest of the file stays as it is. The \
                  agent reloads; if it refuses, the file is put back.\n\n\
                  Example: portreeve allow add --exe /usr/lib/nagios/plugins/check_smtp --user nagios --to 192.0.2.10 \
                  --note 'ticket 4711'\n\
                  Example: portreeve allow add --exe /usr/bin/msmtp --user backup --expires 30d --dry-run"
)]
pub(super) struct Args {
    /// The program, by its whole path
    #[arg(long, value_name = "PATH")]
    exe: Vec<PathBuf>,
    /// The effective user, name or number
    #[arg(long, value_parser = account)]
    user: Vec<Account>,
    /// The effective group, name or number
    #[arg(long, value_parser = account)]
    group: Vec<Account>,
    /// The systemd unit, with its kind
    #[arg(long)]
    unit: Vec<String>,
    /// The cgroup, by its path below the guarded sub-tree
    #[arg(long, value_name = "PATH", value_parser = cgroup)]
    cgroup: Vec<CgroupPath>,
    /// The destination, an address or a network
    #[arg(long, value_name = "NETWORK", value_parser = NewRule::network)]
    to: Vec<IpNet>,
    /// The destination port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// What the rule is called in records; default: after the program and the user
    #[arg(long)]
    name: Option<String>,
    /// What it is for, for the comment above it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// The rule's description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The SHA-256 of the one program
    #[arg(long, value_name = "DIGITS", value_parser = sha256)]
    sha256: Option<[u8; 32]>,
    /// When it ends: a date (2027-01-31), a time (2027-01-31T18:00:00Z), or so long from now (12h, 30d)
    #[arg(long, value_name = "TIME", value_parser = expires)]
    expires: Option<Datetime>,
    /// Let it pass and record it as what would have been refused
    #[arg(long)]
    audit: bool,
    /// The program alone is enough, whoever runs it
    #[arg(long)]
    exe_alone: bool,
    /// Look the program and the names up below this folder, a container's root file system
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(args: Args, instance: &Instance) -> Outcome {
    let rule = NewRule {
        comment: None,
        name: args.name,
        description: args.description,
        exe: args.exe,
        exe_alone: args.exe_alone,
        user: args.user,
        group: args.group,
        unit: args.unit,
        cgroup: args.cgroup,
        to: args.to,
        ports: args.port.into_iter().collect(),
        sha256: args.sha256,
        expires: args.expires,
        audit: args.audit,
        root: args.root,
    };
    let carried = change::add(&args.config.config, rule, args.note.as_deref(), &args.answer, instance);
    carried.map_or_else(|outcome| outcome, |_| Outcome::Done)
}

fn account(text: &str) -> Result<Account, String> {
    Ok(NewRule::account(text))
}

fn cgroup(text: &str) -> Result<CgroupPath, String> {
    CgroupPath::parse(text).map_err(|why| format!("it {why}"))
}

fn sha256(text: &str) -> Result<[u8; 32], String> {
    NewRule::checksum(text).ok_or_else(|| "not the 64 hexadecimal digits that sha256sum prints".to_owned())
}

/// A date or time as TOML has it, or so long from now.
fn expires(text: &str) -> Result<Datetime, String> {
    if let Ok(datetime) = text.parse::<Datetime>()
        && datetime.date.is_some()
        && (datetime.time.is_none() || datetime.offset.is_some())
    {
        return Ok(datetime);
    }
    let ahead = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let hours = number.parse::<i64>().ok().filter(|number| *number > 0)?;
        let hours = match unit {
            "h" => Some(hours),
            "d" => hours.checked_mul(24),
            _ => None,
        };
        let end = Timestamp::now().checked_add(SignedDuration::from_hours(hours?)).ok()?;
        end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().parse().ok()
    };
    ahead().ok_or_else(|| {
        "neither a date like 2027-01-31, nor a time like 2027-01-31T18:00:00Z, nor 12h or 30d".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_understood() {
        for good in ["2027-01-31", "2027-01-31T18:00:00Z", "2027-01-31T18:00:00+01:00"] {
            assert_eq!(expires(good).unwrap().to_string(), good);
        }
        let tomorrow = expires("1d").unwrap().to_string().parse::<Timestamp>().unwrap().as_second();
        assert!((86_390..=86_400).contains(&(tomorrow - Timestamp::now().as_second())));
        for wrong in ["", "d", "0d", "-1d", "18:00:00", "2027-01-31T18:00:00", "tomorrow", "9223372036854775807d", "é"]
        {
            assert!(expires(wrong).is_err(), "{wrong}");
        }
    }
}
