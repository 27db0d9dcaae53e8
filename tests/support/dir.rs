//! A directory for one test: its messages.txt and what stands beside it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// A directory of a test's own, removed with it unless the test failed.
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    pub fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("server-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A run that was ended from outside may have left one of this name.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory");
        Dir { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> PathBuf {
        self.path.join("messages.txt")
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn read(&self) -> Vec<u8> {
        fs::read(self.file()).expect("messages.txt can be read")
    }

    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        fs::write(self.file(), bytes).expect("messages.txt can be written");
    }

    /// What stands beside messages.txt: names and contents.
    pub fn beside(&self) -> BTreeMap<String, Vec<u8>> {
        fs::read_dir(&self.path)
            .expect("the directory can be listed")
            .map(|entry| entry.expect("a directory entry"))
            .filter(|entry| entry.file_name() != "messages.txt")
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| {
                let name = entry.file_name().into_string().expect("a UTF-8 name");
                (name, fs::read(entry.path()).expect("a file that can be read"))
            })
            .collect()
    }

    /// The tails that recovery saved, oldest first.
    pub fn torn(&self) -> Vec<Vec<u8>> {
        self.beside()
            .into_iter()
            .filter(|(name, _)| name.starts_with("messages.txt.torn-"))
            .map(|(_, bytes)| bytes)
            .collect()
    }

    /// Appends as another program would: one write in append mode.
    pub fn append(&self, bytes: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).open(self.file()).expect("the file");
        file.write_all(bytes.as_ref()).expect("messages.txt can be appended to");
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("left for a look: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
