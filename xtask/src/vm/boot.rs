//! The boot test: a small Debian with systemd as its first process, the units as they are shipped, and a bot that
//! starts as early as anything can. Once there is a network, nothing of the bot's may get through.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Cache, Tried,
    console::Report,
    cpio::Archive,
    debian, image, lab,
    machine::{self, Accel, Boot},
};
use crate::{
    exec::{headline, workspace},
    test::Summary,
};
use scenarios::{Agent, Expect, SCENARIOS, Scenario};

mod scenarios;

/// `--boot` without a scenario's name.
pub(super) const ALL: &str = "all";

const PACKAGES: &[&str] = &[
    "usr-is-merged",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "iproute2",
    "kmod",
    "libgcc-s1",
    "mount",
    "nftables",
    "procps",
    "python3",
    "systemd",
    "util-linux",
];

/// The test's own units, and their programs.
const UNITS: [(&str, &str); 4] = [
    ("exchanger.service", include_str!("boot/exchanger.service")),
    ("bot.service", include_str!("boot/bot.service")),
    ("network.service", include_str!("boot/network.service")),
    ("verdict.service", include_str!("boot/verdict.service")),
];
const PROGRAMS: [(&str, &str); 4] = [
    ("exchanger.py", include_str!("boot/exchanger.py")),
    ("bot.py", include_str!("boot/bot.py")),
    ("network.sh", include_str!("boot/network.sh")),
    ("verdict.py", include_str!("boot/verdict.py")),
];

/// Without a login on the console, where it would get between the lines.
const PARAMETERS: &str = "systemd.unit=multi-user.target systemd.getty_auto=no";

/// For units and programs that may do everything else but guard.
const RUN_FAILS: &str = "\
#!/bin/sh
for word; do
    [ \"$word\" != run ] || exit 1
done
exec /opt/lab/portreeve \"$@\"
";

/// Boots the scenarios that `chosen` names on each kernel.
pub(super) fn run(lines: &[String], chosen: &str, agent: &Path, limit: Duration) -> Result<Vec<Tried>> {
    let scenarios: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| chosen == ALL || scenario.name == chosen).collect();
    if scenarios.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("there is no boot named {chosen}: {}", names.join(", "));
    }
    let opened = Cache::open()?;
    let cache = &opened.dir;
    let root = debian::root("boot", PACKAGES, cache)?;
    let units = units()?;
    let mut all = Vec::new();
    for line in lines {
        let kernel = debian::kernel(line, cache)?;
        let accel = Accel::find(&kernel.image, &cache.join("console-kvm.log"))?;
        for scenario in &scenarios {
            headline(&format!("Linux {line} with systemd, {}: {} ({accel:?})", scenario.name, scenario.about));
            let initrd = image(cache, &root, &kernel, |archive| pack(archive, scenario, &units, agent))?;
            let log = cache.join(format!("console-{line}-{}.log", scenario.name));
            let boot = Boot { kernel: &kernel.image, initrd: Some(&initrd), parameters: PARAMETERS, log: &log, limit };
            all.push(attempt(&boot, accel, line, scenario)?);
            machine::discard(&initrd)?;
        }
    }
    Ok(all)
}

/// Boots one scenario, and says what came of it.
fn attempt(boot: &Boot<'_>, accel: Accel, line: &str, scenario: &Scenario) -> Result<Tried> {
    let start = Instant::now();
    let mut report = Report::default();
    let end = boot.run(accel, |text| {
        println!("[{line} {}] {text}", scenario.name);
        report.read(text);
    })?;
    let trouble = report.trouble(end, 1).or_else(|| judge(scenario.expect, &report));
    let verdict = match (&trouble, scenario.expect) {
        (Some(what), _) => what.as_str(),
        (None, []) => "nothing is expected of it yet",
        (None, _) => "as expected",
    };
    println!("    {}: {verdict}, in {} seconds", scenario.name, start.elapsed().as_secs());
    let passed = usize::from(trouble.is_none());
    Ok(Tried {
        sums: Summary { passed, failed: 1 - passed, skipped: 0 },
        trouble: trouble.map(|what| format!("Linux {line}, {}: {what} (see {})", scenario.name, boot.log.display())),
    })
}

/// The units that are shipped: their names and their texts.
fn units() -> Result<Vec<(String, String)>> {
    let dir = workspace().join("config/systemd");
    let mut units = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(name) = path.file_name() {
            units.push((name.to_string_lossy().into_owned(), text));
        }
    }
    units.sort();
    Ok(units)
}

/// Puts a scenario into an archive.
fn pack(into: &mut Archive, scenario: &Scenario, units: &[(String, String)], agent: &Path) -> Result<()> {
    lab::users(into)?;
    // With an identity of its own systemd does not take this for the first boot, at which it would enable all there is.
    into.text("etc/machine-id", 0o444, "0123456789abcdef0123456789abcdef\n")?;
    into.symlink("init", "usr/lib/systemd/systemd")?;
    for (name, text) in PROGRAMS {
        write(into, &format!("opt/lab/{name}"), 0o644, text)?;
    }
    for (name, text) in UNITS {
        install(into, name, text, true)?;
    }
    for (name, text) in units {
        install(into, name, text, scenario.enabled)?;
    }
    write(into, "etc/portreeve/portreeve.toml", 0o644, scenario.policy)?;
    directories(into, "usr/local/bin/portreeve")?;
    match scenario.agent {
        Agent::Real => into.file("usr/local/bin/portreeve", 0o755, agent)?,
        Agent::RunFails => {
            into.file("opt/lab/portreeve", 0o755, agent)?;
            into.text("usr/local/bin/portreeve", 0o755, RUN_FAILS)?;
        }
        Agent::Missing => {}
    }
    for (name, text) in scenario.files {
        write(into, name.trim_start_matches('/'), 0o644, text)?;
    }
    Ok(())
}

/// Installs a unit and, if `enabled`, does what `systemctl enable` would.
fn install(into: &mut Archive, name: &str, text: &str, enabled: bool) -> Result<()> {
    write(into, &format!("etc/systemd/system/{name}"), 0o644, text)?;
    if enabled {
        for folder in enabled_in(text) {
            let link = format!("etc/systemd/system/{folder}/{name}");
            directories(into, &link)?;
            into.symlink(&link, &format!("../{name}"))?;
        }
    }
    Ok(())
}

/// The folders that a unit's `[Install]` section wants it to be linked in.
fn enabled_in(unit: &str) -> Vec<String> {
    let folders = |line: &str| {
        let (key, targets) = line.split_once('=')?;
        let suffix = match key {
            "WantedBy" => "wants",
            "RequiredBy" => "requires",
            _ => return None,
        };
        Some(targets.split_whitespace().map(|target| format!("{target}.{suffix}")).collect::<Vec<_>>())
    };
    unit.lines().skip_while(|line| *line != "[Install]").filter_map(folders).flatten().collect()
}

/// A file, with the directories above it.
fn write(into: &mut Archive, name: &str, mode: u32, text: &str) -> Result<()> {
    directories(into, name)?;
    into.text(name, mode, text)
}

/// The directories above a file; those that are there already stay as they are.
fn directories(into: &mut Archive, name: &str) -> Result<()> {
    let above: Vec<PathBuf> = Path::new(name).ancestors().skip(1).map(Path::to_owned).collect();
    above
        .iter()
        .rev()
        .filter(|dir| !dir.as_os_str().is_empty())
        .try_for_each(|dir| into.directory(&dir.to_string_lossy(), 0o755))
}

/// What is not as it must be, in one line.
fn judge(expect: &[Expect], report: &Report) -> Option<String> {
    let wrong: Vec<String> = expect.iter().filter_map(|expect| missed(*expect, report)).collect();
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// What speaks against one expectation.
fn missed(expect: Expect, report: &Report) -> Option<String> {
    let number = |name: &str| report.fact(name).and_then(|value| value.parse::<f64>().ok());
    let phase = |name: &str| report.facts_below(name).next().is_some();
    let accepted = number("accepted").unwrap_or(f64::NAN);
    let (holds, otherwise) = match expect {
        Expect::BotIsEarly => (
            phase("before_network.") && (phase("after_network.") || number("network_at").is_none()),
            "the bot did not try before and after the network came".to_owned(),
        ),
        Expect::NothingGetsThrough => (accepted == 0.0, format!("{accepted} connections got through")),
        Expect::SomethingGetsThrough => (accepted > 0.0, "nothing got through".to_owned()),
        Expect::GuardBeforeNetwork => {
            let (guard, network) = (number("first_refusal_at"), number("network_at"));
            let first = matches!((guard, network), (Some(guard), Some(network)) if guard < network);
            (first, format!("the first refusal came at {guard:?}, the network at {network:?}"))
        }
        Expect::Network => (number("network_at").is_some(), "the network did not come up".to_owned()),
        Expect::Agent(what, word) => {
            let is = report.fact(&format!("agent.{what}")).unwrap_or("not said");
            (is == word, format!("the agent's {what} is {is}, and not {word}"))
        }
        Expect::Unit(unit, state) => {
            let is = report.fact(unit).unwrap_or("not there");
            (is == state, format!("{unit} is {is}, and not {state}"))
        }
    };
    (!holds).then_some(otherwise)
}

#[cfg(test)]
mod tests {
    use super::{Expect, SCENARIOS, enabled_in, judge};
    use crate::vm::console::Report;

    fn report(facts: &[&str]) -> Report {
        let mut report = Report::default();
        facts.iter().for_each(|fact| report.read(&format!("portreeve-vm: fact {fact}")));
        report
    }

    #[test]
    fn a_boot_is_judged_by_the_facts() {
        let expect = [
            Expect::BotIsEarly,
            Expect::GuardBeforeNetwork,
            Expect::NothingGetsThrough,
            Expect::Unit("a.service", "active"),
        ];
        let mut facts = vec![
            "first_refusal_at=3.1",
            "network_at=3.5",
            "before_network.ENETUNREACH=4",
            "after_network.EPERM=9",
            "accepted=0",
            "a.service=active",
        ];
        assert_eq!(judge(&expect, &report(&facts)), None);
        facts[0] = "first_refusal_at=4.1";
        facts[4] = "accepted=2";
        let wrong = judge(&expect, &report(&facts)).unwrap();
        assert!(wrong.contains("the first refusal came at Some(4.1)") && wrong.contains("2 connections got through"));
        // Nothing known is nothing shown.
        assert!(judge(&[Expect::NothingGetsThrough], &report(&[])).is_some());
        assert!(judge(&[Expect::SomethingGetsThrough], &report(&[])).is_some());
    }

    #[test]
    fn a_unit_is_enabled_where_its_install_section_says() {
        let unit = "[Unit]\nWantedBy=nobody\n[Install]\nWantedBy=sysinit.target a.target\nRequiredBy=b.target\n";
        assert_eq!(enabled_in(unit), ["sysinit.target.wants", "a.target.wants", "b.target.requires"]);
    }

    #[test]
    fn every_boot_has_a_name_of_its_own() {
        let mut names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
    }
}
