//! `portreeve detect replay`

mod replay;
mod summary;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::Outcome;
use crate::trace::Format;

/// Run the detector over attempts from files
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: portreeve attempts --json | portreeve detect replay -")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replay(Replay),
}

/// Say what the detector finds in recorded attempts or in a capture
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Findings come as JSON Lines, one each, in the order in which they were made; the same input gives the same bytes. Of \
captures every connection to a mail port counts as if it had been refused, and is held against the host that began it. \
The time is that of the trace, and the order that of the files as they are given: Zeek and Argus write a connection when \
it has ended, so that a time which goes back a little is no fault; it counts as the latest before it. Compressed files \
come by a pipe.

Exit codes: 0 the whole input was read, whatever was found; 2 it could not be read.

Example: portreeve attempts --json --since 7d | portreeve detect replay - --summary
Example: portreeve detect replay conn.log --port 25 --port 587 --expected 10.0.0.25/32
Example: zcat conn.*.log.gz | portreeve detect replay - --format zeek
Example: portreeve detect replay capture20110810.binetflow --summary")]
struct Replay {
    /// Traces, one after the other; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How they are written
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    format: Kind,
    /// Only connections to this port; may be given again [default: 25 for captures, all for attempts]
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// Hosts of a capture that are expected to send mail, and are not judged; may be given again
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    expected: Vec<IpNet>,
    /// A policy whose settings of the detector count, instead of the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For people: a table of the subjects, and how good it was where the trace has labels
    #[arg(long)]
    summary: bool,
}

/// The format of a trace, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// As the first line shows.
    Auto,
    /// The JSON Lines of `portreeve attempts --json`.
    Attempts,
    /// Zeek's conn.log, tab-separated or as JSON.
    Zeek,
    /// Bidirectional flows of Argus as CSV (CTU-13's *.binetflow).
    Argus,
}

impl Kind {
    fn format(self) -> Option<Format> {
        match self {
            Self::Auto => None,
            Self::Attempts => Some(Format::Attempts),
            Self::Zeek => Some(Format::Zeek),
            Self::Argus => Some(Format::Argus),
        }
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Replay(args) => replay::run(args),
    }
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let single = text.parse::<std::net::IpAddr>().map(IpNet::from);
    single.or_else(|_not_single| text.parse()).map_err(|_neither: ipnet::AddrParseError| {
        "neither an address like 10.0.0.25 nor a network like 10.0.0.0/24".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Cli;
    use super::*;

    fn parse(words: &str) -> Result<Replay, clap::Error> {
        let cli = Cli::try_parse_from(format!("portreeve detect replay {words}").split(' '))?;
        let super::super::Command::Detect(Args { command: Command::Replay(replay) }) = cli.command else {
            panic!("not `detect replay`")
        };
        Ok(replay)
    }

    #[test]
    fn files_ports_networks_and_format_are_understood() {
        let replay =
            parse("a - --format zeek --port 25 --port 587 --expected 10.0.0.25 --expected fe80::/10 --summary");
        let replay = replay.unwrap();
        assert_eq!(replay.files, [PathBuf::from("a"), PathBuf::from("-")]);
        assert_eq!((replay.format.format(), replay.ports), (Some(Format::Zeek), vec![25, 587]));
        assert_eq!(replay.expected, ["10.0.0.25/32".parse().unwrap(), "fe80::/10".parse::<IpNet>().unwrap()]);
        assert!(replay.summary);
        let plain = parse("a").unwrap();
        assert_eq!((plain.format.format(), plain.ports.len(), plain.summary), (None, 0, false));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["", "a --port 0", "a --port 65536", "a --expected x", "a --format pcap"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
