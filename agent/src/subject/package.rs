//! Which package owns a file of this host.
//!
//! Databases that are text (Debian's dpkg, Alpine's apk, Arch's pacman) are read on a thread into an index; rpm is asked,
//! file by file, on a thread as well. Whoever asks never waits.

mod index;
mod rpm;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use index::Index;
use rpm::Rpm;

/// How long an index that could not be made is not tried again: the database is being written, or is damaged.
const AGAIN: Duration = Duration::from_secs(60);

/// Who owns a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The package of this name.
    Package(String),
    /// The host has a package database, and no package of it owns the file.
    NoPackage,
    /// It cannot be told, or not yet.
    Unknown,
}

/// When each database was last changed.
type Changed = Vec<Option<SystemTime>>;

/// The package databases of a host.
#[derive(Debug)]
pub struct Packages {
    root: PathBuf,
    index: Option<Index>,
    /// When the databases were changed that the index is of.
    of: Changed,
    /// An index that is being made, and when its databases were changed.
    coming: Option<(Receiver<Option<Index>>, Changed)>,
    failed: Option<Instant>,
    rpm: Rpm,
}

impl Packages {
    /// Those below a root folder; nothing is read yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let rpm = Rpm::new(root);
        Self { root: root.to_owned(), index: None, of: Vec::new(), coming: None, failed: None, rpm }
    }

    /// The owner of a file by its path, which must be one on this host's root file system, without links.
    pub fn owner(&mut self, path: &str) -> Owner {
        let current = self.renew();
        let there = self.of.iter().any(Option::is_some);
        let indexed = match &self.index {
            Some(index) => index.owner(path),
            None if there => Owner::Unknown,
            None => Owner::NoPackage,
        };
        match (indexed, self.rpm.present()) {
            (found @ Owner::Package(_), _) => found,
            // A package that is being installed.
            (Owner::NoPackage, _) if !current => Owner::Unknown,
            (Owner::NoPackage, true) => self.rpm.owner(path),
            (Owner::NoPackage, false) if !there => Owner::Unknown,
            (found @ (Owner::NoPackage | Owner::Unknown), _) => found,
        }
    }

    /// How many bytes the index takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index.as_ref().map_or(0, Index::bytes)
    }

    /// Takes an index that has been made, and has one made when the databases have changed. Whether the index is of what
    /// the databases are now.
    fn renew(&mut self) -> bool {
        if let Some((index, of)) = self.coming.take() {
            match index.try_recv() {
                Ok(index) => {
                    self.failed = index.is_none().then(Instant::now);
                    self.index = index.or(self.index.take());
                    self.of = of;
                }
                Err(TryRecvError::Empty) => self.coming = Some((index, of)),
                Err(TryRecvError::Disconnected) => self.failed = Some(Instant::now()),
            }
        }
        if self.coming.is_some() || self.failed.is_some_and(|when| when.elapsed() < AGAIN) {
            return false;
        }
        let now = index::changed(&self.root);
        if now == self.of && self.failed.is_none() {
            return true;
        }
        if now.iter().all(Option::is_none) {
            (self.index, self.of, self.failed) = (None, now, None);
            return true;
        }
        self.begin(now);
        false
    }

    fn begin(&mut self, of: Changed) {
        // So that nothing is said of files before the first index is there.
        if self.index.is_none() {
            self.of.clone_from(&of);
        }
        let (done, index) = channel();
        let root = self.root.clone();
        let thread = thread::Builder::new().name("portreeve-packages".to_owned()).spawn(move || {
            // Whoever asked may be gone.
            done.send(Index::read(&root)).unwrap_or_default();
        });
        match thread {
            Ok(_runs_by_itself) => self.coming = Some((index, of)),
            Err(error) => {
                tracing::warn!("cannot start a thread to read the package database: {error}");
                self.failed = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use Instant;
    use std::fs;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The owner, once it is known.
    fn owner(packages: &mut Packages, path: &str) -> Owner {
        let begun = Instant::now();
        loop {
            let owner = packages.owner(path);
            if owner != Owner::Unknown || begun.elapsed() > Duration::from_secs(2) {
                return owner;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn package(name: &str) -> Owner {
        Owner::Package(name.to_owned())
    }

    #[test]
    fn dpkg_knows_by_merged_and_diverted_paths() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
        let info = "var/lib/dpkg/info";
        write(root.path(), "var/lib/dpkg/status", "");
        write(root.path(), &format!("{info}/coreutils.list"), "/.\n/bin\n/bin/ls\n/usr/bin/env\n/usr/share/doc/x\n");
        write(root.path(), &format!("{info}/libc6:amd64.list"), "/usr/lib/x/ld.so\n");
        write(root.path(), &format!("{info}/dash.list"), "/bin/sh\n");
        write(root.path(), &format!("{info}/bash-as-sh.list"), "/usr/bin/sh\n");
        write(root.path(), "var/lib/dpkg/diversions", "/bin/sh\n/bin/sh.distrib\nbash-as-sh\n");
        let mut packages = Packages::new(root.path());
        assert_eq!(packages.owner("/usr/bin/ls"), Owner::Unknown, "the index is not there yet");
        assert_eq!(owner(&mut packages, "/usr/bin/ls"), package("coreutils"));
        assert_eq!(owner(&mut packages, "/bin/ls"), package("coreutils"));
        assert_eq!(owner(&mut packages, "/usr/lib/x/ld.so"), package("libc6"));
        assert_eq!(owner(&mut packages, "/usr/bin/sh"), package("bash-as-sh"));
        assert_eq!(owner(&mut packages, "/usr/bin/sh.distrib"), package("dash"));
        assert_eq!(owner(&mut packages, "/tmp/bot"), Owner::NoPackage);
        assert_eq!(packages.owner("/usr/share/doc/y"), Owner::Unknown, "not indexed");
        assert!(packages.bytes() < 400, "{}", packages.bytes());

        // A package is installed: the index is made again, and meanwhile nothing is held against a file.
        write(root.path(), &format!("{info}/bot.list"), "/opt/bot\n");
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::open(root.path().join("var/lib/dpkg/status")).unwrap().set_modified(later).unwrap();
        assert_eq!(packages.owner("/opt/bot"), Owner::Unknown);
        assert_eq!(packages.owner("/usr/bin/ls"), package("coreutils"));
        assert_eq!(owner(&mut packages, "/opt/bot"), package("bot"));
        assert_eq!(owner(&mut packages, "/opt/other"), Owner::NoPackage);
    }

    #[test]
    fn apk_and_pacman_know_as_well() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "lib/apk/db/installed",
            "C:Q1x=\nP:busybox\nV:1.36\nF:bin\nR:busybox\nM:0:0:755\nF:etc\nR:motd\n\nP:exim\nF:usr/sbin\nR:exim\n\n",
        );
        write(root.path(), "var/lib/pacman/local/ALPM_DB_VERSION", "9\n");
        write(
            root.path(),
            "var/lib/pacman/local/gtk-doc-tools-1.33.2-1/files",
            "%FILES%\nusr/\nusr/bin/gtkdoc\n\n%BACKUP%\netc/x\tsum\n",
        );
        let mut packages = Packages::new(root.path());
        assert_eq!(owner(&mut packages, "/bin/busybox"), package("busybox"));
        assert_eq!(owner(&mut packages, "/usr/sbin/exim"), package("exim"));
        assert_eq!(owner(&mut packages, "/usr/bin/gtkdoc"), package("gtk-doc-tools"));
        assert_eq!(owner(&mut packages, "/etc/x\tsum"), Owner::NoPackage);
        assert_eq!(owner(&mut packages, "/usr/sbin/sendmail"), Owner::NoPackage);
    }

    #[test]
    fn without_a_database_nothing_is_known() {
        let root = tempfile::tempdir().unwrap();
        let mut packages = Packages::new(root.path());
        assert_eq!(packages.owner("/bin/ls"), Owner::Unknown);
        // An unreadable one is no reason to call everything foreign.
        write(root.path(), "var/lib/dpkg/status", "");
        for _ in 0..20 {
            assert_eq!(packages.owner("/bin/ls"), Owner::Unknown);
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn the_database_of_this_host_is_read_in_bounded_memory() {
        let Ok(lists) = fs::read_dir("/var/lib/dpkg/info") else { return };
        let mut packages = Packages::new(Path::new("/"));
        let dpkg = fs::canonicalize("/usr/bin/dpkg").unwrap();
        let begun = Instant::now();
        while packages.owner(dpkg.to_str().unwrap()) == Owner::Unknown && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(packages.owner(dpkg.to_str().unwrap()), package("dpkg"));
        println!("{} lists: {} bytes in {:?}", lists.count(), packages.bytes(), begun.elapsed());
        let begun = Instant::now();
        for _ in 0..1000 {
            packages.owner("/usr/bin/dpkg");
        }
        println!("{:?} each", begun.elapsed() / 1000);
    }
}
