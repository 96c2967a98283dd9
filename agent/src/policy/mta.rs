//! The mail servers that are known by name, with the paths and users of their distributions' packages.

/// A known mail server: the program that talks to other mail servers, and who it runs as.
#[derive(Debug)]
pub(super) struct Mta {
    /// The name in the policy.
    pub(super) name: &'static str,
    /// Where the sending program is, by distribution.
    pub(super) paths: &'static [&'static str],
    /// The users it sends as, by distribution.
    pub(super) users: &'static [&'static str],
}

/// From the packages' file lists: Debian, Fedora and RHEL, openSUSE, Arch, Alpine.
pub(super) const KNOWN: [Mta; 8] = [
    Mta {
        name: "postfix",
        // smtp(8), the delivery agent; master(8) never connects anywhere.
        paths: &[
            "/usr/lib/postfix/sbin/smtp",
            "/usr/libexec/postfix/smtp",
            "/usr/lib/postfix/bin/smtp",
            "/usr/lib/postfix/smtp",
        ],
        users: &["postfix"],
    },
    Mta {
        name: "exim",
        paths: &["/usr/sbin/exim4", "/usr/sbin/exim", "/usr/bin/exim"],
        users: &["Debian-exim", "exim", "mail"],
    },
    Mta {
        name: "opensmtpd",
        // Since 6.8 of Debian one binary that executes itself for each of its processes.
        paths: &["/usr/sbin/smtpd", "/usr/bin/smtpd"],
        users: &["opensmtpd", "_smtpd", "smtpd"],
    },
    Mta {
        name: "sendmail",
        // Not /usr/sbin/sendmail: with every other mail server that is a front door for any user.
        paths: &["/usr/libexec/sendmail-mta", "/usr/lib/sm.bin/sendmail", "/usr/sbin/sendmail.sendmail"],
        users: &["root", "smmta", "mail"],
    },
    Mta {
        name: "courier",
        paths: &[
            "/usr/lib/courier/courier/modules/esmtp/courieresmtp",
            "/usr/libexec/courier/modules/esmtp/courieresmtp",
        ],
        users: &["courier", "daemon"],
    },
    Mta { name: "qmail", paths: &["/var/qmail/bin/qmail-remote", "/usr/sbin/qmail-remote"], users: &["qmailr"] },
    Mta {
        name: "nullmailer",
        paths: &["/usr/lib/nullmailer/smtp", "/usr/libexec/nullmailer/smtp"],
        users: &["mail", "nullmail"],
    },
    Mta { name: "dma", paths: &["/usr/sbin/dma", "/usr/lib/dma/dma"], users: &["mail", "root"] },
];

/// The mail servers a name stands for; `auto` is all of them.
pub(super) fn named(name: &str) -> impl Iterator<Item = &'static Mta> {
    KNOWN.iter().filter(move |mta| name == "auto" || mta.name == name)
}

/// The names a policy may use.
pub(super) fn names() -> String {
    let mut names: Vec<&str> = vec!["auto"];
    names.extend(KNOWN.iter().map(|mta| mta.name));
    names.join(", ")
}
