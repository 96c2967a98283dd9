//! How the hooks are doing.

use serde::Serialize;

use super::sys::LinkInfo;

/// How a hook is doing.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// `connect4`, `connect6`, `setsockopt`, `packet`, `frame`; `exec`, `fork`, `exit`, `reach`, `bpf`, `lsm`.
    pub name: String,
    /// `active`, `failed` or `absent`.
    pub state: &'static str,
    /// The link's id; for `frame`, of which there is one a device, none.
    pub link: Option<u32>,
    /// The program's id.
    pub program: Option<u32>,
    /// By what means, and where, as far as that is not the same everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Without it the guard is as tight, and knows less.
    #[serde(skip)]
    pub optional: bool,
    /// Why it is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl HookStatus {
    pub(super) fn new(name: &str, state: &'static str, info: Option<LinkInfo>, why: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            state,
            link: info.map(|info| info.id),
            program: info.map(|info| info.program),
            by: None,
            optional: state == "absent",
            why,
        }
    }

    pub(super) fn only_watches(self) -> Self {
        Self { optional: true, ..self }
    }
}
