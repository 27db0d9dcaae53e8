use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;
use crate::{access::pseudonym, testing::Dir};

const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const BAR: &str = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";

fn hash(text: &str) -> TokenHash {
    token_hash(text).expect("a hash")
}

fn named(name: &str, token: &str) -> Identity {
    Identity::Named { name: name.into(), token: hash(token) }
}

#[test]
fn what_no_line_grants_is_denied() {
    let text = format!(
        "# who   sha-256 of the token   channels   may\n\n\
         ann\t{FOO}  dev,ops-*  post # not read\r\n\
         ann {FOO} dev read\n   \n\
         root {}  *   admin\n\
         * - messages,lob* read,post\n\
         * - messages-2 read\n",
        BAR.to_uppercase(),
    );
    let rules = Rules::parse(&text).expect("it makes sense");
    assert_eq!(rules.name_of(&hash(FOO)).as_deref(), Some("ann"));
    assert_eq!(rules.name_of(&hash(BAR)).as_deref(), Some("root"));
    assert_eq!(rules.name_of(&[0; 32]), None);
    let pseudonym = Identity::Pseudonym(pseudonym::of("ann", b"12345678").expect("a pseudonym"));
    let who = [named("ann", FOO), named("root", BAR), Identity::Nobody, pseudonym];
    let (all, both, read, post, none) =
        (r#"["read","post","admin"]"#, r#"["read","post"]"#, r#"["read"]"#, r#"["post"]"#, "[]");
    for (channel, rights) in [
        ("dev", [both, all, none, none]),
        ("dev2", [none, all, none, none]),
        ("ops", [none, all, none, none]),
        ("ops-", [post, all, none, none]),
        ("ops-1", [post, all, none, none]),
        ("messages", [none, all, both, both]),
        ("messages-2", [none, all, read, read]),
        ("lobby", [none, all, both, both]),
        ("lo", [none, all, none, none]),
    ] {
        let channel = Name::parse(channel).expect("a name");
        for (who, expected) in who.iter().zip(rights) {
            assert_eq!(rules.rights(who, &channel).json(), expected, "{who:?} in {channel}");
        }
    }
    // Neither a token that was taken back nor one that is another's now has the rights of the name.
    let dev = Name::parse("dev").expect("a name");
    assert!(rules.rights(&named("root", FOO), &dev).is_empty());
    assert!(
        rules.rights(&Identity::Named { name: "root".into(), token: [0; 32] }, &dev).is_empty()
    );
}

#[test]
fn a_line_that_makes_no_sense_is_named_with_what_is_wrong() {
    #[track_caller]
    fn check(line: &str, words: &str) {
        let (number, why) =
            Rules::parse(&format!("# a comment\n\n{line}\n")).expect_err("it is wrong");
        assert_eq!(number, 3, "{line}");
        assert!(why.contains(words), "{line}: {why}");
    }
    check("ann", "four columns");
    check(&format!("ann {FOO} *"), "this one has 3");
    check(&format!("ann {FOO} dev, ops read"), "this one has 5");
    check(&format!("ann {FOO} * write"), "\"write\" is no right");
    check(&format!("ann {FOO} * read,"), "\"\" is no right");
    check(&format!("ann {FOO} * Read"), "\"Read\" is no right");
    check(&format!("a/n {FOO} * read"), "is no name");
    check(&format!("a~n {FOO} * read"), "is no name");
    check(&format!("é {FOO} * read"), "is no name");
    check(&format!("{} {FOO} * read", "n".repeat(65)), "is no name");
    check(&format!("- {FOO} * read"), "is no name");
    check(&format!("ann {} * read", &FOO[1..]), "no SHA-256");
    check(&format!("ann {FOO}0 * read"), "no SHA-256");
    check(&format!("ann g{} * read", &FOO[1..]), "no SHA-256");
    check("ann - * read", "a name needs a token");
    check(&format!("* {FOO} * read"), "its second column is -");
    check("* - DEV read", "lower case");
    check("* - ws read", "keeps this name");
    check("* - de/v read", "is no channel");
    check("* - ,dev read", "is no channel");
    check("* - DEV* read", "no channel's name begins");
    check("* - d*v read", "is no channel");
    check("* - -* read", "no channel's name begins");
    let (number, why) =
        Rules::parse(&format!("ann {FOO} * read\nbob {FOO} * read")).expect_err("it is wrong");
    assert_eq!((number, why.as_str()), (2, "bob has the same token as ann"));
}

#[test]
fn a_file_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    dir.write("* - * read\n");
    let read_with = |mode: u32| {
        fs::set_permissions(dir.file(), fs::Permissions::from_mode(mode)).expect("it is ours");
        Rules::read(&dir.file()).map_err(|error| error.to_string())
    };
    for mode in [0o600, 0o644, 0o444] {
        read_with(mode).expect("nobody else may write to it");
    }
    for mode in [0o620, 0o602, 0o666] {
        let error = read_with(mode).expect_err("others may write to it");
        assert!(error.contains("chmod go-w"), "{error}");
    }
    dir.write(b"* - * read\n# \xff\n* - dev\xff read\n");
    let error = read_with(0o600).expect_err("it is no text");
    assert!(error.ends_with("messages.txt:2: this is not UTF-8"), "{error}");
    let error = Rules::read(&dir.path().join("nix")).expect_err("it is not there").to_string();
    assert!(error.contains("nix: No such file"), "{error}");
    let fifo = dir.path().join("fifo");
    mkfifoat(CWD, &fifo, Mode::from(0o600)).expect("a FIFO");
    let error = Rules::read(&fifo).expect_err("it is no file").to_string();
    assert!(error.ends_with("is not a regular file"), "{error}");
}
