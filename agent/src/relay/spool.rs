//! A whole message, for filters that must see all of it before the upstream gets any: in memory as long as it is small, else in
//! a file that has no name and is gone with the agent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a message may take of memory. Most mail is smaller.
const IN_MEMORY: usize = 32 << 10;

/// A message as it came, without the line that ends it.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    in_memory: usize,
    /// The end of the message, or all of it while there is no file.
    memory: Vec<u8>,
    file: Option<Arc<File>>,
    /// How much is in the file.
    written: u64,
}

impl Spool {
    /// An empty one; if it has to be a file, in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { folder, in_memory: IN_MEMORY, memory: Vec::new(), file: None, written: 0 }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written + self.memory.len() as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts bytes behind those that are there.
    ///
    /// # Errors
    ///
    /// When they find no room on the disk.
    pub async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.memory.extend_from_slice(bytes);
        if self.memory.len() <= self.in_memory {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let folder = self.folder.clone();
                let file = blocking(move || tempfile::tempfile_in(folder)).await?;
                Arc::clone(self.file.insert(Arc::new(file)))
            }
        };
        let (at, bytes) = (self.written, std::mem::take(&mut self.memory));
        let bytes = blocking(move || file.write_all_at(&bytes, at).map(|()| bytes)).await?;
        self.written += bytes.len() as u64;
        self.memory = bytes;
        self.memory.clear();
        Ok(())
    }

    /// Some of its bytes, from a place on; none at its end.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub async fn read(&self, at: u64) -> io::Result<Vec<u8>> {
        let most = u64::try_from(self.in_memory).unwrap_or(u64::MAX);
        match &self.file {
            Some(file) if at < self.written => {
                let (file, length) = (Arc::clone(file), (self.written - at).min(most));
                blocking(move || {
                    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                    file.read_exact_at(&mut bytes, at).map(|()| bytes)
                })
                .await
            }
            _ => {
                let from = usize::try_from(at - self.written).unwrap_or(usize::MAX).min(self.memory.len());
                Ok(self.memory[from..].to_vec())
            }
        }
    }
}

/// Does something that may wait for the disk, on a thread where that holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_put_in_comes_out_from_memory_and_from_a_file_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        for pieces in [0, 1, 7, 40] {
            let mut spool = Spool { in_memory: 10, ..Spool::new(folder.path()) };
            let mut expected = Vec::new();
            for piece in 0..pieces {
                let bytes = vec![piece; 7];
                spool.push(&bytes).await.unwrap();
                expected.extend(bytes);
            }
            let mut found = Vec::new();
            loop {
                let bytes = spool.read(found.len() as u64).await.unwrap();
                if bytes.is_empty() {
                    break;
                }
                assert!(bytes.len() <= 10);
                found.extend(bytes);
            }
            assert_eq!((found.len() as u64, found), (spool.len(), expected));
            assert_eq!(spool.file.is_some(), pieces > 1);
            assert!(spool.memory.capacity() < 64, "memory is bounded");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
