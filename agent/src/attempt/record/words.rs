//! The numbers of an event, in words.

use portreeve_abi::{Hook, Reason, Taint, Truncated, Verdict};

/// include/uapi/linux/in.h.
const IPPROTO_MPTCP: u16 = 262;
/// include/linux/socket.h: what a program was refused, by the level of its `setsockopt()`.
const SOL_PACKET: u16 = 263;
const SOL_XDP: u16 = 283;

/// The word of a verdict. A local hand-over is an allowed attempt; its reason says that it was local.
pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow | Verdict::Local => "allow",
        Verdict::Deny => "deny",
        Verdict::Observe => "observe",
    }
}

pub(super) fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::Rule => "rule",
        Reason::Local => "local",
        Reason::NoRule => "no-rule",
        Reason::NoProcess => "no-process",
        Reason::Unreadable => "unreadable",
        Reason::NoPolicy => "no-policy",
        Reason::Tainted => "tainted",
        Reason::AuditRule => "audit-rule",
        Reason::NoVerdict => "no-verdict",
        Reason::Forwarded => "forwarded",
        Reason::Unclear => "unclear",
        Reason::RawSender => "raw-sender",
        Reason::NoMemory => "no-memory",
        Reason::OtherMac => "other-mac",
        Reason::OtherVlan => "other-vlan",
        Reason::Relayed => "relayed",
        Reason::NoRelay => "no-relay",
    }
}

pub(super) fn hook_word(hook: Hook) -> &'static str {
    match hook {
        Hook::Connect4 => "connect4",
        Hook::Connect6 => "connect6",
        Hook::Packet => "packet",
        Hook::Frame => "frame",
        Hook::Setsockopt => "setsockopt",
        Hook::Existing => "existing",
        Hook::Lan => "lan",
    }
}

pub(super) fn protocol_word(protocol: u16) -> &'static str {
    match protocol {
        IPPROTO_MPTCP => "mptcp",
        SOL_PACKET => "af_packet",
        SOL_XDP => "af_xdp",
        _ => "tcp",
    }
}

/// The name of a device of the agent's own network namespace; that of another is given as its number.
pub(super) fn interface(index: u32) -> Option<String> {
    if index == 0 {
        return None;
    }
    let name = nix::net::if_::if_indextoname(index).ok();
    let name = name.and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty());
    // One that is gone by now has none.
    Some(name.unwrap_or_else(|| format!("#{index}")))
}

/// The words of TCP's flags (RFC 9293 §3.1).
pub(super) fn tcp_flags(bits: u8) -> Vec<String> {
    let words = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
    (0..).zip(words).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, word)| word.to_owned()).collect()
}

pub(super) fn severity(verdict: Verdict, suspicious: bool) -> &'static str {
    match (verdict, suspicious) {
        (_, true) => "warning",
        (Verdict::Deny | Verdict::Observe, false) => "notice",
        (Verdict::Allow | Verdict::Local, false) => "info",
    }
}

/// The words of taint bits.
pub(super) fn taints(bits: u32) -> Vec<String> {
    let words = [
        (Taint::LD_PRELOAD, "ld_preload"),
        (Taint::LD_AUDIT, "ld_audit"),
        (Taint::LD_LIBRARY_PATH, "ld_library_path"),
        (Taint::TRACED, "traced"),
        (Taint::EXE_CHANGED, "exe_changed"),
        (Taint::EXEC_UNSEEN, "exec_unseen"),
        (Taint::ENV_UNSEEN, "environment_unseen"),
    ];
    words.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, word)| (*word).to_owned()).collect()
}

pub(super) fn truncated(bits: u16) -> Vec<String> {
    let words = [(Truncated::EXE_PATH, "exe"), (Truncated::CGROUP_PATH, "cgroup"), (Truncated::CMDLINE, "cmdline")];
    words.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, word)| (*word).to_owned()).collect()
}
