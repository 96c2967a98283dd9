//! The SHA-256 of a running executable, taken beside the event path.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use portreeve_abi::TICK;
use procfs::process::Process;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::mpsc;

/// The largest executable whose sum is taken.
pub const LARGEST: u64 = 256 << 20;
/// How many requests wait.
const QUEUE: usize = 16;
/// How many bytes are read at once.
const PIECE: usize = 64 << 10;

/// Why there is no sum.
#[derive(Debug, Error)]
pub enum DigestError {
    /// Nothing to read from.
    #[error("process {pid} is gone, and its executable with it")]
    Gone {
        /// The process.
        pid: u32,
    },
    /// The queue is full.
    #[error("{QUEUE} executables wait to be read already; this one is left out")]
    Busy,
    /// Too large.
    #[error("the executable has {bytes} bytes; at most {LARGEST} are read")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Reading.
    #[error("cannot read the executable of process {pid}: {source}")]
    Read {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start a thread to read executables: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

/// A sum that was asked for.
#[derive(Debug)]
pub struct Digested {
    /// What the caller knows the request by: the alert's number.
    pub key: u64,
    /// The sum in hexadecimal digits.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub sum: Result<String, DigestError>,
}

struct Request {
    key: u64,
    pid: u32,
    /// Opened with `O_PATH`: the file stays the process's, however soon that ends.
    file: File,
}

/// Takes sums on a thread of its own.
#[derive(Debug)]
pub struct Digests {
    requests: SyncSender<Request>,
}

impl Digests {
    /// Starts the thread. The sums come out of the channel.
    ///
    /// # Errors
    ///
    /// When there can be no further thread.
    pub fn start() -> Result<(Self, mpsc::Receiver<Digested>), DigestError> {
        let (requests, waiting) = sync_channel(QUEUE);
        let (done, sums) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("portreeve-sums".to_owned())
            .spawn(move || work(&waiting, &done))
            .map_err(|source| DigestError::Thread { source })?;
        Ok((Self { requests }, sums))
    }

    /// Asks for the sum of the executable of a process that started at `start` (CLOCK_BOOTTIME nanoseconds). The executable
    /// may be deleted. Does not wait.
    ///
    /// # Errors
    ///
    /// When the process is gone, or others wait already.
    pub fn ask(&self, key: u64, pid: u32, start: u64) -> Result<(), DigestError> {
        let gone = || DigestError::Gone { pid };
        let path = format!("/proc/{pid}/exe");
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(path).ok().ok_or_else(gone)?;
        // Asked after the file was opened: had the number changed hands before, the start would be another.
        let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()).ok_or_else(gone)?;
        if process.stat().ok().ok_or_else(gone)?.starttime != start / TICK {
            return Err(gone());
        }
        self.requests.try_send(Request { key, pid, file }).ok().ok_or(DigestError::Busy)
    }
}

fn work(waiting: &Receiver<Request>, done: &mpsc::Sender<Digested>) {
    for Request { key, pid, file } in waiting {
        if done.blocking_send(Digested { key, sum: sum(pid, &file) }).is_err() {
            return;
        }
    }
}

fn sum(pid: u32, file: &File) -> Result<String, DigestError> {
    use std::os::fd::AsRawFd as _;
    let fail = |source| DigestError::Read { pid, source };
    let mut file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(fail)?;
    let bytes = file.metadata().map_err(fail)?.len();
    if bytes > LARGEST {
        return Err(DigestError::TooLarge { bytes });
    }
    let (mut hash, mut piece, mut read) = (Sha256::new(), vec![0; PIECE], 0);
    loop {
        let more = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(more) => more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(fail(error)),
        };
        read += more as u64;
        if read > LARGEST {
            return Err(DigestError::TooLarge { bytes: read });
        }
        hash.update(&piece[..more]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command};

    use super::*;

    fn start(pid: u32) -> u64 {
        Process::new(pid as i32).unwrap().stat().unwrap().starttime * TICK
    }

    /// A running copy of sleep.
    fn copy() -> (tempfile::TempDir, Child) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bot");
        fs::copy(fs::canonicalize("/bin/sleep").unwrap(), &path).unwrap();
        let child = Command::new(&path).arg("60").spawn().unwrap();
        (folder, child)
    }

    #[test]
    fn the_sum_of_a_deleted_executable_is_taken_as_sha256sum_does() {
        let (folder, mut child) = copy();
        let path = folder.path().join("bot");
        let expected = Command::new("sha256sum").arg(&path).output().unwrap();
        let expected = String::from_utf8(expected.stdout).unwrap();
        fs::remove_file(&path).unwrap();
        let (digests, mut sums) = Digests::start().unwrap();
        digests.ask(7, child.id(), start(child.id())).unwrap();
        // The process may end before its turn comes.
        child.kill().unwrap();
        child.wait().unwrap();
        let digested = sums.blocking_recv().unwrap();
        assert_eq!((digested.key, digested.sum.unwrap().as_str()), (7, &expected[..64]));
    }

    #[test]
    fn another_process_with_the_number_is_not_read() {
        let (digests, _sums) = Digests::start().unwrap();
        let own = std::process::id();
        assert!(matches!(digests.ask(1, own, start(own) + TICK), Err(DigestError::Gone { .. })));
        assert!(matches!(digests.ask(1, u32::MAX, 0), Err(DigestError::Gone { .. })));
    }

    #[test]
    fn a_full_queue_and_a_large_file_are_refused() {
        let (requests, waiting) = sync_channel(QUEUE);
        let digests = Digests { requests };
        let own = std::process::id();
        for key in 0..QUEUE as u64 {
            digests.ask(key, own, start(own)).unwrap();
        }
        assert!(matches!(digests.ask(99, own, start(own)), Err(DigestError::Busy)));
        drop(waiting);
        let large = tempfile::NamedTempFile::new().unwrap();
        large.as_file().set_len(LARGEST + 1).unwrap();
        assert!(matches!(sum(1, large.as_file()), Err(DigestError::TooLarge { .. })));
    }
}
