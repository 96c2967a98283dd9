//! The scene most tests play in.

use std::path::Path;

use crate::{Cgroup, Host, Lab, Sink};

/// A host with a mail exchanger at the other end of a wire, listening on port 25.
#[derive(Debug)]
pub struct Scene {
    /// The lab it is in.
    pub lab: Lab,
    /// Where programs try to send from.
    pub host: Host,
    /// Where they try to send to.
    pub mx: Host,
    /// What listens there.
    pub sink: Sink,
}

impl Scene {
    /// Builds it. `name` is the test's.
    #[track_caller]
    #[must_use]
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (host, mx) = (lab.host("host"), lab.host("mx"));
        lab.wire(&host, &mx);
        let sink = Sink::listen(&mx, 25);
        Self { lab, host, mx, sink }
    }

    /// What a plain connect() of a copy of `lab-client` to the exchanger gives: `connected`, or the errno.
    #[track_caller]
    #[must_use]
    pub fn plain(&self, program: &Path, cgroup: &Cgroup, (uid, gid): (u32, u32)) -> String {
        let program = self.lab.program(program).args(["plain", &self.mx.v4().to_string(), "25"]);
        let outcome = program.in_host(&self.host).in_cgroup(cgroup).as_user(uid, gid).run().must_succeed();
        outcome.stdout.trim().to_owned()
    }
}
