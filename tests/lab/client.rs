//! `lab-client`: the ways to a connection, and what it reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Lab, Outcome, Program};

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says where `lab-client` is. Without it, it is looked for where Cargo puts it beside the tests.
pub fn set_program(path: impl Into<PathBuf>) {
    PROGRAM.get_or_init(|| path.into());
}

/// The `lab-client` that Cargo has built.
///
/// # Panics
/// When it is not there.
#[track_caller]
#[must_use]
pub fn program() -> &'static Path {
    let path = PROGRAM.get_or_init(|| {
        // target/debug/deps/some_test-0123 and target/debug/lab-client
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("lab-client")
    });
    assert!(path.exists(), "lab-client is not at {}", path.display());
    path
}

/// Copies a program to `target`, for every user to run.
///
/// By install(1), not in this process: a fork on another thread would inherit the descriptor that writes, and the
/// first exec of the copy would fail with ETXTBSY.
///
/// # Panics
/// When it cannot be copied.
#[track_caller]
pub fn install(program: &Path, target: &Path) {
    let mut command = Command::new("install");
    let output = command.args(["-m", "0755"]).args([program, target]);
    let output = output.output().unwrap();
    assert!(
        output.status.success(),
        "copy {} to {}: {}",
        program.display(),
        target.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A way to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connect {
    /// A blocking `connect()`.
    Plain,
    /// `connect()` on a non-blocking socket, then `poll()`.
    Nonblocking,
    /// `sendto()` with `MSG_FASTOPEN`.
    TfoSendto,
    /// `TCP_FASTOPEN_CONNECT`, then a write.
    TfoConnect,
    /// An IPv6 socket to the IPv4-mapped address.
    Mapped,
    /// The same by `MSG_FASTOPEN`.
    MappedTfo,
    /// Multipath TCP.
    Mptcp,
    /// Multipath TCP by `MSG_FASTOPEN`.
    MptcpTfo,
    /// Multipath TCP with `TCP_FASTOPEN_CONNECT`.
    MptcpTfoConnect,
    /// `IORING_OP_CONNECT`.
    IoUring,
    /// The same on a worker thread of the kernel's.
    IoUringAsync,
    /// The same from the kernel's polling thread.
    IoUringSqpoll,
    /// `IORING_OP_SENDMSG` with `MSG_FASTOPEN`.
    IoUringTfo,
    /// A socket connected elsewhere, dissolved by `AF_UNSPEC`, and connected again.
    Reconnect,
    /// A thread whose process has lost its leader.
    Leaderless,
    /// A bound source port first.
    BindFirst,
}

impl Connect {
    /// Every way.
    pub const ALL: [Self; 16] = [
        Self::Plain,
        Self::Nonblocking,
        Self::TfoSendto,
        Self::TfoConnect,
        Self::Mapped,
        Self::MappedTfo,
        Self::Mptcp,
        Self::MptcpTfo,
        Self::MptcpTfoConnect,
        Self::IoUring,
        Self::IoUringAsync,
        Self::IoUringSqpoll,
        Self::IoUringTfo,
        Self::Reconnect,
        Self::Leaderless,
        Self::BindFirst,
    ];

    /// The name of the way: `lab-client`'s first argument and its report's `path`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Nonblocking => "nonblocking",
            Self::TfoSendto => "tfo_sendto",
            Self::TfoConnect => "tfo_connect",
            Self::Mapped => "mapped",
            Self::MappedTfo => "mapped_tfo",
            Self::Mptcp => "mptcp",
            Self::MptcpTfo => "mptcp_tfo",
            Self::MptcpTfoConnect => "mptcp_tfo_connect",
            Self::IoUring => "io_uring",
            Self::IoUringAsync => "io_uring_async",
            Self::IoUringSqpoll => "io_uring_sqpoll",
            Self::IoUringTfo => "io_uring_tfo",
            Self::Reconnect => "reconnect",
            Self::Leaderless => "leaderless",
            Self::BindFirst => "bind_first",
        }
    }

    /// Whether the way leads to an address of this family: mapped addresses are IPv4's.
    #[must_use]
    pub fn leads_to(self, to: SocketAddr) -> bool {
        to.is_ipv4() || !matches!(self, Self::Mapped | Self::MappedTfo)
    }

    /// Whether the way sends its bytes in the SYN.
    #[must_use]
    pub fn is_fast_open(self) -> bool {
        self.name().contains("tfo")
    }
}

impl Lab {
    /// `lab-client`, to connect in this way to there; [`Program::report`] runs it.
    #[track_caller]
    pub fn client(&self, way: Connect, to: SocketAddr) -> Program {
        self.client_as(way.name(), to)
    }

    /// `lab-client` with any of its paths, also `udp`, `setuid` and `hammer`.
    #[track_caller]
    pub fn client_as(&self, path: &str, to: SocketAddr) -> Program {
        self.client_from(&self.client_program(), path, to)
    }

    /// The same from another copy of the program.
    #[track_caller]
    pub fn client_from(&self, program: &Path, path: &str, to: SocketAddr) -> Program {
        self.program(program).args([path, "--to", &to.ip().to_string(), "--port", &to.port().to_string()])
    }

    /// A flood of `count` attempts from `procs` processes; 0 goes on until SIGTERM. The report has
    /// [`Report::attempts`] and [`Report::by_errno`].
    #[track_caller]
    pub fn hammer(&self, to: SocketAddr, count: u64, procs: u32) -> Program {
        self.client_as("hammer", to).args(["--count", &count.to_string(), "--procs", &procs.to_string()])
    }
}

/// What `lab-client` says of its attempt.
#[derive(Debug, Clone)]
pub struct Report {
    /// The way it went.
    pub path: String,
    /// `connected`, `sent` (UDP), `refused`, `timeout`, `broken` (after the connect), `unsupported`, or `done` (hammer).
    pub result: String,
    /// The error's name, such as `EPERM`.
    pub errno: Option<String>,
    /// How long the connect took.
    pub ns: u64,
    /// The client's process id.
    pub pid: i32,
    /// The address and port that it connected from.
    pub local: Option<SocketAddr>,
    /// What `getpeername()` said.
    pub peer: Option<SocketAddr>,
    /// Whether the other end took data from the SYN.
    pub syn_data: bool,
    /// Whether the connection spoke Multipath TCP to the end.
    pub multipath: bool,
    /// `hammer`: all attempts.
    pub attempts: u64,
    /// `hammer`: the attempts by error; the successful ones are `connected`.
    pub by_errno: BTreeMap<String, u64>,
}

/// Reads the report that `outcome`'s program printed last.
///
/// # Panics
/// When there is none.
#[track_caller]
#[must_use]
pub fn report(outcome: &Outcome) -> Report {
    let last = outcome.stdout.lines().last().unwrap_or_default();
    let value: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("no report ({error}) from {outcome}"));
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let number = |key: &str| value[key].as_u64().unwrap_or(0);
    let address = |key: &str| value[key].as_str().and_then(|text| text.parse().ok());
    let counts = value["by_errno"].as_object().into_iter().flatten();
    Report {
        path: text("path").unwrap_or_default(),
        result: text("result").unwrap_or_else(|| panic!("no result from {outcome}")),
        errno: text("errno"),
        ns: number("ns"),
        pid: i32::try_from(number("pid")).unwrap(),
        local: address("local"),
        peer: address("peer"),
        syn_data: value["syn_data"] == true,
        multipath: value["multipath"] == true,
        attempts: number("attempts"),
        by_errno: counts.map(|(errno, count)| (errno.clone(), count.as_u64().unwrap_or(0))).collect(),
    }
}

impl Report {
    /// The attempt got through.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn must_connect(&self) {
        assert_eq!(self.result, "connected", "should have got through: {self:?}");
    }

    /// The attempt was refused with this error, such as `EPERM`.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn must_be_refused(&self, errno: &str) {
        assert_eq!(
            (self.result.as_str(), self.errno.as_deref()),
            ("refused", Some(errno)),
            "should have been refused: {self:?}"
        );
    }
}
