//! `portreeve allow list`

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde::Serialize;

use super::super::say;
use super::{Config, Outcome};
use crate::control::{Client, Request};
use crate::instance::Instance;
use crate::policy::{self, Checked, Loaded, SystemHost};

/// List the rules of the policy, with their numbers
#[derive(Debug, ClapArgs)]
#[command(after_help = "Exit code 2: the policy has errors; what can be read of it is listed all the same.\n\n\
                        Example: portreeve allow list --json | jq -r 'select(.in_force == false).name'")]
pub(super) struct Args {
    /// As JSON Lines, a rule a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: Config,
}

/// A rule, for people and scripts.
#[derive(Debug, Serialize)]
struct Listed {
    /// Its number among all rules of the policy.
    number: usize,
    /// Its name in the policy; none if it is called after its program.
    name: Option<String>,
    /// What it says, on this host; several where one rule stands for several mail servers.
    says: Vec<String>,
    file: PathBuf,
    line: usize,
    expires: Option<Timestamp>,
    expired: bool,
    audit: bool,
    /// It can be taken out with `allow remove`: it stands in the policy's own file.
    removable: bool,
    /// The running agent has it in force; none if that cannot be told.
    in_force: Option<bool>,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let config = &args.config.config;
    let loaded = policy::load(config);
    let checked = policy::check(config, &loaded, &mut SystemHost::new(None));
    let status = Client::ask(&instance.socket(), &Request::Status).and_then(Client::answer);
    let in_force = status.as_ref().ok().map(rules_of);
    let rules = listed(&loaded, &checked, in_force.as_deref());
    for rule in &rules {
        if args.json {
            say(&(serde_json::to_string(rule).unwrap_or_default() + "\n"));
        } else {
            say(&text(rule));
        }
    }
    // A file that cannot be read has no number of rules.
    if !args.json && (checked.errors() == 0 || !rules.is_empty()) {
        say(&summary(config, &rules));
        if let Err(error) = status {
            say(&format!("What is in force cannot be told: {error}\n"));
        }
    }
    for finding in checked.findings.iter().filter(|finding| finding.is_error()) {
        eprintln!("{finding}");
    }
    if checked.errors() == 0 { Outcome::Done } else { Outcome::Wrong }
}

fn listed(loaded: &Loaded, checked: &Checked, in_force: Option<&[String]>) -> Vec<Listed> {
    let now = Timestamp::now();
    let one = |(index, rule): (usize, &policy::Rule)| {
        let resolved = checked.resolved.rules.iter().filter(|resolved| resolved.source == index);
        let says: Vec<String> = resolved.map(ToString::to_string).collect();
        let (file, line) = loaded.draft.at(rule.place);
        let expires = rule.expires.map(|expires| expires.value);
        let in_force = in_force.map(|in_force| {
            let counts = |said: &String| in_force.contains(said) && !said.contains(": matches nothing");
            says.iter().any(counts) && expires.is_none_or(|end| end > now)
        });
        Listed {
            number: index + 1,
            name: rule.name.as_ref().map(|name| name.value.clone()),
            says,
            file,
            line,
            expires,
            expired: expires.is_some_and(|end| end <= now),
            audit: rule.audit,
            removable: rule.place.in_main(),
            in_force,
        }
    };
    loaded.draft.rules.iter().enumerate().map(one).collect()
}

/// What a rule says, and below it where it stands and how it is.
fn text(rule: &Listed) -> String {
    let mut lines = rule.says.clone();
    if lines.is_empty() {
        // Only a rule for "auto" can have come to nothing.
        let name = rule.name.as_deref().unwrap_or("mta = \"auto\"");
        lines.push(format!("{name}: matches nothing, no mail server that is known is installed"));
    }
    let mut about = format!("{}:{}", rule.file.display(), rule.line);
    if rule.expired {
        about += ", ended";
    }
    about += match rule.in_force {
        Some(true) => ", in force",
        Some(false) => ", not in force",
        None => "",
    };
    lines.push(about);
    let number = format!("{:>3}", rule.number);
    let numbers = std::iter::once(number.as_str()).chain(std::iter::repeat("   "));
    numbers.zip(&lines).map(|(number, line)| format!("{number}  {line}\n")).collect()
}

fn summary(config: &Path, rules: &[Listed]) -> String {
    let file = config.display();
    let count = match rules.len() {
        1 => "1 rule".to_owned(),
        many => format!("{many} rules"),
    };
    let active = rules.iter().filter(|rule| rule.in_force == Some(true)).count();
    match rules.iter().all(|rule| rule.in_force.is_none()) {
        true => format!("{file}: {count}\n"),
        false => format!("{file}: {count}, {active} in force\n"),
    }
}

/// The rules in force, as the agent describes them.
fn rules_of(status: &serde_json::Value) -> Vec<String> {
    let rules = status["policy"]["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_listed_with_its_number_its_place_and_whether_it_is_in_force() {
        let file = Path::new("p.toml");
        let text = "[[allow]]\nname = \"a\"\nuser = 1\n\n[[allow]]\nname = \"b\"\nuser = 2\nexpires = 2001-01-01\n";
        let loaded = policy::load_text(file, text.to_owned());
        let checked = policy::check(file, &loaded, &mut SystemHost::new(None));
        let status = serde_json::json!({ "policy": { "rules": checked.resolved.describe() } });
        let in_force = rules_of(&status);
        let rules = listed(&loaded, &checked, Some(&in_force));
        assert_eq!(
            text_of(&rules),
            "  1  a: any program as 1\n     p.toml:1, in force\n  2  b: any program as 2, until \
             2001-01-02T00:00:00Z\n     p.toml:5, ended, not in force\n"
        );
        assert_eq!(summary(file, &rules), "p.toml: 2 rules, 1 in force\n");
        // Another rule is in force under this name.
        let other = vec!["a: any program as 3".to_owned()];
        assert_eq!(listed(&loaded, &checked, Some(&other))[0].in_force, Some(false));
        assert_eq!(listed(&loaded, &checked, None)[0].in_force, None);
    }

    fn text_of(rules: &[Listed]) -> String {
        rules.iter().map(text).collect()
    }
}
