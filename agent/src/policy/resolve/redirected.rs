//! What in a mail server's own settings would break its mail once it is brought to the relay.
//!
//! Each was seen with Postfix 3.7: greeted with its own name it returns all mail to its senders, and where it insists on TLS
//! that the relay's listener does not offer, or on a certificate that can only be the destination's, it keeps all mail.

use std::path::{Path, PathBuf};

use super::super::diagnostic::Severity;
use super::{ResolvedRule, Resolver};
use crate::relay::Settings;
use crate::relay::origin::Way;

/// Where Debian and most others have Postfix's client, and its settings.
const SMTP: &str = "usr/lib/postfix/sbin/smtp";
const MAIN_CF: &str = "etc/postfix/main.cf";
/// Levels of `smtp_tls_security_level` (postconf(5)) that check whose certificate it is.
const CHECKED: [&str; 5] = ["dane", "dane-only", "fingerprint", "verify", "secure"];

impl Resolver<'_> {
    /// Looks at the settings of the server that a rule means, if its connections are brought to the relay. One that would
    /// break mail makes the rule match nothing: mail waits.
    pub(super) fn redirected(&mut self, rule: &mut ResolvedRule) {
        let Some(relay) = self.policy.relay.as_ref().filter(|relay| relay.way == Way::Redirect) else { return };
        if !rule.relayed || rule.audit || rule.raw_senders {
            return;
        }
        let files = rule.exe.iter().flatten().filter_map(|file| root_of(&file.path)).map(|root| root.join(MAIN_CF));
        for path in files.collect::<Vec<PathBuf>>() {
            let Some(text) = self.host.text(&path) else { continue };
            if let Some((what, mend)) = trouble(&MainCf::read(&text), relay) {
                let what = format!("{}: {what}", path.display());
                self.find(Severity::Error, rule.place, what.clone(), &mend);
                rule.problem = Some(what);
            }
        }
    }
}

/// The folder in which a server's root file system is.
fn root_of(smtp: &Path) -> Option<PathBuf> {
    smtp.ends_with(SMTP)
        .then(|| smtp.ancestors().nth(Path::new(SMTP).components().count()).map(Path::to_owned))
        .flatten()
}

/// `main.cf` (postconf(5)): a setting begins a line, a line that begins with white space goes on with it, and the last one
/// of a name holds.
struct MainCf(Vec<(String, String)>);

impl MainCf {
    fn read(text: &str) -> Self {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
            match lines.last_mut() {
                Some(last) if line.starts_with(char::is_whitespace) => last.push_str(line),
                _ => lines.push(line.to_owned()),
            }
        }
        let pairs = lines.iter().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What would break mail, and how to mend it.
fn trouble(main: &MainCf, relay: &Settings) -> Option<(String, String)> {
    let name = relay.name();
    if let Some(own) = main.get("myhostname").filter(|own| own.eq_ignore_ascii_case(&name)) {
        let what = format!(
            "myhostname = {own} is the name that the relay greets with: all mail would be returned (\"mail \
                            loops back to myself\")"
        );
        return Some((what, "give the relay another one with relay.name".to_owned()));
    }
    let (setting, level) = match main.get("smtp_tls_security_level").filter(|level| !level.is_empty()) {
        Some(level) => ("smtp_tls_security_level", level),
        None if main.get("smtp_enforce_tls") == Some("yes") => ("smtp_enforce_tls", "encrypt"),
        None => return None,
    };
    let setting = match setting {
        "smtp_enforce_tls" => "smtp_enforce_tls = yes".to_owned(),
        _ => format!("{setting} = {level}"),
    };
    let elsewhere = "the assurance moves to the other leg, with tls = \"required\" in [[relay.upstream]]";
    if CHECKED.contains(&level) {
        let what = format!(
            "{setting} asks for the destination's certificate, which the relay cannot show: all mail would wait"
        );
        return Some((
            what,
            format!("set it to may, or send this server's mail past the relay with via = \"direct\"; {elsewhere}"),
        ));
    }
    if level == "encrypt" && relay.certificate.is_none() {
        let what = format!(
            "{setting} asks for TLS, which the relay does not offer without a certificate: all mail would wait"
        );
        return Some((
            what,
            format!("give the relay one with relay.certificate and relay.key, or set it to may; {elsewhere}"),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::settings::Certificate;

    fn says(main_cf: &str, relay: &Settings) -> Option<String> {
        trouble(&MainCf::read(main_cf), relay).map(|(what, _)| what)
    }

    fn relay() -> Settings {
        Settings { name: Some("relay.example".to_owned()), ..Settings::default() }
    }

    #[test]
    fn settings_are_read_as_postfix_reads_them() {
        let main =
            MainCf::read("# x = 1\n  # comment\na = 1\n\nb=2,\n   3\n# c = 1\na = 4\nsmtp_tls_security_level =\n");
        assert_eq!(
            (main.get("a"), main.get("b"), main.get("x"), main.get("c")),
            (Some("4"), Some("2,   3"), None, None)
        );
        assert_eq!(main.get("smtp_tls_security_level"), Some(""));
    }

    #[test]
    fn what_breaks_mail_is_named() {
        for (main_cf, named) in [
            ("myhostname = Relay.Example\n", "myhostname = Relay.Example"),
            ("smtp_tls_security_level = encrypt\n", "smtp_tls_security_level = encrypt"),
            ("smtp_enforce_tls = yes\n", "smtp_enforce_tls = yes"),
            ("smtp_tls_security_level = dane\n", "smtp_tls_security_level = dane"),
            ("smtp_tls_security_level = may\nsmtp_tls_security_level = secure\n", "smtp_tls_security_level = secure"),
        ] {
            let says = says(main_cf, &relay()).unwrap_or_default();
            assert!(says.contains(named), "{main_cf}: {says}");
        }
        for fine in [
            "",
            "myhostname = host.example\n",
            "smtp_tls_security_level = may\n",
            "smtp_tls_security_level =\n",
            "smtp_enforce_tls = no\n",
        ] {
            assert_eq!(says(fine, &relay()), None, "{fine}");
        }
    }

    #[test]
    fn a_relay_with_a_certificate_offers_tls_and_cannot_be_another_server() {
        let certificate = Some(Certificate { chain: "/x".into(), key: "/y".into() });
        let relay = Settings { certificate, ..relay() };
        assert_eq!(says("smtp_tls_security_level = encrypt\n", &relay), None);
        assert!(says("smtp_tls_security_level = verify\n", &relay).is_some());
    }

    #[test]
    fn the_root_of_a_server_is_where_its_client_lies() {
        assert_eq!(root_of(Path::new("/usr/lib/postfix/sbin/smtp")), Some(PathBuf::from("/")));
        assert_eq!(root_of(Path::new("/srv/mail/usr/lib/postfix/sbin/smtp")), Some(PathBuf::from("/srv/mail")));
        assert_eq!(root_of(Path::new("/usr/sbin/exim4")), None);
    }
}
