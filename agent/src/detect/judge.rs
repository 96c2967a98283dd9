//! What one attempt does to the tests of its subject and of its owner.

use jiff::Timestamp;

use super::finding::{Evidence, Finding, Kind, Severity, Weighed};
use super::hypotheses::Hypotheses;
use super::memory::Meeting;
use super::site::mix;
use super::subject::{Owner, Subject};
use super::walk::{Test, Walk};
use super::{Observation, Settings, Signs, SubjectId};

/// A mail server without a way out tries every address of a mail exchanger at once: 5 at most with Postfix
/// (`smtp_mx_address_limit`, postconf(5)) and Exim (`hosts_max_try`, smtp transport). So many new destinations in one go
/// are one observation, the rest each one more.
const BURST: u8 = 5;
/// How long after the attempt before it, in microseconds, an attempt of the same thread belongs to the same go. A refused
/// connect() returns in microseconds; what lies between two of a mail server's is a line of its log.
const BURST_GAP: i64 = 10_000;
/// A retry of the same address so soon, in microseconds, comes before a server far away could have greeted.
const AT_ONCE: i64 = 50_000;
/// So many of them, one after the other, are a sign.
const RETRIES: u8 = 3;
/// So many refused programs of one user are a sign.
const MANY: u32 = 6;
/// Stretches of time, in microseconds.
const MINUTE: i64 = 60_000_000;
const TWO_MINUTES: i64 = 2 * MINUTE;
const TEN_MINUTES: i64 = 10 * MINUTE;
const DAY: i64 = 86_400_000_000;
/// What signs may add or take away together, in nats. They are taken for independent, which they are not quite; the bound
/// keeps them from deciding alone.
const PRIOR: f64 = 5.0;
/// What they may take away together in the fan-out test of a script of root's: just less than three first contacts
/// (3.3 nats each). What only looks like such a script is found three destinations later, and is found.
const EXCUSED: f64 = 9.8;
/// From so many times as fast on, regular attempts are a hammer all the same: a daemon that reconnects every second is not.
const REGULAR_HAMMER: u32 = 6;
/// So many times its past is a break from it.
const BREAK: f32 = 4.0;
/// How much of a subject's past is left after ten minutes: half of it after two weeks.
const FADE: f32 = 0.999_656_2;

/// One attempt before its tests.
pub(super) struct Judge<'a> {
    settings: &'a Settings,
    hypotheses: &'a Hypotheses,
    observation: &'a Observation,
    /// Microseconds since 1970, never less than at the attempt before.
    time: i64,
    /// The destination, as a hash.
    site: u64,
    findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        hypotheses: &'a Hypotheses,
        observation: &'a Observation,
        time: i64,
        site: u64,
    ) -> Self {
        Self { settings, hypotheses, observation, time, site, findings: Vec::new() }
    }

    /// What the tests have found.
    pub(super) fn findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Counts the attempt, whatever became of it.
    pub(super) fn count(&self, subject: &mut Subject) {
        let quiet = i64::from(self.settings.quiet) * 1_000_000;
        if self.time - subject.last > quiet {
            subject.found = 0;
        }
        subject.attempts = subject.attempts.saturating_add(1);
        subject.signs |= self.observation.signs.0;
        // What speaks for a subject holds only while every attempt shows it.
        if !self.observation.signs.has(Signs::ROOT_SCRIPT) {
            subject.signs &= !Signs::ROOT_SCRIPT.0;
        }
    }

    /// Mail handed to the local mail server, against the subject's own past.
    pub(super) fn local(&mut self, subject: &mut Subject) {
        subject.local = subject.local.saturating_add(1);
        let test = &self.hypotheses.local;
        let found = subject.has_found(Kind::LocalPath);
        let path = &mut subject.path;
        let at = stretch(self.time, TEN_MINUTES);
        let limit = |peak: f32| (self.settings.local_per_ten_minutes as f32).max(BREAK * peak);
        if at != path.buckets.at {
            let was = path.buckets.count as f32;
            let passed = at.saturating_sub(path.buckets.at);
            let over = was > limit(path.peak);
            // The stretch that was over the limit has been observed; the rest of the time was in the subject's favour.
            path.buckets.walk.favour(test, u64::from(passed) - u64::from(over));
            // What was found fault with is no past to measure by.
            path.pending = if found { 0.0 } else { path.pending.max(was) };
            if path.buckets.walk.score <= 0.0 {
                path.peak = path.peak.max(path.pending);
                path.pending = 0.0;
            }
            path.peak *= FADE.powi(passed.min(100_000) as i32);
            (path.buckets.at, path.buckets.count) = (at, 0);
        }
        path.buckets.count = path.buckets.count.saturating_add(1);
        let first_over = path.buckets.count == limit(path.peak) as u32 + 1;
        if first_over && !found {
            let (day, prior) = (self.day(), self.prior(subject, Kind::LocalPath));
            if subject.path.buckets.walk.observe(test, true, day, prior) {
                self.find(subject, Kind::LocalPath, test);
                subject.path.buckets.walk.begin_anew();
            }
        }
    }

    /// A refused attempt: where it went, how fast they come, and what that says.
    pub(super) fn refused(&mut self, subject: &mut Subject) {
        subject.refused = subject.refused.saturating_add(1);
        self.habits(subject);
        let burst = self.burst(subject);
        let meeting = self.meet(subject);
        let first = subject.refused == 1;
        self.fan_out(subject, meeting, first, burst);
        self.persistent(subject, meeting == Meeting::New && !first);
        self.hammer(subject);
        subject.thread = self.observation.thread;
    }

    /// The signs that only a row of attempts shows.
    fn habits(&self, subject: &mut Subject) {
        let address = mix(hash_address(self.observation)) as u32;
        let gap = self.time - subject.last;
        if subject.refused > 1 {
            subject.rhythm.gap(gap);
            let at_once = address == subject.address && gap < AT_ONCE;
            subject.retries = if at_once { subject.retries.saturating_add(1) } else { 0 };
        }
        subject.address = address;
        if subject.retries >= RETRIES {
            subject.signs |= Signs::IMMEDIATE_RETRIES.0;
        }
        let regular = Signs::REGULAR.0;
        subject.signs = if subject.rhythm.is_regular() { subject.signs | regular } else { subject.signs & !regular };
    }

    /// Whether the attempt goes on with what its thread does in one go, and within what a mail server does so.
    fn burst(&self, subject: &mut Subject) -> bool {
        let goes_on =
            subject.refused > 1 && self.observation.thread == subject.thread && self.time - subject.last <= BURST_GAP;
        subject.burst = if goes_on { subject.burst.saturating_add(1) } else { 1 };
        goes_on && subject.burst <= BURST
    }

    /// Meets the destination, by its address and by its domain: it is new when both are.
    fn meet(&self, subject: &mut Subject) -> Meeting {
        let now = stretch(self.time, TEN_MINUTES);
        let domain = self.observation.domain;
        let known = domain != 0 && subject.met.knows(mix(domain));
        if domain != 0 && !known {
            subject.met.learn(mix(domain));
            // One destination, known by two names.
            subject.met.distinct -= 1;
        }
        match subject.met.meet(self.site, now) {
            Meeting::New if known => Meeting::Known,
            meeting @ (Meeting::New | Meeting::Credit | Meeting::Known) => meeting,
        }
    }

    /// The first contact of all is new for everybody, and no observation.
    fn fan_out(&mut self, subject: &mut Subject, meeting: Meeting, first: bool, burst: bool) {
        let against = match meeting {
            Meeting::New if first || burst => return,
            Meeting::New => true,
            Meeting::Credit => false,
            Meeting::Known => return,
        };
        if subject.has_found(Kind::FanOut) {
            return;
        }
        let server = subject.signs & Signs::MAIL_SERVER.0 != 0;
        let test = if server { &self.hypotheses.mail_server } else { &self.hypotheses.fan_out };
        let (day, prior) = (self.day(), self.prior(subject, Kind::FanOut));
        if subject.fan_out.observe(test, against, day, prior) {
            self.find(subject, Kind::FanOut, test);
            subject.fan_out.begin_anew();
        }
    }

    fn persistent(&mut self, subject: &mut Subject, new: bool) {
        let test = &self.hypotheses.persistent;
        let at = stretch(self.time, TEN_MINUTES);
        let (day, prior) = (self.day(), self.prior(subject, Kind::Persistent));
        let buckets = &mut subject.persistent;
        if at != buckets.at {
            let quiet = u64::from(at.saturating_sub(buckets.at)) - u64::from(buckets.count > 0);
            buckets.walk.favour(test, quiet);
            (buckets.at, buckets.count) = (at, 0);
        }
        if !new {
            return;
        }
        buckets.count = buckets.count.saturating_add(1);
        let decided = buckets.count == 1 && buckets.walk.observe(test, true, day, prior);
        if decided && !subject.has_found(Kind::Persistent) {
            self.find(subject, Kind::Persistent, test);
            subject.persistent.walk.begin_anew();
        }
    }

    fn hammer(&mut self, subject: &mut Subject) {
        let test = &self.hypotheses.hammer;
        let at = stretch(self.time, TWO_MINUTES);
        let busy = 2 * self.settings.hammer_per_minute;
        // A timer, however fast, is a daemon that reconnects, unless it is faster than any of those.
        let enough = if subject.rhythm.is_regular() { busy.saturating_mul(REGULAR_HAMMER) } else { busy };
        let (day, prior) = (self.day(), self.prior(subject, Kind::Hammer));
        let buckets = &mut subject.hammer;
        if at != buckets.at {
            let quiet = u64::from(at.saturating_sub(buckets.at)) - u64::from(buckets.count == u32::MAX);
            buckets.walk.favour(test, quiet);
            (buckets.at, buckets.count) = (at, 0);
        }
        if buckets.count == u32::MAX {
            return;
        }
        buckets.count += 1;
        if buckets.count < enough {
            return;
        }
        // Observed, once a stretch.
        buckets.count = u32::MAX;
        if buckets.walk.observe(test, true, day, prior) && !subject.has_found(Kind::Hammer) {
            self.find(subject, Kind::Hammer, test);
            subject.hammer.walk.begin_anew();
        }
    }

    /// One user's programs: a bot that is a new program for each mail has no past of its own, its owner has.
    pub(super) fn owner(&mut self, owner: &mut Owner, subject: &mut Subject) {
        let quiet = i64::from(self.settings.quiet) * 1_000_000;
        if self.time - owner.last > quiet {
            owner.found = false;
        }
        let first = owner.attempts == 0;
        owner.attempts = owner.attempts.saturating_add(1);
        owner.last = self.time;
        let now = stretch(self.time, TEN_MINUTES);
        let program = owner.programs.meet(mix(self.observation.subject.0), now);
        let site = owner.met.meet(self.site, now);
        if owner.programs.distinct >= MANY {
            subject.signs |= Signs::MANY_EXECUTABLES.0;
        }
        let against = match (program, site) {
            (Meeting::New, Meeting::New) if !first => true,
            (Meeting::Credit, _) => false,
            (Meeting::New | Meeting::Known, _) => return,
        };
        let test = &self.hypotheses.many_programs;
        let prior = self.prior(subject, Kind::ManyPrograms);
        if !owner.found && owner.walk.observe(test, against, self.day(), prior) {
            owner.found = true;
            let evidence = Evidence {
                attempts: u64::from(owner.attempts),
                refused: u64::from(owner.attempts),
                local: 0,
                destinations: owner.met.distinct,
                programs: owner.programs.distinct,
                first: at(owner.first),
                ..self.evidence(Kind::ManyPrograms, &owner.walk, test, subject)
            };
            self.add(SubjectId(owner.id), Kind::ManyPrograms, evidence);
            owner.walk.begin_anew();
        }
    }

    /// What the signs say to a test, in nats, all together within bounds.
    fn prior(&self, subject: &Subject, kind: Kind) -> f64 {
        let signs = counted(subject, kind);
        let least = if signs.has(Signs::ROOT_SCRIPT) { EXCUSED } else { PRIOR };
        let mut left = signs.0;
        let mut sum = 0.0;
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            sum += self.settings.weights.get(bit as usize).copied().unwrap_or(0.0);
        }
        sum.clamp(-least, PRIOR)
    }

    fn find(&mut self, subject: &mut Subject, kind: Kind, test: &Test) {
        subject.remember_found(kind);
        let walk = match kind {
            Kind::FanOut | Kind::ManyPrograms => &subject.fan_out,
            Kind::Persistent => &subject.persistent.walk,
            Kind::Hammer => &subject.hammer.walk,
            Kind::LocalPath => &subject.path.buckets.walk,
        };
        let evidence = self.evidence(kind, walk, test, subject);
        self.add(SubjectId(subject.id), kind, evidence);
    }

    fn add(&mut self, subject: SubjectId, kind: Kind, evidence: Evidence) {
        let severity = severity(kind, evidence.prior);
        let time = at(self.time).unwrap_or(Timestamp::UNIX_EPOCH);
        self.findings.push(Finding { time, subject, kind, severity, evidence });
    }

    fn evidence(&self, kind: Kind, walk: &Walk, test: &Test, subject: &Subject) -> Evidence {
        let threshold = test.threshold(walk.tests);
        Evidence {
            walk: walk.score,
            prior: self.prior(subject, kind),
            threshold,
            alpha: (-threshold).exp(),
            tests_today: u32::from(walk.tests),
            signs: self.weighed(counted(subject, kind)),
            attempts: u64::from(subject.attempts),
            refused: u64::from(subject.refused),
            local: u64::from(subject.local),
            destinations: subject.met.distinct,
            programs: 1,
            against: u32::from(walk.against),
            in_favour: u32::from(walk.in_favour),
            first: at(subject.first),
            to_clear: walk.left(test),
        }
    }

    fn weighed(&self, signs: Signs) -> Vec<Weighed> {
        let shown = Signs::NAMES.iter().zip(self.settings.weights).filter(|((sign, _), _)| signs.has(*sign));
        shown.map(|((_, name), weight)| Weighed { sign: (*name).to_owned(), weight }).collect()
    }

    fn day(&self) -> u16 {
        u16::try_from(self.time / DAY).unwrap_or(0)
    }
}

/// The signs that count in a test. That a script is root's excuses a report to a handful of domains: no hammer, no hours of
/// new destinations, no flood for the local mail server.
fn counted(subject: &Subject, kind: Kind) -> Signs {
    let signs = Signs(subject.signs);
    match kind {
        Kind::FanOut => signs,
        Kind::Hammer | Kind::Persistent | Kind::LocalPath | Kind::ManyPrograms => signs.without(Signs::ROOT_SCRIPT),
    }
}

/// Who fans out is a bot as far as can be told; a hammer and a break in the local path may be a program that is broken,
/// unless its signs speak against it too.
fn severity(kind: Kind, prior: f64) -> Severity {
    match kind {
        Kind::FanOut | Kind::ManyPrograms | Kind::Persistent => Severity::Critical,
        Kind::Hammer | Kind::LocalPath if prior >= 2.0 => Severity::Critical,
        Kind::Hammer | Kind::LocalPath => Severity::Warning,
    }
}

/// The number of a stretch of time since 1970.
fn stretch(time: i64, length: i64) -> u32 {
    u32::try_from(time / length).unwrap_or(0)
}

fn at(time: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(time).ok()
}

fn hash_address(observation: &Observation) -> u64 {
    match observation.address {
        std::net::IpAddr::V4(v4) => u64::from(v4.to_bits()),
        std::net::IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(1)
        }
    }
}
