//! What the machine is booted with, and what must come of it. A new case is a new entry here.

/// One boot.
pub(super) struct Scenario {
    /// What `--boot=` takes.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// `/etc/portreeve/portreeve.toml`.
    pub policy: &'static str,
    /// `/usr/local/bin/portreeve`.
    pub agent: Agent,
    /// Whether the units of config/systemd are enabled.
    pub enabled: bool,
    /// More files, with their content.
    pub files: &'static [(&'static str, &'static str)],
    /// What must be seen; what is not named here is printed and not judged.
    pub expect: &'static [Expect],
}

/// What stands at the agent's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    /// The agent.
    Real,
    /// The agent, but for `portreeve run`, which fails at once.
    RunFails,
    /// Nothing.
    Missing,
}

/// One thing that must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// The bot tried before there was a network, and afterwards: without it the rest means nothing.
    BotIsEarly,
    /// The exchanger was never reached.
    NothingGetsThrough,
    /// The exchanger was reached: for the control that shows that it can be.
    SomethingGetsThrough,
    /// The first refusal came before the network did.
    GuardBeforeNetwork,
    /// The network came up.
    Network,
    /// Something that `portreeve status` says.
    Agent(&'static str, &'static str),
    /// A unit's ActiveState, as systemctl(1) has it.
    Unit(&'static str, &'static str),
}

use Expect::{Agent as Says, BotIsEarly, GuardBeforeNetwork, Network, NothingGetsThrough, SomethingGetsThrough, Unit};

const BROKEN: &str = "[guard]\nmode = 5\n";

/// Every boot there is.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "unguarded",
        about: "the control: no unit of Portreeve is enabled, and mail gets through",
        policy: "",
        agent: Agent::Real,
        enabled: false,
        files: &[],
        expect: &[BotIsEarly, Network, SomethingGetsThrough],
    },
    Scenario {
        name: "healthy",
        about: "a policy that allows nobody",
        policy: "",
        agent: Agent::Real,
        enabled: true,
        files: &[],
        expect: &[
            BotIsEarly,
            Network,
            GuardBeforeNetwork,
            NothingGetsThrough,
            Unit("portreeve.service", "active"),
            Says("state", "guarding"),
            Says("files_read_only", "true"),
            Says("seccomp", "true"),
        ],
    },
    Scenario {
        name: "last-good",
        about: "a policy that does not check, and a copy of one that did",
        policy: BROKEN,
        agent: Agent::Real,
        enabled: true,
        files: &[("/var/lib/portreeve/default/last-good/portreeve.toml", "")],
        expect: &[BotIsEarly, Network, GuardBeforeNetwork, NothingGetsThrough, Unit("portreeve.service", "active")],
    },
    Scenario {
        name: "broken-policy",
        about: "a policy that does not check, and no copy of one that did",
        policy: BROKEN,
        agent: Agent::Real,
        enabled: true,
        files: &[],
        expect: &[BotIsEarly, Network, GuardBeforeNetwork, NothingGetsThrough, Unit("portreeve.service", "active")],
    },
    Scenario {
        name: "agent-fails",
        about: "an agent that cannot run",
        policy: "",
        agent: Agent::RunFails,
        enabled: true,
        files: &[],
        expect: &[BotIsEarly, Network, NothingGetsThrough, Unit("portreeve-closed.service", "active")],
    },
    Scenario {
        name: "agent-missing",
        about: "no agent at all, but its units",
        policy: "",
        agent: Agent::Missing,
        enabled: true,
        files: &[],
        expect: &[BotIsEarly, Network, NothingGetsThrough, Unit("portreeve-closed.service", "active")],
    },
    Scenario {
        name: "mount-fails",
        about: "the folder of the policy is on a file system that cannot be mounted",
        policy: "",
        agent: Agent::Real,
        enabled: true,
        files: &[("/etc/fstab", "/dev/none /etc/portreeve ext4 nofail,x-systemd.device-timeout=2s 0 2\n")],
        expect: &[BotIsEarly, Network, NothingGetsThrough, Unit("portreeve-closed.service", "active")],
    },
];
