//! Lease files that are read again when they have changed, on a thread that may wait for a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Kind, Lease, LeaseError, Parsed, detect, parse};

/// The biggest file that is read, in bytes: at about 100 a lease, more than [`super::MOST_LEASES`] fill.
const BIGGEST: u64 = 64 << 20;
/// How often it is looked whether a file has changed.
const EVERY: Duration = Duration::from_secs(3);
/// How many files of a folder are read: networkd's has one an interface.
const MOST_FILES: usize = 256;
/// What Kea appends to the name of the parts of its journal while it cleans up (`Memfile_LeaseMgr::appendSuffix`): the
/// cleaned part, and in its absence the one before and the one that is being cleaned.
const KEA_PARTS: [&str; 3] = [".completed", ".2", ".1"];

/// A lease file to follow; a folder stands for the files in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is; `None` for whose it looks like.
    pub kind: Option<Kind>,
}

/// All leases of all files.
#[derive(Debug, Default)]
pub struct Report {
    /// The leases, those of a later file after those of the ones before it.
    pub leases: Vec<Lease>,
    /// What is wrong with each file that something is wrong with. The leases of one that cannot be read any more are those
    /// that it had.
    pub troubles: Vec<String>,
}

/// Reads lease files, those alone that have changed.
#[derive(Debug)]
pub struct LeaseReader {
    files: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    file: LeaseFile,
    /// The state in which the file was read last; none where it could not be looked at.
    stamps: Option<Vec<Stamp>>,
    leases: Vec<Lease>,
    trouble: Option<String>,
}

/// By what a file is known to be the same: where it is, its size and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    number: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl LeaseReader {
    /// A reader of files; none is opened yet.
    #[must_use]
    pub fn new(files: Vec<LeaseFile>) -> Self {
        let watched = |file| Watched { file, stamps: None, leases: Vec::new(), trouble: None };
        Self { files: files.into_iter().map(watched).collect() }
    }

    /// All leases, if one of the files has changed since they were asked for.
    pub fn changed(&mut self) -> Option<Report> {
        let mut news = false;
        for watched in &mut self.files {
            news |= watched.look();
        }
        news.then(|| Report {
            leases: self.files.iter().flat_map(|watched| watched.leases.iter().cloned()).collect(),
            troubles: self.files.iter().filter_map(|watched| watched.trouble.clone()).collect(),
        })
    }
}

/// Follows lease files on a thread, until nobody takes what it sends.
///
/// # Errors
///
/// When no thread can be started.
pub fn watch(files: Vec<LeaseFile>, out: SyncSender<Report>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("portreeve-leases".to_owned()).spawn(move || {
        let mut reader = LeaseReader::new(files);
        loop {
            // That nobody listens any more shows with the next news, which is soon enough: the thread only sleeps.
            if let Some(report) = reader.changed()
                && out.send(report).is_err()
            {
                return;
            }
            thread::sleep(EVERY);
        }
    })
}

impl Watched {
    /// Reads the file if it has changed; whether there is anything new.
    fn look(&mut self) -> bool {
        let read = match self.file.stamps() {
            Ok(stamps) if self.stamps.as_ref() == Some(&stamps) => return false,
            Ok(stamps) => {
                let read = self.file.read(&stamps);
                // A file that is no good is not read again until it has changed.
                self.stamps = Some(stamps);
                read
            }
            Err(error) => {
                // One that comes back is read, even if it is the same as before.
                self.stamps = None;
                Err(error)
            }
        };
        let (news, trouble) = match read {
            Ok(parsed) => {
                let trouble = trouble(&self.file.path, &parsed);
                self.leases = parsed.leases;
                (true, trouble)
            }
            Err(error) => (false, Some(error.to_string())),
        };
        let news = news || self.trouble != trouble;
        self.trouble = trouble;
        news
    }
}

/// What is wrong with a file that could be read.
fn trouble(path: &Path, parsed: &Parsed) -> Option<String> {
    let path = path.display();
    match (parsed.first_bad, parsed.left_out) {
        (Some(first), _) => {
            let bad = parsed.bad_lines;
            Some(format!("the lease file {path} has {bad} lines that cannot be read, the first is line {first}"))
        }
        (None, 0) => None,
        (None, more) => Some(format!("the lease file {path} has {more} leases more than are kept")),
    }
}

impl LeaseFile {
    /// The state of every file that there is to read, in the order in which they are to be read.
    fn stamps(&self) -> Result<Vec<Stamp>, LeaseError> {
        let fail = |source| LeaseError::Read { path: self.path.clone(), source };
        let mut stamps = Vec::new();
        if std::fs::metadata(&self.path).map_err(fail)?.is_dir() {
            let mut paths: Vec<PathBuf> = std::fs::read_dir(&self.path)
                .map_err(fail)?
                .flatten()
                .take(MOST_FILES)
                .map(|entry| entry.path())
                .collect();
            paths.sort();
            stamps.extend(paths.iter().filter_map(|path| Stamp::of(path).ok()));
            return Ok(stamps);
        }
        if matches!(self.kind, Some(Kind::Kea) | None) {
            let part = |suffix: &&str| {
                let mut name = self.path.clone().into_os_string();
                name.push(suffix);
                Stamp::of(Path::new(&name)).ok()
            };
            let [completed, older @ ..] = &KEA_PARTS;
            match part(completed) {
                Some(completed) => stamps.push(completed),
                None => stamps.extend(older.iter().filter_map(part)),
            }
        }
        stamps.push(Stamp::of(&self.path).map_err(fail)?);
        Ok(stamps)
    }

    /// What the files say, one after the other.
    fn read(&self, stamps: &[Stamp]) -> Result<Parsed, LeaseError> {
        let mut parsed = Parsed::default();
        let mut journal = Vec::new();
        let mut kind = self.kind;
        for stamp in stamps {
            let content = content(&stamp.path, BIGGEST.saturating_sub(journal.len() as u64))?;
            kind = self.kind.or_else(|| detect(&content)).or(kind);
            if kind == Some(Kind::Kea) {
                journal.extend(content);
                continue;
            }
            // The parts of Kea's journal are looked for where nobody has said that it is no such file.
            if content.is_empty() || (stamp.path != self.path && !stamp.path.starts_with(&self.path)) {
                continue;
            }
            let kind = kind.ok_or_else(|| LeaseError::Unknown { path: stamp.path.clone() })?;
            parsed.add(parse(kind, &content));
        }
        if !journal.is_empty() {
            parsed.add(parse(Kind::Kea, &journal));
        }
        Ok(parsed)
    }
}

impl Parsed {
    fn add(&mut self, more: Self) {
        let Self { leases, bad_lines, first_bad, left_out } = more;
        self.leases.extend(leases);
        self.bad_lines += bad_lines;
        self.first_bad = self.first_bad.or(first_bad);
        self.left_out += left_out;
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            number: (meta.dev(), meta.ino()),
            size: meta.size(),
            written: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// A file's content. Nothing but a plain file is read: a pipe would have the thread wait for whoever writes to it.
fn content(path: &Path, most: u64) -> Result<Vec<u8>, LeaseError> {
    let fail = |source| LeaseError::Read { path: path.to_owned(), source };
    let unfit = |what: String| LeaseError::Unfit { path: path.to_owned(), what };
    let file: File =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(fail)?;
    if !file.metadata().map_err(fail)?.is_file() {
        return Err(unfit("is no plain file".to_owned()));
    }
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() as u64 > most {
        return Err(unfit(format!("is bigger than the {} MiB that are read", BIGGEST >> 20)));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn lease(address: &str, name: &str) -> String {
        format!("0 00:1b:21:0a:0b:0c {address} {name} *\n")
    }

    fn names(report: Option<Report>) -> Vec<String> {
        report.unwrap().leases.into_iter().filter_map(|lease| lease.name).collect()
    }

    #[test]
    fn a_file_is_read_when_it_comes_and_changes_and_kept_when_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnsmasq.leases");
        let mut reader = LeaseReader::new(vec![LeaseFile { path: path.clone(), kind: None }]);
        let missing = reader.changed().unwrap();
        assert!(missing.leases.is_empty() && missing.troubles[0].contains("cannot read the lease file"));
        assert!(reader.changed().is_none(), "said once");
        fs::write(&path, lease("10.0.0.1", "a")).unwrap();
        assert_eq!(names(reader.changed()), ["a"]);
        assert!(reader.changed().is_none(), "not read again");
        let fresh = folder.path().join("new");
        fs::write(&fresh, lease("10.0.0.1", "b")).unwrap();
        fs::rename(&fresh, &path).unwrap();
        assert_eq!(names(reader.changed()), ["b"], "replaced by one of the same size");
        fs::remove_file(&path).unwrap();
        let gone = reader.changed().unwrap();
        assert_eq!((gone.troubles.len(), names(Some(gone))), (1, vec!["b".to_owned()]));
        fs::write(&path, "").unwrap();
        let emptied = reader.changed().unwrap();
        assert!(emptied.troubles.is_empty() && emptied.leases.is_empty(), "there again, and nobody has a lease");
    }

    #[test]
    fn a_folder_that_is_away_for_a_while_is_no_trouble_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let (folder, away) = (root.path().join("leases"), root.path().join("away"));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("dnsmasq.leases");
        fs::write(&path, lease("10.0.0.1", "a")).unwrap();
        let mut reader = LeaseReader::new(vec![LeaseFile { path, kind: None }]);
        assert_eq!(names(reader.changed()), ["a"]);
        fs::rename(&folder, &away).unwrap();
        assert_eq!(reader.changed().unwrap().troubles.len(), 1);
        // The file itself is as it was, to the nanosecond.
        fs::rename(&away, &folder).unwrap();
        assert!(reader.changed().unwrap().troubles.is_empty());
    }

    #[test]
    fn what_is_no_lease_file_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let mut reader = LeaseReader::new(vec![LeaseFile { path: path.clone(), kind: None }]);
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        assert!(reader.changed().unwrap().troubles[0].contains("looks like no lease file"));
        fs::write(&path, format!("{}gibberish\n", lease("10.0.0.1", "a"))).unwrap();
        assert!(reader.changed().unwrap().troubles[0].ends_with("the first is line 2"));
        File::options().write(true).open(&path).unwrap().set_len(BIGGEST + 1).unwrap();
        assert!(reader.changed().unwrap().troubles[0].contains("bigger than the 64 MiB"));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reader.changed().unwrap().troubles[0].contains("no plain file"));
    }

    #[test]
    fn the_parts_of_a_journal_are_one_and_the_files_of_a_folder_all_count() {
        let folder = tempfile::tempdir().unwrap();
        let header = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state\n";
        let row = |last: u8, lifetime: u32, name: &str| {
            format!("10.0.0.{last},00:1b:21:0a:0b:0c,,{lifetime},1764066000,1,0,0,{name},0\n")
        };
        let path = folder.path().join("kea-leases4.csv");
        let write = |suffix: &str, text: String| {
            fs::write(folder.path().join(format!("kea-leases4.csv{suffix}")), format!("{header}{text}")).unwrap();
        };
        write("", row(1, 0, "gone"));
        write(".1", format!("{}{}", row(1, 60, "gone"), row(2, 60, "newer")));
        write(".2", format!("{}{}", row(2, 60, "older"), row(3, 60, "old")));
        let mut reader = LeaseReader::new(vec![LeaseFile { path, kind: Some(Kind::Kea) }]);
        assert_eq!(names(reader.changed()), ["newer", "old"]);
        write(".completed", row(4, 60, "clean"));
        assert_eq!(names(reader.changed()), ["clean"]);

        let folder = tempfile::tempdir().unwrap();
        for (file, last) in [("lan0", 1), ("lan1", 2)] {
            let text = format!(r#"[{{"ClientId":[1],"Address":[10,0,0,{last}],"Hostname":"{file}"}}]"#);
            fs::write(folder.path().join(file), text).unwrap();
        }
        let mut reader = LeaseReader::new(vec![LeaseFile { path: folder.path().to_owned(), kind: None }]);
        assert_eq!(names(reader.changed()), ["lan0", "lan1"]);
    }

    #[test]
    fn a_thread_sends_what_it_finds_and_ends_when_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        fs::write(&path, lease("10.0.0.1", "a")).unwrap();
        let (out, reports) = sync_channel(1);
        let thread = watch(vec![LeaseFile { path: path.clone(), kind: None }], out).unwrap();
        assert_eq!(names(reports.recv_timeout(Duration::from_secs(5)).ok()), ["a"]);
        drop(reports);
        fs::write(&path, lease("10.0.0.1", "later")).unwrap();
        thread.join().unwrap();
    }
}
