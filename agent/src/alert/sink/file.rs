//! A file of JSON Lines, turned over by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::message::Message;
use super::worker::{Deliver, Failure};

pub(super) struct JsonLines {
    pub(super) path: PathBuf,
    pub(super) rotate: u64,
    pub(super) keep: u32,
    pub(super) host: String,
}

impl Deliver for JsonLines {
    fn deliver(&mut self, message: &Message) -> Result<(), Failure> {
        let mut line = message.json(&self.host).to_string().into_bytes();
        line.push(b'\n');
        self.append(&line).map_err(|error| Failure::later("write to", self.path.display(), error))
    }
}

impl JsonLines {
    /// Opened for each line, so that whoever moves or removes the file (logrotate) gets a new one.
    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut file = open(&self.path)?;
        let length = file.metadata()?.len();
        if length > 0 && length + line.len() as u64 > self.rotate {
            self.turn_over()?;
            file = open(&self.path)?;
        }
        let start = file.metadata()?.len();
        if start > 0 && last_byte(&mut file)? != b'\n' {
            // A line that a kill has cut must not swallow this one.
            file.write_all(b"\n")?;
        }
        if let Err(error) = file.write_all(line) {
            // A full disk leaves no half line if it can be helped: the line comes again, whole.
            if let Err(cut) = file.set_len(start) {
                tracing::debug!("{}: {cut}", self.path.display());
            }
            return Err(error);
        }
        Ok(())
    }

    /// `x` becomes `x.1`, that `x.2`, and so on; the oldest goes.
    fn turn_over(&self) -> io::Result<()> {
        let older = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.keep == 0 {
            return std::fs::remove_file(&self.path);
        }
        for number in (1..self.keep).rev() {
            match std::fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(&self.path, older(1))
    }
}

/// Never through a link at its place: the folder may be writable for others.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last[0])
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, notice, summary};
    use super::*;
    use crate::alert::Occasion;

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn full_files_are_turned_over_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alerts.jsonl");
        let one = notice(Occasion::Opened, alert(1)).json("h").to_string().len() as u64 + 1;
        let mut sink = JsonLines { path: path.clone(), rotate: 2 * one + 10, keep: 3, host: "h".to_owned() };
        for id in 1..=11 {
            sink.deliver(&notice(Occasion::Opened, alert(id))).unwrap();
        }
        let ids = |name: &str| {
            let lines = lines(&folder.path().join(name));
            lines.iter().map(|line| line["alert"]["id"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids("alerts.jsonl"), [11]);
        assert_eq!(ids("alerts.jsonl.1"), [9, 10]);
        assert_eq!(ids("alerts.jsonl.2"), [7, 8]);
        assert_eq!(ids("alerts.jsonl.3"), [5, 6]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_line_that_was_cut_stays_alone_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alerts.jsonl");
        std::fs::write(&path, "{\"cut\":").unwrap();
        let mut sink = JsonLines { path: path.clone(), rotate: 1 << 20, keep: 1, host: "h".to_owned() };
        sink.deliver(&summary(12)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"cut\":\n{"), "{text}");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        sink.path = folder.path().join("link");
        std::os::unix::fs::symlink(&victim, &sink.path).unwrap();
        let failure = sink.deliver(&summary(12)).unwrap_err().to_string();
        assert!(failure.starts_with("cannot write to /") && failure.contains("link"), "{failure}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"");
    }
}
