//! What must hold of the sources themselves, and what no compiler checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

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

/// A chat at the repository's root changes the messages.txt that lies there, and a server
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
                let names_it = line.contains("include_") && line.contains(&upwards)
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

/// Each thread has a name that the log shows, and a stack of which the start knows the size.
#[test]
fn all_threads_are_started_by_one_function() {
    for (path, text) in files("src", &["rs"]) {
        let is_test = path.ends_with("tests.rs") || path.ends_with("testing.rs");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let starts_one = ["thread::Builder", "thread::spawn"].iter().any(|way| code.contains(way));
        assert!(is_test || !starts_one, "{} starts a thread; take threads::spawn", path.display());
    }
}

// ---------------------------------------------------------------------------------------------
// The order of modules

/// A module that `src/lib.rs` lists.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: String,
    /// It is there for tests alone: they may use whatever they are to test.
    is_test: bool,
}

/// The modules that a source declares at its top, in its order.
fn declared(source: &str) -> Vec<Module> {
    let mut modules = Vec::new();
    let mut is_test = false;
    for pair in tokens(source).windows(2) {
        match &pair[0] {
            TokenTree::Ident(word) if word == "mod" => {
                modules.push(Module { name: pair[1].to_string(), is_test });
            }
            TokenTree::Punct(mark) if mark.as_char() == ';' => is_test = false,
            mark => is_test |= is_cfg_test(mark, &pair[1]),
        }
    }
    modules
}

/// Whether an attribute begins here that keeps what follows for tests.
fn is_cfg_test(mark: &TokenTree, attribute: &TokenTree) -> bool {
    mark.to_string() == "#" && attribute.to_string().replace(' ', "") == "[cfg(test)]"
}

/// What a source names right below the crate's root: after `crate::`, or after as many `super::` as
/// lead there from a module that lies `depth` below it. `*` stands for all that is there. A module
/// within it that is there for tests alone does not count.
fn named(source: &[TokenTree], depth: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = source;
    while let [token, behind @ ..] = rest {
        rest = behind;
        match (token, behind) {
            (mark, [attribute, word, _, TokenTree::Group(_), further @ ..])
                if is_cfg_test(mark, attribute) && is_word(word, "mod") =>
            {
                rest = further;
            }
            (TokenTree::Ident(word), [_, TokenTree::Group(inside), ..])
                if word == "mod" && inside.delimiter() == Delimiter::Brace =>
            {
                names.extend(named(&all_of(inside.stream()), depth + 1));
                rest = &behind[2..];
            }
            (TokenTree::Group(inside), _) => {
                names.extend(named(&all_of(inside.stream()), depth));
            }
            (TokenTree::Ident(word), _) if word == "crate" => {
                match behind {
                    // Another name for the root, behind which anything may be.
                    [next, ..] if is_word(next, "as") || is_word(next, "self") => {
                        names.push("*".into());
                    }
                    _ => names.extend(behind_colons(behind).map(heads).unwrap_or_default()),
                }
            }
            (TokenTree::Ident(word), _) if word == "super" => {
                let mut ups = 1;
                while let Some([next, further @ ..]) = behind_colons(rest)
                    && is_word(next, "super")
                {
                    ups += 1;
                    rest = further;
                }
                if ups == depth {
                    names.extend(behind_colons(rest).map(heads).unwrap_or_default());
                }
            }
            _ => (),
        }
    }
    names
}

/// The first words of a path, or of each path in braces.
fn heads(path: &[TokenTree]) -> Vec<String> {
    match path {
        [TokenTree::Group(inside), ..] => {
            let paths = all_of(inside.stream());
            let is_comma = |token: &TokenTree| token.to_string() == ",";
            paths.split(is_comma).flat_map(heads).collect()
        }
        [first, ..] => vec![first.to_string()],
        [] => Vec::new(),
    }
}

fn behind_colons(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    match tokens {
        [TokenTree::Punct(one), TokenTree::Punct(two), rest @ ..]
            if one.as_char() == ':' && two.as_char() == ':' =>
        {
            Some(rest)
        }
        _ => None,
    }
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn tokens(source: &str) -> Vec<TokenTree> {
    // Comments are no tokens, so what they mention does not count.
    all_of(source.parse().expect("a source is Rust"))
}

fn all_of(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

/// Says of each import of a file below `src` that goes upwards, or to where no order is known, what
/// is wrong with it.
fn complaints(order: &[Module], path: &str, source: &str) -> Vec<String> {
    let place = |name: &str| order.iter().position(|module| module.name == name);
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    let own = parts[0];
    let Some(own_place) = place(own) else {
        return vec![format!("src/{path} belongs to no module that src/lib.rs lists")];
    };
    if order[own_place].is_test || parts.ends_with(&["tests"]) {
        return Vec::new();
    }
    let depth = parts.len() - usize::from(parts.ends_with(&["mod"]));
    let complain = |name: String| match place(&name) {
        Some(place) if place < own_place => Some(format!(
            "src/{path} imports upwards: src/lib.rs lists {name} above {own}; what both need \
             belongs below both"
        )),
        Some(_) => None,
        None => Some(format!("src/{path} imports crate::{name}, which src/lib.rs does not list")),
    };
    named(&tokens(source), depth).into_iter().filter_map(complain).collect()
}

#[test]
fn each_module_imports_only_from_those_below_it() {
    let sources = files("src", &["rs"]);
    let (_, lib) = sources.iter().find(|(path, _)| path == "src/lib.rs").expect("src/lib.rs");
    let order = declared(lib);
    let mut all = Vec::new();
    for (path, source) in &sources {
        let path = path.to_str().expect("a UTF-8 name").trim_start_matches("src/");
        // The one lists the modules, the other stands above all of them.
        let is_root = ["lib.rs", "main.rs"].contains(&path);
        // Tests put a module together with those that use it.
        let is_test = path == "testing.rs" || path.ends_with("/tests.rs");
        if !is_root && !is_test {
            all.extend(complaints(&order, path, source));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    const LIB: &str = "//! mod nothing;\npub mod top;\npub(crate) mod mid;\n#[cfg(unix)]\nmod low;\n\
                       #[cfg(test)]\nmod aids;\n";
    let order = declared(LIB);
    let listed: Vec<_> = order.iter().map(|module| (&*module.name, module.is_test)).collect();
    assert_eq!(listed, [("top", false), ("mid", false), ("low", false), ("aids", true)]);
    #[track_caller]
    fn check(order: &[Module], path: &str, source: &str, expected: &[&str]) {
        let found = complaints(order, path, source);
        assert_eq!(found.len(), expected.len(), "{source}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{source}: {found}");
        }
    }
    let up = ["lists top above mid"];
    check(&order, "mid.rs", "use crate::top;", &up);
    check(&order, "mid.rs", "pub use crate::top::{A, b::C as D};", &up);
    check(
        &order,
        "mid.rs",
        "use crate::{\n    low::{A, B},\n    top::{\n        C,\n    },\n};",
        &up,
    );
    check(&order, "mid.rs", "use crate::{low, {top as other}};", &up);
    check(&order, "mid.rs", "fn f(_: &crate::top::A) {}", &up);
    check(&order, "mid.rs", "fn f() { println!(\"{}\", crate :: top :: a()) }", &up);
    check(&order, "mid.rs", "use super::{low::A, top::B};", &up);
    check(&order, "mid.rs", "mod a { use super::super::top::A; use super::low; }", &up);
    check(&order, "mid/part.rs", "use super::super::top::A;", &up);
    check(&order, "mid/part.rs", "use super::{top, *}; use crate::top;", &up);
    check(&order, "mid/mod.rs", "use super::top;", &up);
    check(&order, "mid.rs", "#[cfg(test)] mod tests; use crate::top;", &up);
    check(&order, "mid.rs", "#[cfg(test)] mod tests {} mod part { use crate::top; }", &up);
    check(&order, "low.rs", "use crate::{mid, top};", &["mid above low", "top above low"]);
    // What cannot be judged is not let pass.
    check(&order, "mid.rs", "use crate::*;", &["imports crate::*"]);
    check(&order, "mid.rs", "use crate as root;", &["imports crate::*"]);
    check(&order, "mid.rs", "use crate::{self as root, low};", &["imports crate::self"]);
    check(&order, "mid.rs", "use crate::elsewhere;", &["imports crate::elsewhere"]);
    check(&order, "new.rs", "use crate::low;", &["belongs to no module"]);
    // Tests use whatever they are to test.
    check(&order, "mid/tests.rs", "use crate::{low, top};", &[]);
    check(&order, "mid/part/tests.rs", "use crate::top;", &[]);
    check(&order, "mid.rs", "#[cfg(test)]\nmod tests { use crate::top; }", &[]);
    check(&order, "aids.rs", "use crate::top;", &[]);
    // Downwards, within, and what is no import.
    check(&order, "top.rs", "use crate::{low::A, mid::{self, B}, top::C};", &[]);
    check(&order, "mid/part.rs", "use super::*; use crate::mid::A; use super::super::low;", &[]);
    check(&order, "mid.rs", "/// As [`crate::top`].\n// use crate::top;\npub(crate) mod a;", &[]);
    check(&order, "mid.rs", "const A: &str = \"use crate::top;\"; pub(super) fn top() {}", &[]);
    check(&order, "mid.rs", "extern crate alloc; use other::top; use self::top::A;", &[]);
}

#[test]
fn the_unit_hides_nothing_that_the_server_reads() {
    let unit = fs::read_to_string(".config/txtcord.service").expect("the unit");
    // With it, /proc/sys is hidden: senders would not outlive a kill, and limits would be unknown.
    let hides = |line: &str| line.trim_start().starts_with("ProcSubset=pid");
    assert!(!unit.lines().any(hides), "see the comment there");
}
