//! The same question for a host of the LAN.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use portreeve_abi::{LanDimension, Reason};
use portreeve_decide::{LanPacket, LanTables as _, judge_lan, satisfied_lan};

use super::Agent;
use super::explain::{Explanation, Why, rule_names, sixteen};
use crate::attempt::verdict_word;
use crate::control::Question;
use crate::policy::{parse_vlan, vlan_text};

impl Agent {
    /// Answers a question about a LAN host's packet, by the tables in force and the code that runs in the kernel.
    ///
    /// # Errors
    ///
    /// What in the question cannot be, or that there is no gateway.
    pub(super) fn explain_lan(
        &mut self,
        question: &Question,
        from: IpAddr,
        destination: SocketAddr,
    ) -> Result<Explanation, String> {
        let mut tables = self.in_force.compiled.lan.clone();
        if !tables.is_on() {
            return Err("the policy has no [gateway]: nothing is judged for LAN hosts here".to_owned());
        }
        tables.own = self.guard.own_addresses();
        let vlan = match &question.vlan {
            Some(text) => parse_vlan(text).ok_or_else(|| format!("\"{text}\" is no VLAN; write 30 or 100.30"))?,
            None => 0,
        };
        let now = Timestamp::now();
        let mac = question.mac.or_else(|| self.hosts.mac_of(from, now));
        let name = self.hosts.name_of(mac, from, None, now).map(|host| format!("{} ", host.shown()));
        let packet = LanPacket {
            source: sixteen(from),
            destination: sixteen(destination.ip()),
            port: destination.port(),
            mac: mac.map_or([0; 6], |mac| mac.0),
            vlan,
            clear: true,
        };
        let header = tables.header().ok_or("no policy is in force")?;
        let mac_text = mac.map_or("not known".to_owned(), |mac| mac.to_string());
        let dimensions = LanDimension::ALL.into_iter().map(|dimension| {
            let (word, value) = match dimension {
                LanDimension::From => ("from", from.to_string()),
                LanDimension::Mac => ("mac", mac_text.clone()),
                LanDimension::Vlan => ("vlan", if vlan == 0 { "none".to_owned() } else { vlan_text(vlan) }),
                LanDimension::To => ("to", destination.ip().to_string()),
                LanDimension::Port => ("port", destination.port().to_string()),
            };
            let satisfies = rule_names(&satisfied_lan(&tables, header, dimension, &packet), &tables.rule_names);
            Why { dimension: word.to_owned(), value, satisfies }
        });
        let mut explanation = Explanation {
            verdict: "unguarded".to_owned(),
            rule: None,
            because: format!("port {} is not guarded for LAN hosts", destination.port()),
            subject: mac.map_or_else(
                || format!("host {}{from}", name.as_deref().unwrap_or_default()),
                |mac| format!("host {}{from} ({mac})", name.as_deref().unwrap_or_default()),
            ),
            destination,
            generation: header.generation,
            dimensions: dimensions.collect(),
        };
        if tables.guards(destination.port()) {
            let decision = judge_lan(&tables, &packet);
            explanation.rule = tables.rule_names.get(decision.rule as usize).cloned();
            explanation.verdict = verdict_word(decision.verdict).to_owned();
            explanation.because = because(&explanation, decision.reason);
        }
        Ok(explanation)
    }
}

fn because(explanation: &Explanation, reason: Reason) -> String {
    match reason {
        Reason::Rule => {
            format!("rule \"{}\" matches in every dimension", explanation.rule.as_deref().unwrap_or("?"))
        }
        Reason::Local => "LAN hosts may hand mail to this gateway itself (local_submission = \"allow\")".to_owned(),
        Reason::NoRule => match explanation.dimensions.iter().find(|why| why.satisfies.is_empty()) {
            Some(why) => {
                let what = match why.dimension.as_str() {
                    "from" => "source",
                    "to" => "destination",
                    other => other,
                };
                format!("no rule of the gateway allows this {what}: {}", why.value)
            }
            None => "no single rule of the gateway matches in every dimension".to_owned(),
        },
        Reason::OtherMac => "a rule allows the address, but not from this MAC address".to_owned(),
        Reason::OtherVlan => "a rule allows the address, but not in this VLAN".to_owned(),
        Reason::NoPolicy
        | Reason::NoProcess
        | Reason::Unreadable
        | Reason::Tainted
        | Reason::AuditRule
        | Reason::NoVerdict
        | Reason::Forwarded
        | Reason::Unclear
        | Reason::RawSender
        | Reason::Relayed
        | Reason::NoRelay
        | Reason::NoMemory => "no policy is in force".to_owned(),
    }
}
