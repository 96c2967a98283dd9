//! What people (and bots) send mail with: Python, bash, curl, swaks.

use std::net::SocketAddr;

use crate::{Lab, Program};

/// Debian's own Python: every user may run it, unlike one in root's home.
pub const PYTHON: &str = "/usr/bin/python3";
/// Debian's bash.
pub const BASH: &str = "/usr/bin/bash";
/// Debian's curl.
pub const CURL: &str = "/usr/bin/curl";
/// Debian's swaks, a Perl script.
pub const SWAKS: &str = "/usr/bin/swaks";

/// One connection and a line; prints the exception's name and errno when it fails.
const PYTHON_CONNECT: &str = "
import errno, socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
    s.sendall(b'python\\r\\n'); s.shutdown(socket.SHUT_WR)
    while s.recv(4096): pass
    print('connected')
except OSError as e:
    print(errno.errorcode.get(e.errno, type(e).__name__)); sys.exit(1)
";

/// One message by smtplib; the spam bot of every scenario.
const PYTHON_MAIL: &str = "
import errno, smtplib, sys
try:
    with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=5) as s:
        s.sendmail(sys.argv[3], [sys.argv[4]], 'Subject: ' + sys.argv[5] + '\\r\\n\\r\\nfrom python\\r\\n')
    print('sent')
except OSError as e:
    print(errno.errorcode.get(e.errno, type(e).__name__)); sys.exit(1)
";

impl Lab {
    /// Python opens a connection. Prints `connected`, or the error's name and exits with 1.
    pub fn python_connect(&self, to: SocketAddr) -> Program {
        self.python(PYTHON_CONNECT).args([to.ip().to_string(), to.port().to_string()])
    }

    /// Python sends a message by SMTP. Prints `sent`, or the error's name and exits with 1.
    pub fn python_mail(&self, to: SocketAddr, from: &str, rcpt: &str, subject: &str) -> Program {
        self.python(PYTHON_MAIL).args([to.ip().to_string(), to.port().to_string()]).args([from, rcpt, subject])
    }

    /// Python runs this text; further arguments are its `sys.argv[1:]`.
    pub fn python(&self, text: &str) -> Program {
        self.program(PYTHON).args(["-c", text])
    }

    /// bash opens /dev/tcp and writes a line. Exits with 0 only when it could.
    pub fn bash_connect(&self, to: SocketAddr) -> Program {
        let text = format!("exec 3<>/dev/tcp/{}/{} && echo bash >&3", to.ip(), to.port());
        self.program(BASH).args(["-c", &text])
    }

    /// curl sends a message by smtp://. Exits with 0 only when it was taken.
    pub fn curl_mail(&self, to: SocketAddr, from: &str, rcpt: &str) -> Program {
        self.program(CURL)
            .args(["--silent", "--show-error", "--max-time", "10"])
            .args(["--url", &format!("smtp://{to}/client.example")])
            .args(["--mail-from", from, "--mail-rcpt", rcpt])
            .args(["--upload-file", "-"])
            .stdin("Subject: from curl\r\n\r\nfrom curl\r\n")
    }

    /// swaks sends a message. Exits with 0 only when it was taken.
    pub fn swaks(&self, to: SocketAddr, from: &str, rcpt: &str) -> Program {
        self.program(SWAKS)
            .args(["--server", &to.ip().to_string()])
            .args(["--port", &to.port().to_string()])
            .args(["--from", from, "--to", rcpt, "--helo", "client.example"])
            .args(["--timeout", "10"])
    }
}
