//! A rule of the gateway that is to be written.

use std::collections::BTreeSet;

use ipnet::IpNet;
use toml_edit::Value;

use super::super::super::gateway::parse_vlan;
use super::{comment_lines, destination, list, one, ports};
use crate::host::Mac;

/// A `[[gateway.allow]]` to write; what is empty is left out. Each key means what config/portreeve.toml says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewLanRule {
    /// For the comment above it.
    pub comment: Option<String>,
    /// `name`
    pub name: String,
    /// `from`
    pub from: Vec<IpNet>,
    /// `mac`; none is written as "any".
    pub mac: Option<Mac>,
    /// `vlan`, as a policy writes it.
    pub vlan: Option<String>,
    /// `to`
    pub to: Vec<IpNet>,
    /// `ports`
    pub ports: BTreeSet<u16>,
}

impl NewLanRule {
    /// The lines of its text.
    pub(in super::super) fn lines(&self) -> Vec<String> {
        let networks = |list: &[IpNet]| list.iter().map(|net| Value::from(destination(net))).collect::<Vec<_>>();
        let mut lines = self.comment.as_deref().map(comment_lines).unwrap_or_default();
        lines.push("[[gateway.allow]]".to_owned());
        one(&mut lines, "name", Some(Value::from(self.name.as_str())));
        list(&mut lines, "from", networks(&self.from));
        one(&mut lines, "mac", Some(Value::from(self.mac.map_or_else(|| "any".to_owned(), |mac| mac.to_string()))));
        let vlan = self.vlan.as_deref().map(|text| match parse_vlan(text).filter(|number| *number < 4096) {
            Some(number) => Value::from(i64::from(number)),
            // The inner one of two tags, in quotes.
            None => Value::from(text),
        });
        one(&mut lines, "vlan", vlan);
        list(&mut lines, "to", networks(&self.to));
        ports(&mut lines, &self.ports);
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::add_lan_rule;
    use super::*;
    use crate::policy::edit::EditError;
    use crate::policy::{load_text, vlan_text};

    fn rule() -> NewLanRule {
        NewLanRule {
            comment: Some("Added 2026-11-25 by root: alert 7".into()),
            name: "front-desk".into(),
            from: vec!["10.9.0.66/32".parse().unwrap()],
            mac: "02:00:00:00:00:66".parse().ok(),
            vlan: Some("30".into()),
            to: vec!["203.0.113.5/32".parse().unwrap()],
            ports: BTreeSet::from([25]),
        }
    }

    const TEXT: &str = "# Added 2026-11-25 by root: alert 7\n[[gateway.allow]]\nname = \"front-desk\"\nfrom = \"10.9.0.66\"\n\
                        mac = \"02:00:00:00:00:66\"\nvlan = 30\nto = \"203.0.113.5\"\nports = [25]\n";

    #[test]
    fn it_comes_behind_the_gateways_last_rule_and_nothing_else_moves() {
        let allow = "[gateway]\nlan = \"lan0\" # inside\n\n# The server.\n[[gateway.allow]]\nfrom = \"10.9.0.25\"\n#mac = \"any\"\n";
        for (before, behind, after) in [
            ("[gateway]\nlan = \"lan0\"\n", "\n", ""),
            (allow, "\n", "\n# Ours.\n[[gateway.host]]\nname = \"pc\"\naddress = \"10.9.0.7\"\n"),
            (allow, "\n", "\n# A program.\n[[allow]]\nuser = 1\n"),
            ("[[allow]]\nuser = 1\n\n[gateway]\nlan = [\n  \"lan0\", # one\n]\n", "\n", ""),
        ] {
            let text = add_lan_rule(&format!("{before}{after}"), &rule()).unwrap();
            assert_eq!(text, format!("{before}{behind}{TEXT}{after}"));
            let loaded = load_text(Path::new("p.toml"), text);
            let gateway = loaded.draft.gateway.unwrap();
            let read = gateway.rules.last().unwrap();
            assert_eq!((read.mac.as_slice(), read.from[0].value), (&[rule().mac.unwrap()][..], rule().from[0]));
            assert_eq!((read.vlan.as_slice(), &read.ports), (&[30][..], &rule().ports));
        }
    }

    #[test]
    fn without_a_card_any_is_written_and_two_tags_are_in_quotes() {
        let text = add_lan_rule(
            "[gateway]\nlan = \"wg0\"\n",
            &NewLanRule { mac: None, vlan: Some(vlan_text(100 * 4096 + 30)), ..rule() },
        );
        let text = text.unwrap();
        assert!(text.contains("mac = \"any\"\nvlan = \"100.30\"\n"), "{text}");
        let loaded = load_text(Path::new("p.toml"), text);
        assert_eq!(loaded.draft.gateway.unwrap().rules[0].vlan, [100 * 4096 + 30]);
    }

    #[test]
    fn a_gateway_in_one_line_is_left_alone() {
        assert!(matches!(add_lan_rule("gateway = { lan = \"lan0\" }\n", &rule()), Err(EditError::Unsafe { .. })));
        let list = "[gateway]\nlan = \"lan0\"\nallow = [{ from = \"10.9.0.1\" }]\n";
        assert!(matches!(add_lan_rule(list, &rule()), Err(EditError::OneList)));
    }
}
