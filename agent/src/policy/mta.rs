//! The mail servers that `mta = "auto"` knows.

/// A mail server: where distributions put the program that connects to other servers, and whom it runs as.
///
/// `/usr/sbin/sendmail` is in no row: it is a link to another mail server, or Postfix's or Courier's submission
/// command, more often than it is Sendmail.
#[derive(Debug)]
pub struct Mta {
    /// The value of `mta` in a rule.
    pub key: &'static str,
    /// Its name.
    pub title: &'static str,
    /// Where the program may be; all that exist count, links followed.
    pub exes: &'static [&'static str],
    /// Effective users, by name.
    pub users: Users,
    /// Effective groups, by name; one of those that exist is required, unless there are none here.
    pub groups: &'static [&'static str],
    /// The systemd units of Debian, Fedora, SUSE and Arch.
    pub units: &'static [&'static str],
}

/// Users by name.
#[derive(Debug)]
pub enum Users {
    /// Distributions differ in the name: the first that exists is meant, and no other.
    First(&'static [&'static str]),
    /// Every one that exists.
    Each(&'static [&'static str]),
    /// Anybody: a set-group-ID program runs as its caller.
    Anybody,
}

/// The mail servers, the more usual first.
pub const MTAS: &[Mta] = &[
    Mta {
        key: "postfix",
        title: "Postfix",
        // The SMTP client; Debian, Fedora and SUSE, openSUSE and Arch, older ones.
        exes: &[
            "/usr/lib/postfix/sbin/smtp",
            "/usr/libexec/postfix/smtp",
            "/usr/lib/postfix/bin/smtp",
            "/usr/lib/postfix/smtp",
        ],
        users: Users::First(&["postfix"]),
        groups: &[],
        units: &["postfix@-.service", "postfix.service"],
    },
    Mta {
        key: "exim",
        title: "Exim",
        // Remote deliveries run as Exim's own user, after it has given up root's rights.
        exes: &["/usr/sbin/exim4", "/usr/sbin/exim", "/usr/bin/exim"],
        users: Users::First(&["Debian-exim", "exim", "mail"]),
        groups: &[],
        units: &["exim4.service", "exim.service"],
    },
    Mta {
        key: "opensmtpd",
        title: "OpenSMTPD",
        exes: &["/usr/sbin/smtpd", "/usr/bin/smtpd"],
        users: Users::First(&["opensmtpd", "_smtpd", "smtpd"]),
        groups: &[],
        units: &["opensmtpd.service", "smtpd.service"],
    },
    Mta {
        key: "sendmail",
        title: "Sendmail",
        exes: &["/usr/libexec/sendmail/sendmail", "/usr/lib/sm.bin/sendmail", "/usr/sbin/sendmail.sendmail"],
        // As root, or as RunAsUser says.
        users: Users::Each(&["root", "smmta"]),
        groups: &[],
        units: &["sendmail.service"],
    },
    Mta {
        key: "courier",
        title: "Courier",
        exes: &[
            "/usr/lib/courier/courier/modules/esmtp/courieresmtp",
            "/usr/libexec/courier/courier/modules/esmtp/courieresmtp",
            "/usr/libexec/courier/modules/esmtp/courieresmtp",
            "/usr/lib/courier/modules/esmtp/courieresmtp",
        ],
        users: Users::First(&["courier", "daemon"]),
        groups: &[],
        units: &["courier.service", "courier-mta.service"],
    },
    Mta {
        key: "qmail",
        title: "qmail",
        exes: &["/var/qmail/bin/qmail-remote", "/usr/sbin/qmail-remote"],
        users: Users::First(&["qmailr"]),
        groups: &[],
        units: &["qmail.service"],
    },
    Mta {
        key: "nullmailer",
        title: "nullmailer",
        exes: &["/usr/lib/nullmailer/smtp", "/usr/libexec/nullmailer/smtp"],
        users: Users::Each(&["nullmail", "mail"]),
        groups: &[],
        units: &["nullmailer.service"],
    },
    Mta {
        key: "dma",
        title: "DragonFly Mail Agent",
        // Delivers as whoever called it; it is set-group-ID, and that group is not to be had by LD_PRELOAD.
        exes: &["/usr/sbin/dma", "/usr/libexec/dma"],
        users: Users::Anybody,
        groups: &["mail"],
        units: &[],
    },
    Mta {
        key: "stalwart",
        title: "Stalwart",
        exes: &["/opt/stalwart/bin/stalwart", "/usr/local/bin/stalwart", "/usr/bin/stalwart"],
        users: Users::First(&["stalwart", "stalwart-mail"]),
        groups: &[],
        units: &["stalwart.service", "stalwart-mail.service"],
    },
    Mta {
        key: "maddy",
        title: "maddy",
        exes: &["/usr/local/bin/maddy", "/usr/bin/maddy"],
        users: Users::First(&["maddy"]),
        groups: &[],
        units: &["maddy.service"],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_mail_server_is_known_by_its_executable_alone() {
        for mta in MTAS {
            assert!(!matches!(mta.users, Users::Anybody) || !mta.groups.is_empty(), "{}", mta.key);
            assert!(!mta.exes.is_empty() && mta.exes.iter().all(|exe| exe.starts_with('/')), "{}", mta.key);
        }
    }

    #[test]
    fn keys_and_paths_are_used_once() {
        let mut seen = HashSet::new();
        for text in MTAS.iter().flat_map(|mta| mta.exes.iter().chain([&mta.key])) {
            assert!(seen.insert(text), "{text}");
        }
    }
}
