//! An HTTPS server with a certificate of its own authority.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::until::{DEADLINE, until};
use crate::{Host, Lab, Program, Running};

/// Python's own server. It takes nothing that is not signed with the secret or is older than a minute, and answers the
/// first request it believes with 503, as one that is overloaded.
const SERVER: &str = r#"
import hashlib, hmac, http.server, json, ssl, sys, time
folder, port = sys.argv[1], int(sys.argv[2])
secret = b"tell nobody"
seen = 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global seen
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = dict(part.split("=", 1) for part in self.headers["X-Portreeve-Signature"].split(","))
        expected = hmac.new(secret, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        good = hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < 60
        seen += good
        status = 401 if not good else 503 if seen == 1 else 204
        with open(folder + "/requests", "a") as log:
            line = {"status": status, "path": self.path, "body": json.loads(body)}
            log.write(json.dumps(line | {"type": self.headers["Content-Type"]}) + "\n")
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

server = http.server.HTTPServer(("127.0.0.1", port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/server.pem", folder + "/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
open(folder + "/ready", "w").close()
server.serve_forever()
"#;

/// A running server on a host's loopback.
#[derive(Debug)]
pub struct HttpsServer {
    folder: PathBuf,
    _server: Running,
}

impl HttpsServer {
    /// The secret that it knows.
    pub const SECRET: &str = "tell nobody";

    /// Starts it on a port, and returns when it listens.
    ///
    /// # Panics
    /// When the certificates cannot be made or it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, host: &Host, port: u16) -> Self {
        let folder = lab.scratch("https");
        std::fs::create_dir(&folder).unwrap();
        certificates(&folder);
        let arguments = ["-c", SERVER, folder.to_str().unwrap(), &port.to_string()];
        let log = lab.scratch("https-log");
        let server = Program::new("/usr/bin/python3".into()).args(arguments).in_host(host).spawn(&log);
        until("the HTTPS server", DEADLINE, || {
            if folder.join("ready").exists() { Ok(()) } else { Err(std::fs::read_to_string(&log)) }
        });
        Self { folder, _server: server }
    }

    /// The certificate of the authority that vouches for it.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// What was asked of it: `status`, `path`, `type` and `body` of each.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("requests")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Makes `ca.pem`, an authority, and `server.pem` with `server.key`: a certificate of its for 127.0.0.1.
///
/// # Panics
/// When openssl cannot.
#[track_caller]
pub fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let program = Program::new("/usr/bin/openssl".into());
        program
            .args(arguments.split(' ').map(|part| part.replace("DIR", folder.to_str().unwrap())))
            .run()
            .must_succeed();
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 1 -subj /CN=lab-authority -keyout DIR/ca.key -out DIR/ca.pem"));
    openssl(&format!(
        "req -x509 {key} -days 1 -subj /CN=lab-server -CA DIR/ca.pem -CAkey DIR/ca.key \
         -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
         -keyout DIR/server.key -out DIR/server.pem"
    ));
}
