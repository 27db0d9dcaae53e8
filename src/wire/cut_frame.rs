//! The rest of a frame that a full socket cut.

use std::io;

use crate::lines::TextFile;

/// The part of one frame that a full socket did not take. The message in it is not kept but read
/// again from the file, so that ten thousand clients in the middle of long messages cost next to
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutFrame {
    /// Whether the peer has a part of the frame.
    pub(super) is_begun: bool,
    /// The bytes before the message.
    pub(super) before: Box<[u8]>,
    /// The part of the file that comes then.
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The bytes after the message.
    pub(super) after: Box<[u8]>,
}

impl CutFrame {
    /// The rest of a short frame of which `sent` bytes have been sent.
    pub fn of(frame: &[u8], sent: usize) -> CutFrame {
        CutFrame { is_begun: sent > 0, before: frame[sent..].into(), ..CutFrame::default() }
    }

    /// Whether the peer has a part of the frame, so that nothing else may be sent before the rest.
    pub fn is_begun(&self) -> bool {
        self.is_begun && !self.is_empty()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.len == 0 && self.after.is_empty()
    }

    /// Appends the next bytes to `out`: `most` of them, or all that are left. `file` is the text file
    /// as it was when the frame was cut, or before.
    ///
    /// # Errors
    /// When the file cannot be read: the frame cannot be finished then.
    pub fn peek(&self, file: &TextFile, out: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let end = out.len() + most;
        out.extend_from_slice(&self.before);
        let mut offset = self.offset;
        let until = self.offset + self.len;
        while offset < until && out.len() < end {
            let from = out.len();
            let want = (until - offset).min((end - from) as u64);
            out.resize(from + want as usize, 0);
            let got = file.read_at(&mut out[from..], offset)?;
            out.truncate(from + got);
            offset += got as u64;
        }
        out.extend_from_slice(&self.after);
        out.truncate(end);
        Ok(())
    }

    /// Leaves out the next `count` bytes, which have been sent.
    pub fn advance(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.is_begun = true;
        let first = count.min(self.before.len());
        self.before = self.before[first..].into();
        let of_file = ((count - first) as u64).min(self.len);
        self.offset += of_file;
        self.len -= of_file;
        let last = count - first - of_file as usize;
        self.after = self.after[last..].into();
    }
}
