//! The host this runs on.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{Group, User};
use portreeve_abi::ExeId;
use sha2::{Digest as _, Sha256};

use super::super::model::CgroupPath;
use super::super::unit;
use super::{ExeFile, ExeProblem, Host, UnitPlace, Weakness};

/// Asks the kernel how it names a file, which may be open with O_PATH.
pub type Learn<'a> = Box<dyn FnMut(&File) -> io::Result<ExeId> + 'a>;

/// The host this runs on.
pub struct SystemHost<'a> {
    learn: Option<Learn<'a>>,
}

impl<'a> SystemHost<'a> {
    /// Without `learn`, executables are checked but not named the way the kernel does.
    #[must_use]
    pub fn new(learn: Option<Learn<'a>>) -> Self {
        Self { learn }
    }
}

/// Settings are no longer than this, in bytes.
const LONGEST_TEXT: u64 = 1 << 20;

impl Host for SystemHost<'_> {
    fn text(&mut self, path: &Path) -> Option<String> {
        let meta = fs::metadata(path).ok()?;
        if !meta.is_file() || meta.len() > LONGEST_TEXT {
            return None;
        }
        fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn exe(&mut self, root: Option<&Path>, path: &Path) -> Result<ExeFile, ExeProblem> {
        // Everything below is asked of this one open file, so that no answer is about another.
        let file = open(root, path).map_err(unreadable)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(ExeProblem::NotRegular);
        }
        if meta.mode() & 0o111 == 0 {
            return Err(ExeProblem::NotExecutable);
        }
        // A program that may be executed but not read is no script: its interpreter could not read it either.
        if let Ok(file) = File::open(&own)
            && let Some(interpreter) = interpreter(file).map_err(unreadable)?
        {
            return Err(ExeProblem::Script(interpreter));
        }
        let path = fs::read_link(&own).map_err(unreadable)?;
        let id = self.learn.as_mut().map(|learn| learn(&file)).transpose();
        let id = id.map_err(|error| ExeProblem::Unlearned(error.to_string()))?;
        let set_user = (meta.mode() & 0o4000 != 0).then(|| meta.uid());
        Ok(ExeFile { weaknesses: weaknesses(&path, &meta), path, id, set_user })
    }

    fn sha256(&mut self, path: &Path) -> io::Result<[u8; 32]> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(hash.finalize().into());
            }
            hash.update(&buffer[..count]);
        }
    }

    fn user(&mut self, root: Option<&Path>, name: &str) -> io::Result<Option<u32>> {
        // The file first: at boot a directory server cannot be reached yet, and asking for it would take its time.
        match (in_file(root, "/etc/passwd", name), root) {
            (Ok(None) | Err(_), None) => Ok(User::from_name(name)?.map(|user| user.uid.as_raw())),
            (found, _) => found,
        }
    }

    fn group(&mut self, root: Option<&Path>, name: &str) -> io::Result<Option<u32>> {
        match (in_file(root, "/etc/group", name), root) {
            (Ok(None) | Err(_), None) => Ok(Group::from_name(name)?.map(|group| group.gid.as_raw())),
            (found, _) => found,
        }
    }

    fn unit(&mut self, name: &str) -> UnitPlace {
        // sd_booted(3)
        let answer = Path::new("/run/systemd/system").is_dir().then(|| ask_systemd(name)).flatten();
        match answer {
            Some((true, slice)) => UnitPlace { path: unit::path_in(&slice, name), known: Some(true) },
            Some((false, _)) => UnitPlace { path: unit::default_path(name), known: Some(false) },
            None => UnitPlace { path: unit::default_path(name), known: None },
        }
    }

    fn cgroup_exists(&mut self, path: &CgroupPath) -> Option<bool> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(folder)
        })?;
        Some(Path::new(mount).join(path.to_string().trim_start_matches('/')).is_dir())
    }
}

/// Opens a path without asking for any right to the file, links below `root` followed as inside it.
fn open(root: Option<&Path>, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let Some(root) = root else {
        return File::options().read(true).custom_flags(flags.bits()).open(path);
    };
    let folder = File::options().read(true).custom_flags((flags | OFlag::O_DIRECTORY).bits()).open(root)?;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(openat2(&folder, path, how)?.into())
}

fn unreadable(error: io::Error) -> ExeProblem {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR) => ExeProblem::Missing,
        _ => ExeProblem::Unreadable(error.to_string()),
    }
}

/// The interpreter of a script; none for another file.
fn interpreter(file: File) -> io::Result<Option<String>> {
    let mut start = Vec::new();
    file.take(256).read_to_end(&mut start)?;
    let Some(rest) = start.strip_prefix(b"#!") else { return Ok(None) };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(line).split_whitespace().next().unwrap_or_default().to_owned()))
}

fn weaknesses(path: &Path, meta: &fs::Metadata) -> Vec<Weakness> {
    let mut found = Vec::new();
    weakness(path, meta, false, &mut found);
    for folder in path.ancestors().skip(1) {
        if let Ok(meta) = fs::metadata(folder) {
            // In a sticky folder nobody moves what is another's.
            weakness(folder, &meta, meta.mode() & 0o1000 != 0, &mut found);
        }
    }
    found
}

fn weakness(path: &Path, meta: &fs::Metadata, sticky: bool, found: &mut Vec<Weakness>) {
    if meta.mode() & 0o002 != 0 && !sticky {
        found.push(Weakness::Everybody(path.to_owned()));
    }
    if meta.mode() & 0o020 != 0 && !sticky && meta.gid() != 0 {
        found.push(Weakness::Group(path.to_owned(), meta.gid()));
    }
    if meta.uid() != 0 {
        found.push(Weakness::Owner(path.to_owned(), meta.uid()));
    }
}

/// The third field of a name's line in /etc/passwd or /etc/group (passwd(5), group(5)).
fn in_file(root: Option<&Path>, path: &str, name: &str) -> io::Result<Option<u32>> {
    let file = open(root, Path::new(path))?;
    let text = fs::read(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))?;
    Ok(String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    }))
}

/// Whether systemd knows a unit, and its slice; none if it does not answer.
fn ask_systemd(unit: &str) -> Option<(bool, String)> {
    let mut command = Command::new("/usr/bin/systemctl");
    command.args(["show", "--property=LoadState,Slice", "--", unit]).stdin(Stdio::null()).stderr(Stdio::null());
    // The default is 25 seconds; a systemd that does not answer must not hold the policy up.
    command.env("SYSTEMD_BUS_TIMEOUT", "3s").env("LC_ALL", "C");
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Some((value("LoadState")? == "loaded", value("Slice").unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn host() -> SystemHost<'static> {
        SystemHost::new(Some(Box::new(|file| Ok(ExeId { ino: file.metadata()?.ino(), ..ExeId::default() }))))
    }

    fn put(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_executable_is_named_by_its_file_whatever_link_leads_there() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        put(&real, "\x7fELF", 0o755);
        symlink("real", folder.path().join("link")).unwrap();
        let found = host().exe(None, &folder.path().join("link")).unwrap();
        assert_eq!(found.path, fs::canonicalize(&real).unwrap());
        assert_eq!(found.id.unwrap().ino, fs::metadata(&real).unwrap().ino());
        assert!(SystemHost::new(None).exe(None, &real).unwrap().id.is_none());
    }

    #[test]
    fn links_below_a_root_are_followed_inside_it() {
        let root = tempfile::tempdir().unwrap();
        put(&root.path().join("usr/lib/mta"), "\x7fELF", 0o755);
        put(&root.path().join("etc/passwd"), "root:x:0:0::/:\npostfix:x:777:778::/:\n", 0o644);
        fs::create_dir(root.path().join("usr/sbin")).unwrap();
        symlink("/usr/lib/mta", root.path().join("usr/sbin/sendmail")).unwrap();
        let found = host().exe(Some(root.path()), Path::new("/usr/sbin/sendmail")).unwrap();
        assert_eq!(found.path, fs::canonicalize(root.path()).unwrap().join("usr/lib/mta"));
        assert_eq!(host().user(Some(root.path()), "postfix").unwrap(), Some(777));
        assert_eq!(host().user(Some(root.path()), "nobody").unwrap(), None);
        assert!(host().group(Some(root.path()), "postfix").is_err());
    }

    #[test]
    fn what_is_no_executable_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        put(&at("data"), "x", 0o644);
        put(&at("script"), "#! /bin/sh -e\n", 0o755);
        let exe = |name: &str| host().exe(None, &at(name)).unwrap_err();
        assert_eq!(exe("missing"), ExeProblem::Missing);
        assert_eq!(exe("data/below"), ExeProblem::Missing);
        assert_eq!(exe(""), ExeProblem::NotRegular);
        assert_eq!(exe("data"), ExeProblem::NotExecutable);
        assert_eq!(exe("script"), ExeProblem::Script("/bin/sh".to_owned()));
        let mut host = SystemHost::new(Some(Box::new(|_| Err(io::Error::other("no")))));
        put(&at("elf"), "\x7fELF", 0o755);
        assert_eq!(host.exe(None, &at("elf")), Err(ExeProblem::Unlearned("no".to_owned())));
    }

    #[test]
    fn who_could_replace_an_executable_is_found_on_the_whole_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open/exe");
        put(&path, "\x7fELF", 0o757);
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
        let found = host().exe(None, &path).unwrap().weaknesses;
        let everybody = found.iter().filter(|weakness| matches!(weakness, Weakness::Everybody(_))).count();
        assert_eq!(everybody, 2, "{found:?}");
    }

    #[test]
    fn users_of_this_host_are_known_by_name() {
        assert_eq!(host().user(None, "root").unwrap(), Some(0));
        assert_eq!(host().group(None, "root").unwrap(), Some(0));
        assert_eq!(host().user(None, "nobody-by-this-name").unwrap(), None);
    }

    #[test]
    fn a_checksum_is_that_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        put(&folder.path().join("x"), "abc", 0o644);
        // FIPS 180-2, appendix B.1
        assert_eq!(host().sha256(&folder.path().join("x")).unwrap()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
