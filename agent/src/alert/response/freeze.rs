//! Freezing a subject's cgroup, and thawing it (Documentation/admin-guide/cgroup-v2.rst, cgroup.freeze; since Linux 5.2).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::known::{Known, members};
use super::{Action, Deed, Judge, Outcome, Responder, Suspect, Target, UndoError, add, deed, names};
use crate::rights::while_writable;

/// How many processes a cgroup may have to be frozen: each is looked at first.
const LOOKED_AT: usize = 4096;
/// How long the kernel may take until everything in the cgroup stands still.
const STANDS_STILL: Duration = Duration::from_millis(200);

/// Freezes the suspect's cgroup, unless there is a reason not to.
pub(super) fn freeze(responder: &Responder, suspect: &Suspect, deeds: &mut Vec<Deed>, judge: &mut impl Judge) {
    let target = Target::Cgroup { path: suspect.cgroup.clone(), id: suspect.cgroup_id };
    let folder = responder.cgroup2.join(suspect.cgroup.trim_start_matches('/'));
    // A cgroup that has gone, or another of its name, is nobody's to freeze.
    if !is(&folder, suspect.cgroup_id) {
        return;
    }
    let before = deeds.iter().any(|deed| deed.target == target && deed.outcome == Outcome::Done && !deed.undone);
    let frozen = fs::read_to_string(folder.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1");
    if frozen && before {
        return;
    }
    let outcome = match untouchable(responder, suspect, &folder, judge) {
        Some(why) => Outcome::Refused(why),
        None if frozen => Outcome::Already,
        None => match set(responder, &folder, true) {
            // Somebody has thawed it; it is frozen again, which is one deed.
            Ok(()) if before => return,
            Ok(()) => Outcome::Done,
            Err(error) => {
                // Half a freeze is none.
                let undone = set(responder, &folder, false).err().map(|error| format!("; and it stays so: {error}"));
                Outcome::Failed(format!("{error}{}", undone.unwrap_or_default()))
            }
        },
    };
    add(deeds, deed(Action::Freeze, target, outcome));
}

/// Thaws a cgroup, if it is still the same.
pub(super) fn thaw(responder: &Responder, target: &Target) -> Result<(), UndoError> {
    let gone = || UndoError::Gone { target: target.clone() };
    let Target::Cgroup { path, id } = target else { return Err(gone()) };
    let folder = responder.cgroup2.join(path.trim_start_matches('/'));
    if !is(&folder, *id) {
        return Err(gone());
    }
    set(responder, &folder, false).map_err(|source| {
        let remedy = format!("look at cgroup.freeze of {} and those above it", folder.display());
        UndoError::Failed { target: target.clone(), remedy, source }
    })
}

/// Whether the cgroup of a folder has this id: on 64-bit machines kernfs's inode number.
fn is(folder: &Path, id: u64) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir() && meta.ino() == id)
}

/// Why a cgroup is not to be frozen.
fn untouchable(responder: &Responder, suspect: &Suspect, folder: &Path, judge: &mut impl Judge) -> Option<String> {
    let path = names(&suspect.cgroup);
    if path.is_empty() {
        return Some("it is the root of all cgroups; use action = \"stop\"".to_owned());
    }
    if path.len() <= responder.guarded.len() || !path.starts_with(&responder.guarded) {
        return Some("it is not below the guarded sub-tree; use action = \"stop\"".to_owned());
    }
    if let Some(owner) = fs::metadata(folder.join("cgroup.freeze")).ok().map(|meta| meta.uid())
        && owner != 0
    {
        return Some(format!("user {owner} owns it, and could thaw it at once; use action = \"stop\""));
    }
    let Some(members) = members(folder, LOOKED_AT) else {
        return Some(format!("its processes cannot be listed, or are more than {LOOKED_AT}; use action = \"stop\""));
    };
    members.into_keys().find_map(|pid| {
        let why = if pid == 1 {
            "is PID 1"
        } else if responder.protected.contains(&pid) {
            "is the agent, or one that the agent descends from"
        } else if Known::read(pid)?.kernel_thread {
            "is a thread of the kernel"
        } else if judge.sanctioned(pid) {
            "is allowed by a rule of the policy"
        } else {
            return None;
        };
        Some(format!("process {pid} in it {why}; use action = \"stop\""))
    })
}

/// Freezes or thaws a cgroup, and waits until the kernel says that it is done.
fn set(responder: &Responder, folder: &Path, freeze: bool) -> io::Result<()> {
    let file: PathBuf = folder.join("cgroup.freeze");
    while_writable(&responder.cgroup2, || fs::write(&file, if freeze { "1" } else { "0" }))?;
    let wanted = if freeze { "frozen 1" } else { "frozen 0" };
    let asked = Instant::now();
    loop {
        let events = fs::read_to_string(folder.join("cgroup.events"))?;
        if events.lines().any(|line| line == wanted) {
            return Ok(());
        }
        if asked.elapsed() > STANDS_STILL {
            let what = match freeze {
                true => "the kernel did not report it frozen in time; a process may be waiting for a device",
                false => "the kernel reports it frozen still; a cgroup above it may be frozen",
            };
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
