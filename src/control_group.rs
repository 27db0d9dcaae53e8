//! Limits of the control groups that this process is in, in version 1 or 2 of control groups.

use std::{fs, path::Path};

/// The lowest limit that `read` finds in the group of this process and those around it. In version 1,
/// each `controller` has groups of its own.
pub fn lowest(controller: &str, read: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let lowest = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let root = match parts.next()? {
            "" => "/sys/fs/cgroup".to_owned(),
            controllers if controllers.split(',').any(|name| name == controller) => {
                format!("/sys/fs/cgroup/{controller}")
            }
            _ => return None,
        };
        let path = format!("{root}{}", parts.next()?);
        let above = Path::new(&path).ancestors().take_while(|path| path.starts_with(&root));
        above.filter_map(&read).min()
    });
    lowest.min()
}

/// The number that a file holds. A group without a limit has `max`, which is none.
pub fn number_in(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
