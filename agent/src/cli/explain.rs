//! `portreeve explain`

use std::net::{IpAddr, SocketAddr};

use clap::Args as ClapArgs;

use super::{Outcome, ask, read, say};
use crate::agent::Explanation;
use crate::control::{Question, Request};
use crate::host::Mac;
use crate::instance::Instance;

/// Say what the verdict would be, the rule, and dimension by dimension why
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Answered with the tables in force, by the code that runs in the kernel. Exit code 0: it would \
                        pass; 1: it would be refused.\n\n\
                        Example: portreeve explain --pid 4711 --to 203.0.113.5:25\n\
                        Example: portreeve explain --exe /usr/bin/php --user www-data --to 203.0.113.5\n\
                        Example: portreeve explain --from 10.0.0.23 --to 203.0.113.5:25"
)]
pub(super) struct Args {
    /// A running process; what is given beside it counts instead of what it is
    #[arg(long, required_unless_present_any = ["exe", "user", "unit", "from"])]
    pid: Option<u32>,
    /// An executable
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// The effective user, name or number
    #[arg(long)]
    user: Option<String>,
    /// The effective group, name or number
    #[arg(long)]
    group: Option<String>,
    /// The systemd unit, or the cgroup's path
    #[arg(long)]
    unit: Option<String>,
    /// The address of a LAN host behind this gateway, in place of a process
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["pid", "exe", "user", "group", "unit"])]
    from: Option<IpAddr>,
    /// Its MAC address; without it the one that is known for the address
    #[arg(long, requires = "from")]
    mac: Option<Mac>,
    /// The VLAN it is in
    #[arg(long, requires = "from")]
    vlan: Option<String>,
    /// The destination, with a port or without for 25
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = destination)]
    to: SocketAddr,
    /// As one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let question = Question {
        pid: args.pid,
        exe: args.exe.clone(),
        user: args.user.clone(),
        group: args.group.clone(),
        unit: args.unit.clone(),
        from: args.from,
        mac: args.mac,
        vlan: args.vlan.clone(),
        to: Some(args.to),
    };
    let value = match ask(instance, &Request::Explain(question)) {
        Ok(value) => value,
        Err(outcome) => return outcome,
    };
    let explanation: Explanation = match read(value.clone()) {
        Ok(explanation) => explanation,
        Err(outcome) => return outcome,
    };
    if args.json {
        say(&format!("{value}\n"));
    } else {
        say(&text(&explanation));
    }
    if explanation.verdict == "deny" { Outcome::Failed } else { Outcome::Done }
}

fn text(explanation: &Explanation) -> String {
    let word = match explanation.verdict.as_str() {
        "deny" => "REFUSED",
        "observe" => "passes, but only because it is observed",
        "unguarded" => "not guarded",
        _ => "allowed",
    };
    let mut text = format!(
        "{} to {}: {word}\n  because {}\n\n  {:<9}{:<44}satisfies\n",
        explanation.subject, explanation.destination, explanation.because, "", "asked about"
    );
    for why in &explanation.dimensions {
        let rules = if why.satisfies.is_empty() { "no rule".to_owned() } else { why.satisfies.join(", ") };
        // A value that is longer than its column still stands apart.
        text.push_str(&format!("  {:<9}{:<42}  {rules}\n", why.dimension, why.value));
    }
    text
}

/// An address with a port, or without one for port 25.
fn destination(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, 25))
        .map_err(|error| format!("{error}: write 203.0.113.5, 203.0.113.5:587 or [2001:db8::5]:25"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_a_port_or_get_25() {
        assert_eq!(destination("203.0.113.5:587").unwrap().port(), 587);
        for text in ["203.0.113.5", "2001:db8::5", "[2001:db8::5]", "[2001:db8::5]:25"] {
            assert_eq!(destination(text).unwrap().port(), 25, "{text}");
        }
        assert!(destination("mx.example.org:25").is_err());
    }
}
