//! The models, and how many of each are looked at.

use super::actor::Actor;
use super::world::World;
use super::{benign, bots};

/// What a model is, for the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A bot that goes from one destination to the next.
    FansOut,
    /// A bot that does not.
    Hammers,
    /// A bot that goes from one destination to the next, and is allowed more of them by what it looks like.
    Disguised,
    /// Means no harm.
    Benign,
    /// Means no harm, looks like a bot, and is not counted.
    Uncounted,
}

impl Sort {
    /// Whether it should be found.
    pub(crate) fn is_bot(self) -> bool {
        match self {
            Self::FansOut | Self::Hammers | Self::Disguised => true,
            Self::Benign | Self::Uncounted => false,
        }
    }
}

/// A model.
#[derive(Debug)]
pub(crate) struct Model {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) sort: Sort,
    /// How many subjects of it are looked at: as many as there is time for.
    pub(crate) subjects: u32,
    /// The port, where it matters to a record.
    pub(crate) port: u16,
    act: fn(&mut Actor<'_>),
}

/// All of them.
pub(crate) const MODELS: [Model; 21] = [
    bot("dictionary spammer", Sort::FansOut, 25, bots::dictionary),
    bot("Neris-like", Sort::FansOut, 25, bots::neris),
    bot("Emotet-like", Sort::FansOut, 587, bots::emotet),
    bot("slow snowshoe", Sort::FansOut, 25, bots::snowshoe),
    bot("one-relay hammer", Sort::Hammers, 25, bots::hammer),
    bot("forking web-shell mailer", Sort::FansOut, 25, bots::forking),
    bot("TRW-evading interleaver", Sort::FansOut, 25, bots::interleaver),
    bot("interleaver that retries", Sort::FansOut, 25, bots::retrying),
    bot("bot as a script of root's", Sort::Disguised, 25, bots::rooted),
    bot("local path", Sort::Hammers, 25, bots::local_path),
    means_well("PHPMailer to a smart host", 200, benign::phpmailer),
    means_well("cron mail by direct MX", 200, benign::cron),
    means_well("monitoring probe", 60, benign::monitoring),
    means_well("unsanctioned MTA in a container", 40, benign::container_mta),
    means_well("newsletter software", 80, benign::newsletter),
    means_well("migration to a new smart host", 200, benign::migration),
    means_well("resolver failover", 200, benign::failover),
    means_well("allowed scanner", 100, benign::scanner),
    means_well("broken daemon", 100, benign::broken_daemon),
    means_well("application with a local server", 100, benign::local_application),
    Model { name: "administrator by hand", sort: Sort::Uncounted, subjects: 200, port: 25, act: benign::administrator },
];

const fn bot(name: &'static str, sort: Sort, port: u16, act: fn(&mut Actor<'_>)) -> Model {
    Model { name, sort, subjects: 200, port, act }
}

const fn means_well(name: &'static str, subjects: u32, act: fn(&mut Actor<'_>)) -> Model {
    Model { name, sort: Sort::Benign, subjects, port: 25, act }
}

impl Model {
    /// One subject of it, with all that it does in the order of time. Numbers are unique over all models.
    pub(crate) fn subject<'w>(&self, world: &'w World, seed: u64, number: u32) -> Actor<'w> {
        let mut actor = Actor::new(world, seed, self.name, number);
        (self.act)(&mut actor);
        actor.finish();
        actor
    }
}
