//! Where in a file the rules stand, and how one comes in and goes out without anything else moving.

use std::ops::Range;

use toml_edit::{Document, Item, Table};

use super::{EditError, NewLanRule, NewRule};

/// Which rule of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one with this `name`.
    Name(&'a str),
    /// By its place among the file's rules, from 1.
    Number(usize),
}

/// Puts a rule behind the last one of a file, or at the file's end.
///
/// # Errors
///
/// When the text is no TOML, or its rules are the values of one list.
pub fn add_rule(text: &str, rule: &NewRule) -> Result<String, EditError> {
    add(text, &["allow"], &rule.lines())
}

/// Puts a rule of the gateway behind the last one of a file, or at the file's end.
///
/// # Errors
///
/// When the text is no TOML, or its rules are the values of one list.
pub fn add_lan_rule(text: &str, rule: &NewLanRule) -> Result<String, EditError> {
    add(text, &["gateway", "allow"], &rule.lines())
}

fn add(text: &str, list: &[&str], lines: &[String]) -> Result<String, EditError> {
    let layout = Layout::of(text, list)?;
    let at = layout.place_for_a_rule();
    let newline = layout.newline(at);
    let block = lines.join(newline);
    let added = match layout.ends_open(at) {
        // A file whose last line has no end keeps that.
        true => format!("{newline}{newline}{block}"),
        false if at == layout.start => format!("{block}{newline}"),
        false => format!("{newline}{block}{newline}"),
    };
    let after = format!("{}{added}{}", &text[..at], &text[at..]);
    // A table that is written in one line cannot go on below.
    let rules = Layout::of(&after, list).map_err(|error| EditError::Unsafe { what: error.to_string() })?.rules.len();
    match rules == layout.rules.len() + 1 {
        true => Ok(after),
        false => Err(EditError::Unsafe { what: format!("{rules} rules would come of it") }),
    }
}

/// Takes one rule out of a file, with the comment directly above it and the settings that are commented out directly
/// below it.
///
/// # Errors
///
/// When the text is no TOML, its rules are the values of one list, or not exactly one rule is meant.
pub fn remove_rule(text: &str, which: Which<'_>) -> Result<String, EditError> {
    let layout = Layout::of(text, &["allow"])?;
    let rule = layout.find(which)?;
    let removed = layout.block(rule);
    let after = format!("{}{}", &text[..removed.start], &text[removed.end..]);
    let rules = Layout::of(&after, &["allow"])?.rules.len();
    match rules + 1 == layout.rules.len() {
        true => Ok(after),
        false => Err(EditError::Unsafe { what: format!("{rules} rules would be left") }),
    }
}

/// A file as its lines.
struct Layout<'t> {
    text: &'t str,
    /// Where the first line begins: behind a byte order mark.
    start: usize,
    lines: Vec<Line>,
    rules: Vec<RuleAt>,
}

struct RuleAt {
    name: Option<String>,
    /// The line of its header.
    header: usize,
    /// The line that its last value ends on.
    last: usize,
}

struct Line {
    /// With its end.
    bytes: Range<usize>,
    kind: Kind,
}

/// What a line is, as far as it matters to what stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blank,
    /// A comment in words.
    Words,
    /// A setting that is commented out: `#key = …`, without a space, as in config/portreeve.toml.
    Setting,
    /// A header that is commented out: `#[[allow]]`.
    Header,
    /// TOML that says something.
    Content,
}

impl<'t> Layout<'t> {
    /// The layout of a text, with the rules of the list that is found by these keys.
    fn of(text: &'t str, list: &[&str]) -> Result<Self, EditError> {
        let document = Document::parse(text)
            .map_err(|error| EditError::Syntax { message: error.message().trim().replace('\n', ", ") })?;
        let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut values = Vec::new();
        spans(document.as_table(), &mut values);
        let mut lines: Vec<Line> = Vec::new();
        let mut at = start;
        for line in text[start..].split_inclusive('\n') {
            lines.push(Line { bytes: at..at + line.len(), kind: kind(line) });
            at += line.len();
        }
        // What looks like a comment or a gap may be the middle of a text or a list.
        for value in &values {
            let first = lines.partition_point(|line| line.bytes.end <= value.start);
            let inside = lines.iter_mut().skip(first).take_while(|line| line.bytes.start < value.end);
            inside.for_each(|line| line.kind = Kind::Content);
        }
        let mut layout = Self { text, start, lines, rules: Vec::new() };
        let found = list.iter().try_fold(document.as_item(), |item, key| item.get(key));
        layout.rules = match found {
            None => Vec::new(),
            Some(Item::ArrayOfTables(rules)) => {
                rules.iter().map(|rule| layout.rule(rule)).collect::<Result<_, EditError>>()?
            }
            Some(_) => return Err(EditError::OneList),
        };
        Ok(layout)
    }

    fn rule(&self, rule: &Table) -> Result<RuleAt, EditError> {
        let mut parts = Vec::new();
        spans(rule, &mut parts);
        let unplaced = || EditError::Unsafe { what: "a rule without a place".to_owned() };
        let header = rule.span().filter(|span| !span.is_empty()).ok_or_else(unplaced)?;
        let end = parts.iter().map(|part| part.end).max().unwrap_or(header.end);
        let name = rule.get("name").and_then(Item::as_str).map(str::to_owned);
        Ok(RuleAt { name, header: self.line(header.start), last: self.line(end.max(header.end) - 1) })
    }

    /// The line that a byte is in.
    fn line(&self, byte: usize) -> usize {
        self.lines.partition_point(|line| line.bytes.end <= byte)
    }

    fn find(&self, which: Which<'_>) -> Result<&RuleAt, EditError> {
        let numbered = self.rules.iter().zip(1_usize..);
        let meant = |(rule, number): &(&RuleAt, usize)| match which {
            Which::Name(name) => rule.name.as_deref() == Some(name),
            Which::Number(wanted) => *number == wanted,
        };
        let found: Vec<(&RuleAt, usize)> = numbered.filter(meant).collect();
        let which = match which {
            Which::Name(name) => format!("\"{name}\""),
            Which::Number(number) => number.to_string(),
        };
        match found.as_slice() {
            [(rule, _)] => Ok(rule),
            [] => Err(EditError::NoSuchRule { which }),
            several => {
                let numbers = several.iter().map(|(_, number)| number.to_string()).collect();
                Err(EditError::Ambiguous { which, numbers })
            }
        }
    }

    /// The byte that a new rule goes before.
    fn place_for_a_rule(&self) -> usize {
        let last = match self.rules.iter().map(|rule| rule.last).max() {
            Some(last) => {
                let run = self.comments_below(last);
                // Words directly above a header are about what comes, not about the rule.
                let kept = match self.kind(run.end) {
                    Some(Kind::Content) => self.up_to_last(run, |kind| kind != Kind::Words),
                    _ => run,
                };
                kept.end.checked_sub(1)
            }
            None => self.lines.iter().rposition(|line| line.kind != Kind::Blank),
        };
        last.and_then(|last| self.lines.get(last)).map_or(self.start, |line| line.bytes.end)
    }

    /// The bytes of a rule and of what belongs to it alone.
    fn block(&self, rule: &RuleAt) -> Range<usize> {
        let above = self.lines[..rule.header].iter().rev().take_while(|line| line.kind == Kind::Words).count();
        let mut first = rule.header - above;
        let run = self.comments_below(rule.last);
        let own = run.clone().take_while(|line| self.kind(*line) != Some(Kind::Header)).count();
        let mut end = self.up_to_last(run.start..run.start + own, |kind| kind == Kind::Setting).end;
        if first > 0 && self.kind(first - 1) == Some(Kind::Blank) {
            first -= 1;
        } else if first == 0 && self.lines.iter().skip(end).any(|line| line.kind != Kind::Blank) {
            end += usize::from(self.kind(end) == Some(Kind::Blank));
        }
        let byte = |line: usize| self.lines.get(line).map_or(self.text.len(), |line| line.bytes.start);
        let (mut from, to) = (byte(first), byte(end));
        if to == self.text.len() && !self.text.ends_with('\n') {
            // A file whose last line has no end keeps that.
            let before = &self.text[..from];
            from = before.strip_suffix("\r\n").or(before.strip_suffix('\n')).unwrap_or(before).len();
        }
        from.max(self.start)..to
    }

    /// The comment lines that follow a line without a gap.
    fn comments_below(&self, line: usize) -> Range<usize> {
        let comment = |line: &&Line| !matches!(line.kind, Kind::Blank | Kind::Content);
        let count = self.lines.iter().skip(line + 1).take_while(comment).count();
        line + 1..line + 1 + count
    }

    /// The lines up to the last of a kind.
    fn up_to_last(&self, lines: Range<usize>, is: impl Fn(Kind) -> bool) -> Range<usize> {
        let last = lines.clone().rev().find(|line| self.kind(*line).is_some_and(&is));
        lines.start..last.map_or(lines.start, |last| last + 1)
    }

    fn kind(&self, line: usize) -> Option<Kind> {
        self.lines.get(line).map(|line| line.kind)
    }

    /// Whether what stands before this byte is a line without an end.
    fn ends_open(&self, at: usize) -> bool {
        at > self.start && !self.text[..at].ends_with('\n')
    }

    /// How lines end around a byte.
    fn newline(&self, at: usize) -> &'static str {
        let before = self.text[..at].rsplit_once('\n').map(|(before, _)| before);
        let near = before.or_else(|| self.text.split_once('\n').map(|(first, _)| first));
        if near.is_some_and(|line| line.ends_with('\r')) { "\r\n" } else { "\n" }
    }
}

/// The places of a table's header, keys and values.
fn spans(table: &Table, found: &mut Vec<Range<usize>>) {
    found.extend(table.span().filter(|span| !span.is_empty()));
    for (name, item) in table.iter() {
        found.extend(table.key(name).and_then(toml_edit::Key::span));
        match item {
            Item::Table(table) => spans(table, found),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| spans(table, found)),
            Item::Value(value) => found.extend(value.span()),
            Item::None => {}
        }
    }
}

fn kind(line: &str) -> Kind {
    let line = line.trim();
    let Some(rest) = line.strip_prefix('#') else {
        return if line.is_empty() { Kind::Blank } else { Kind::Content };
    };
    if rest.starts_with('[') {
        return Kind::Header;
    }
    let key = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if key.len() < rest.len() && key.trim_start().starts_with('=') { Kind::Setting } else { Kind::Words }
}
