//! Files beside the text file: their names, and how something is moved or copied to one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::lines::read_at;

/// Brings the names in the folder of a file to the disk: a file survives a power cut only with its
/// name. Some file systems have no such call for folders, and nobody can do more there.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match File::open(folder_of(path))?.sync_all() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => Ok(()),
        synced => synced,
    }
}

/// The folder in which a file is.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// The path with a `.` and an ending after it.
pub(crate) fn path_beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The file that was opened at this path, if it is a regular one. It was opened with `O_NOFOLLOW`, and
/// with `O_NONBLOCK`, since to open a FIFO would wait without end.
///
/// # Errors
/// When something else is in its place. That counts as a lack of permission: somebody may move it away.
pub(super) fn unless_in_the_way(path: &Path, opened: io::Result<File>) -> io::Result<File> {
    let in_the_way = || {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let words = format!("{name} is no regular file; move it away");
        io::Error::new(io::ErrorKind::PermissionDenied, words)
    };
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(in_the_way()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EISDIR | libc::ELOOP | libc::ENXIO) => Err(in_the_way()),
            _ => Err(error),
        },
    }
}

/// Creates a file beside the text file. Its name has `what`, which says what it is for, and the
/// time in Unix milliseconds.
pub(super) fn create_beside(path: &Path, what: &str) -> io::Result<(PathBuf, File)> {
    let mut ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    loop {
        let saved = path_beside(path, &format!("{what}-{ms}"));
        match OpenOptions::new().write(true).create_new(true).open(&saved) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => ms += 1,
            Err(error) => return Err(error),
            Ok(file) => return Ok((saved, file)),
        }
    }
}

/// Gives a file the name that [`create_beside`] finds; returns it. It is not on disk yet.
pub(super) fn rename_beside(file: &Path, path: &Path, what: &str) -> io::Result<PathBuf> {
    // An empty file takes the name, so that no other file can have it; then this file replaces it.
    let (name, _) = create_beside(path, what)?;
    if let Err(error) = fs::rename(file, &name) {
        // It is empty, and ours.
        let _ = fs::remove_file(&name);
        return Err(error);
    }
    Ok(name)
}

/// Copies the bytes of `range` in `file`, which must be there, to a new file beside the text file; they
/// and its name are on disk afterwards. No incomplete copy stays.
pub(super) fn save_part(
    path: &Path,
    what: &str,
    file: &File,
    range: Range<u64>,
) -> io::Result<PathBuf> {
    let (saved, mut copy) = create_beside(path, what)?;
    let copied = copy_part(file, range, &mut copy)
        .and_then(|()| copy.sync_all())
        .and_then(|()| sync_folder_of(path));
    if let Err(error) = copied {
        let _ = fs::remove_file(&saved);
        return Err(error);
    }
    Ok(saved)
}

/// Appends the bytes of `range` in `file` to another file. They must be there.
pub(super) fn copy_part(file: &File, range: Range<u64>, to: &mut File) -> io::Result<()> {
    const BLOCK: u64 = 64 << 10;
    let mut block = vec![0; BLOCK.min(range.end - range.start) as usize];
    let mut from = range.start;
    while from < range.end {
        let want = (block.len() as u64).min(range.end - from) as usize;
        let count = read_at(file, &mut block[..want], from)?;
        to.write_all(&block[..count])?;
        from += count as u64;
    }
    Ok(())
}
