//! What must hold of the sources themselves, and what no compiler checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files under a folder of the repository whose names end in one of these, with their text.
fn files(folder: &str, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("a folder of the repository").path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            // What cargo-fuzz builds lies beside its sources.
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if endings.contains(&ending) {
                let text = fs::read_to_string(&path).expect("a source is UTF-8");
                let path = path.strip_prefix(root).expect("it is below the root").to_owned();
                files.push((path, text));
            }
        }
    }
    assert!(!files.is_empty(), "no source in {folder}");
    files
}

/// Whoever chats at the repository's root changes the messages.txt that lies there, and a server
/// that runs meanwhile holds it.
#[test]
fn no_test_depends_on_the_file_that_using_the_program_changes() {
    // In two parts each, so that this file does not do what it forbids.
    let upwards = format!("..{}", "/messages.txt");
    let root = format!("CARGO_{}", "MANIFEST_DIR");
    let binary = format!("CARGO_BIN_EXE_{}", "txtcord");
    // These two give it a file and a directory of its own.
    let starters = ["tests/support/setup.rs", "tests/bench/server.rs"].map(Path::new);
    for folder in ["src", "tests"] {
        for (path, text) in files(folder, &["rs", "sh", "toml"]) {
            let path = path.as_path();
            for line in text.lines() {
                let names_it = line.contains(&upwards)
                    || line.contains(&root) && line.contains("messages.txt");
                assert!(
                    !names_it,
                    "{} reads the repository's own messages.txt: {line}; take \
                     tests/support/seed.txt",
                    path.display()
                );
                assert!(
                    !line.contains(&binary) || starters.contains(&path),
                    "{} starts the program by itself, which would serve the repository's own \
                     messages.txt: {line}; take Setup of tests/support",
                    path.display()
                );
            }
        }
    }
}
