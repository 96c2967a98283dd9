//! What the packages' installation scripts would have done, in short: users, directories, a configuration.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::Package;
use crate::Root;

// Above Debian's system users and below its host's dynamic ones, so that they are nobody's on the host.
pub(super) const POSTFIX: u32 = 2101;
const POSTDROP: u32 = 2102;
pub(super) const EXIM: u32 = 2103;
pub(super) const OPENSMTPD: u32 = 2104;
const OPENSMTPQ: u32 = 2105;
const MAIL: u32 = 8; // base-passwd's

/// /etc/passwd, /etc/group and the names of the host.
#[track_caller]
pub(super) fn users(root: &Root) {
    let users = [
        ("root", 0, 0, "/root"),
        ("mail", MAIL, MAIL, "/var/mail"),
        ("nobody", 65534, 65534, "/nonexistent"),
        ("postfix", POSTFIX, POSTFIX, "/var/spool/postfix"),
        ("Debian-exim", EXIM, EXIM, "/var/spool/exim4"),
        ("opensmtpd", OPENSMTPD, OPENSMTPD, "/var/lib/opensmtpd/empty"),
        ("opensmtpq", OPENSMTPQ, OPENSMTPQ, "/var/lib/opensmtpd/empty"),
    ];
    let (mut passwd, mut group) = (String::new(), format!("postdrop:x:{POSTDROP}:\n"));
    for (name, uid, gid, home) in users {
        passwd += &format!("{name}:x:{uid}:{gid}:{name}:{home}:/bin/sh\n");
        group += &format!("{name}:x:{gid}:\n");
    }
    root.write("/etc/passwd", &passwd);
    root.write("/etc/group", &group);
    root.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
    root.write("/etc/hosts", "127.0.0.1 host.example localhost\n::1 host.example localhost\n");
    root.write("/etc/resolv.conf", "");
    root.write("/etc/services", "smtp 25/tcp mail\n");
    root.write("/etc/mailname", "host.example\n");
    // The resolver and every server take the host's name from here if they can.
    root.write("/etc/hostname", "host.example\n");
}

/// Directories and set-group-id bits.
#[track_caller]
pub(super) fn prepare(package: Package, root: &Root) {
    match package {
        Package::Postfix => {
            directory(root, "/var/lib/postfix", 0o755, POSTFIX, POSTFIX);
            directory(root, "/var/spool/postfix", 0o755, 0, 0);
            for program in ["/usr/sbin/postdrop", "/usr/sbin/postqueue"] {
                own(root, program, 0o2555, 0, POSTDROP);
            }
            root.write("/etc/postfix/master.cf", MASTER_CF);
        }
        Package::Exim => {
            directory(root, "/var/spool/exim4", 0o750, EXIM, EXIM);
            directory(root, "/var/log/exim4", 0o2750, EXIM, EXIM);
            directory(root, "/run/exim4", 0o755, EXIM, EXIM);
        }
        Package::OpenSmtpd => {
            directory(root, "/var/lib/opensmtpd/empty", 0o711, 0, 0);
            directory(root, "/var/spool/smtpd", 0o711, 0, 0);
            own(root, "/usr/sbin/smtpctl", 0o2555, 0, OPENSMTPQ);
            let sendmail = root.inside("/usr/sbin/sendmail");
            // The package leaves the name to the alternatives' system.
            if sendmail.symlink_metadata().is_err() {
                symlink("smtpctl", sendmail).unwrap();
            }
        }
    }
}

/// The configuration: mail from this host, all of it to `relay`.
#[track_caller]
pub(super) fn relay_to(package: Package, root: &Root, relay: SocketAddr, more: &str) {
    let (relay, port) = (relay.ip(), relay.port());
    match package {
        Package::Postfix => {
            root.write("/etc/postfix/main.cf", &format!("{MAIN_CF}relayhost = [{relay}]:{port}\n{more}"));
        }
        Package::Exim => {
            // Set-user-id programs trust no configuration that others could have written.
            let text = EXIM_CONF.replace("RELAY", &relay.to_string()).replace("PORT", &port.to_string());
            root.write("/etc/exim4/exim4.conf", &text);
            own(root, "/etc/exim4/exim4.conf", 0o644, 0, 0);
        }
        Package::OpenSmtpd => root.write(
            "/etc/smtpd.conf",
            &format!(
                "listen on 127.0.0.1 port 25\nlisten on ::1 port 25\n\
                 mta limit session-keepalive 0 conn-delay-relay 0 conn-delay-route 0 reconn-delay-route 0\n\
                 action \"out\" relay host \"smtp://{relay}:{port}\"\nmatch from any for any action \"out\"\n"
            ),
        ),
    }
}

#[track_caller]
fn directory(root: &Root, path: &str, mode: u32, uid: u32, gid: u32) {
    std::fs::create_dir_all(root.inside(path)).unwrap();
    own(root, path, mode, uid, gid);
}

#[track_caller]
fn own(root: &Root, path: &str, mode: u32, uid: u32, gid: u32) {
    let path = root.inside(path);
    chown(&path, Some(uid), Some(gid)).unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    // After the owner, because a change of owner clears the set-id bits.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

const MAIN_CF: &str = "\
compatibility_level = 3.7
queue_directory = /var/spool/postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
data_directory = /var/lib/postfix
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = host.example
mydestination =
alias_maps =
alias_database =
inet_interfaces = loopback-only
inet_protocols = all
mynetworks = 127.0.0.0/8 [::1]/128
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_security_level = none
maillog_file = /dev/stdout
";

/// Debian's services with no chroot: the whole server is in one already.
const MASTER_CF: &str = "\
smtp      inet  n - n -     - smtpd
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
local     unix  - n n -     - local
virtual   unix  - n n -     - virtual
lmtp      unix  - - n -     - lmtp
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
";

const EXIM_CONF: &str = "\
primary_hostname = host.example
local_interfaces = <; 127.0.0.1 ; ::1
daemon_smtp_ports = 25
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
add_environment = PATH=/usr/sbin:/usr/bin
untrusted_set_sender = *
acl_smtp_rcpt = take

begin acl
take:
  accept

begin routers
out:
  driver = manualroute
  transport = wire
  route_list = * \"<+ RELAY\"
  self = send

begin transports
wire:
  driver = smtp
  port = PORT
  hosts_avoid_tls = *
  hosts_try_chunking =

begin retry
* * F,2h,1m
";
