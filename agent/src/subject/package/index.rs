//! Who owns which path, for databases that are text.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Owner;

/// What changes whenever a package is installed or removed: dpkg(1), apk(8), pacman(8).
const STAMPS: [&str; 4] =
    ["var/lib/dpkg/status", "lib/apk/db/installed", "usr/lib/apk/db/installed", "var/lib/pacman/local"];
/// Folders that may be links to one another, as with a merged /usr.
const MERGED: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr/sbin", "usr/lib64"];
/// What is left out, for nothing there is executed: two thirds of a Debian host's files.
const LEFT_OUT: [&str; 7] = [
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/icons/",
    "/usr/share/info/",
    "/usr/include/",
    "/usr/src/",
];
/// How many files are indexed; a host with more of them does without.
const MOST: usize = 2_000_000;

/// When each database was last changed; none where it is not there.
pub(super) fn changed(root: &Path) -> Vec<Option<SystemTime>> {
    STAMPS.iter().map(|stamp| fs::metadata(root.join(stamp)).ok()?.modified().ok()).collect()
}

/// The index: ten bytes a file. It holds hashes in place of paths, with a key that nobody outside knows, so that nobody can
/// choose a path to be taken for another.
#[derive(Debug)]
pub(super) struct Index {
    key: RandomState,
    /// Sorted.
    paths: Vec<u64>,
    /// The package of each, by its number.
    owners: Vec<u16>,
    packages: Vec<Box<str>>,
    merged: Vec<(String, String)>,
}

impl Index {
    /// Reads the databases. `None` when one cannot be read, or all hold no file.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let mut reading = Reading::new(root);
        if root.join(STAMPS[0]).exists() {
            reading.dpkg(root)?;
        }
        for installed in &STAMPS[1..3] {
            if let Ok(file) = File::open(root.join(installed)) {
                reading.apk(BufReader::new(file))?;
            }
        }
        if root.join(STAMPS[3]).exists() {
            reading.pacman(&root.join(STAMPS[3]))?;
        }
        reading.finish()
    }

    pub(super) fn owner(&self, path: &str) -> Owner {
        let path = merged(&self.merged, path);
        match self.paths.binary_search(&self.key.hash_one(path.as_str())) {
            Ok(found) => {
                let package = self.owners.get(found).and_then(|owner| self.packages.get(usize::from(*owner)));
                package.map_or(Owner::Unknown, |name| Owner::Package(name.to_string()))
            }
            Err(_) if left_out(&path) => Owner::Unknown,
            Err(_) => Owner::NoPackage,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let names: usize = self.packages.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
        self.paths.len() * size_of::<u64>() + self.owners.len() * size_of::<u16>() + names
    }
}

fn left_out(path: &str) -> bool {
    LEFT_OUT.iter().any(|folder| path.starts_with(folder))
}

/// A path with the links between folders that a merged /usr has followed.
fn merged(links: &[(String, String)], path: &str) -> String {
    let mut path = path.to_owned();
    // /sbin may lead to /usr/sbin, and that to /usr/bin.
    for _ in 0..2 {
        let link = links.iter().find(|(from, _)| path.strip_prefix(from.as_str()).is_some_and(|r| r.starts_with('/')));
        let Some((from, to)) = link else { break };
        path.replace_range(..from.len(), to);
    }
    path
}

/// The links of a host: from one folder to another, both as absolute paths.
fn links(root: &Path) -> Vec<(String, String)> {
    let link = |folder: &&str| {
        let to = fs::read_link(root.join(folder)).ok()?;
        let from = PathBuf::from("/").join(folder);
        let to = from.parent()?.join(to);
        Some((from.to_str()?.to_owned(), to.to_str()?.to_owned()))
    };
    MERGED.iter().filter_map(link).collect()
}

/// An index that is being made.
struct Reading {
    key: RandomState,
    files: Vec<(u64, u16)>,
    packages: Vec<Box<str>>,
    merged: Vec<(String, String)>,
}

impl Reading {
    fn new(root: &Path) -> Self {
        Self { key: RandomState::new(), files: Vec::new(), packages: Vec::new(), merged: links(root) }
    }

    /// Begins a package. `None` when there are more than an index can number.
    fn package(&mut self, name: &str) -> Option<u16> {
        let number = u16::try_from(self.packages.len()).ok()?;
        self.packages.push(name.into());
        Some(number)
    }

    fn file(&mut self, package: u16, path: &str) -> Option<()> {
        let path = merged(&self.merged, path);
        if left_out(&path) {
            return Some(());
        }
        if self.files.len() >= MOST {
            tracing::info!("the package database has more than {MOST} files, and is not used");
            return None;
        }
        self.files.push((self.key.hash_one(path.as_str()), package));
        Some(())
    }

    /// A list of files for each package (`coreutils.list`, `libc6:amd64.list`), and the files that one package had dpkg
    /// put elsewhere when another brings them: three lines each, from, to, and by whom (dpkg-divert(1)).
    fn dpkg(&mut self, root: &Path) -> Option<()> {
        let text = fs::read_to_string(root.join("var/lib/dpkg/diversions")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let mut diverted: HashMap<String, (&str, &str)> = HashMap::new();
        for entry in lines.chunks_exact(3) {
            diverted.insert(merged(&self.merged, entry[0]), (entry[1], entry[2]));
        }
        for entry in fs::read_dir(root.join("var/lib/dpkg/info")).ok()?.filter_map(Result::ok) {
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".list")) else { continue };
            let name = name.split(':').next().unwrap_or(name);
            let number = self.package(name)?;
            let text = fs::read(entry.path()).ok()?;
            for path in text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
                let elsewhere = if diverted.is_empty() { None } else { diverted.get(&merged(&self.merged, path)) };
                let path = elsewhere.filter(|(_, by)| *by != name).map_or(path, |(to, _)| *to);
                self.file(number, path)?;
            }
        }
        Some(())
    }

    /// One file: P: begins a package, F: a folder, R: is a file in it (apk-package(5)).
    fn apk(&mut self, installed: impl BufRead) -> Option<()> {
        let (mut package, mut folder) = (None, String::new());
        for line in installed.lines() {
            let line = line.ok()?;
            match line.split_once(':') {
                Some(("P", name)) => package = Some(self.package(name)?),
                Some(("F", path)) => folder = path.to_owned(),
                Some(("R", name)) => {
                    let path = if folder.is_empty() { format!("/{name}") } else { format!("/{folder}/{name}") };
                    self.file(package?, &path)?;
                }
                Some(_) | None => {}
            }
        }
        Some(())
    }

    /// A folder `name-version-release` for each package, with a list of paths in the section %FILES% of `files`.
    fn pacman(&mut self, local: &Path) -> Option<()> {
        for entry in fs::read_dir(local).ok()?.filter_map(Result::ok) {
            let folder = entry.file_name();
            let Some(name) = folder.to_str().and_then(|folder| folder.rsplitn(3, '-').nth(2)) else { continue };
            let Ok(text) = fs::read_to_string(entry.path().join("files")) else { continue };
            let number = self.package(name)?;
            let files = text.lines().skip_while(|line| *line != "%FILES%").skip(1);
            for path in files.take_while(|line| !line.is_empty()).filter(|line| !line.ends_with('/')) {
                self.file(number, &format!("/{path}"))?;
            }
        }
        Some(())
    }

    fn finish(mut self) -> Option<Index> {
        if self.files.is_empty() {
            return None;
        }
        self.files.sort_unstable();
        self.files.dedup_by_key(|(path, _)| *path);
        let (paths, owners): (Vec<u64>, Vec<u16>) = self.files.into_iter().unzip();
        let (mut paths, mut owners) = (paths, owners);
        paths.shrink_to_fit();
        owners.shrink_to_fit();
        Some(Index { key: self.key, paths, owners, packages: self.packages, merged: self.merged })
    }
}
