//! `portreeve run`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Outcome, default_config};
use crate::agent::{self, Options};
use crate::instance::Instance;

/// Guard the port and show every attempt, in the foreground
#[derive(Debug, ClapArgs)]
#[command(after_help = "Ctrl-C ends the agent and leaves the port guarded; `portreeve detach` opens it.\n\n\
                        Example: portreeve run --config /etc/portreeve/portreeve.toml")]
pub(super) struct Args {
    /// The policy
    #[arg(long, value_name = "FILE", default_value_os_t = default_config())]
    config: PathBuf,
    /// Guard this sub-tree of the cgroup2 hierarchy instead of the policy's, for example /system.slice
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Keep attempts and the last good policy here instead of /var/lib/portreeve/INSTANCE
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Show attempts as JSON Lines
    #[arg(long)]
    json: bool,
    /// Do not show attempts
    #[arg(long)]
    quiet: bool,
    /// If neither the policy nor its last good copy can be put in force, let nobody send until it can, instead of not
    /// starting
    #[arg(long)]
    closed: bool,
    /// Pin the maps as those of this layout: to try an upgrade
    #[arg(long, hide = true)]
    map_version: Option<u32>,
}

pub(super) fn run(args: Args, instance: Instance) -> Outcome {
    let config = std::path::absolute(&args.config).unwrap_or(args.config);
    let options = Options {
        config,
        instance,
        cgroup: args.cgroup,
        json: args.json,
        quiet: args.quiet,
        closed: args.closed,
        map_version: args.map_version,
    };
    match agent::run(&options) {
        Ok(()) => Outcome::Done,
        Err(error) => {
            eprintln!("portreeve: {error}");
            Outcome::Wrong
        }
    }
}
