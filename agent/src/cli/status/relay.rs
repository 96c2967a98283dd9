//! The relay in `portreeve status`.

use crate::relay::RelayStatus;

/// Its lines.
pub(super) fn lines(relay: &RelayStatus) -> Vec<String> {
    let listen = match relay.listen.as_slice() {
        [] => "NOT LISTENING".to_owned(),
        some => format!("at {}", some.join(", ")),
    };
    let mut lines = vec![format!(
        "{:<12}{} {listen}, as {}; {} sessions, {} in all",
        "relay",
        relay.way.word(),
        relay.name,
        relay.active,
        relay.sessions
    )];
    lines.extend(relay.troubles.iter().map(|trouble| format!("{:<12}{trouble}", "ALARM")));
    let messages = &relay.messages;
    let counts = [
        (messages.delivered, "delivered"),
        (messages.refused, "refused by the upstream"),
        (messages.rejected, "rejected"),
        (messages.held, "held"),
        (messages.discarded, "discarded"),
        (messages.deferred, "deferred"),
        (messages.abandoned, "abandoned"),
        (messages.possible_duplicates, "may arrive twice"),
    ];
    let mut shown: Vec<String> = Vec::new();
    for (index, (count, what)) in counts.into_iter().enumerate() {
        if index == 0 || count > 0 {
            shown.push(format!("{count} {what}"));
        }
    }
    lines.push(format!("{:<12}messages: {} (portreeve mail)", "", shown.join(", ")));
    for upstream in &relay.upstreams {
        let state = if upstream.healthy { "well" } else { "FAILING" };
        let error = upstream.last_error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default();
        lines.push(format!(
            "{:<12}upstream {}: {state}, {} sessions, {} failures{error}",
            "", upstream.name, upstream.sessions, upstream.failures
        ));
    }
    for filter in &relay.filters {
        let counts = [
            (filter.rejected, "rejected"),
            (filter.held, "held"),
            (filter.discarded, "discarded"),
            (filter.tagged, "tagged"),
            (filter.delayed, "delayed"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            lines.push(format!("{:<12}{}: {}", "", filter.name, counts.join(", ")));
        }
    }
    if relay.turned_away > 0 {
        lines.push(format!("{:<12}{} connections turned away", "", relay.turned_away));
    }
    if let Some(why) = &relay.store_broken {
        lines.push(format!("{:<12}mail is only recorded in memory: {why}", "warning"));
    }
    lines
}
