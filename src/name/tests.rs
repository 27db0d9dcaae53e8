use proptest::prelude::*;

use super::*;
use crate::testing::tries;

#[test]
fn names_are_told_from_what_is_none() {
    #[track_caller]
    fn check(text: &str, expected: Result<(), NotAName>) {
        assert_eq!(Name::parse(text).map(|name| assert_eq!(name.as_str(), text)), expected);
    }
    let longest = "a".repeat(LONGEST);
    for text in ["messages", "dev", "0", "a-b_c", "9-", "a__", "wss", "metric", &longest] {
        check(text, Ok(()));
    }
    for text in RESERVED {
        check(text, Err(NotAName::Reserved));
    }
    for text in ["Dev", "DEV", "Messages", "a-B"] {
        check(text, Err(NotAName::Capital));
    }
    let too_long = "a".repeat(LONGEST + 1);
    let others = [
        "", "-a", "_a", ".", "..", "a.b", "a/b", "/a", "a/", "a b", "a\0", "%64ev", "a%00",
        "%2e%2e", "é", "ａ", "a\n", "a,b", "*", "WS", "Metrics", "a~", "a\\b", &too_long,
    ];
    for text in others {
        check(text, Err(NotAName::Malformed));
    }
}

proptest! {
    #![proptest_config(tries(2048))]

    #[test]
    fn a_name_is_a_plain_file_name_and_a_plain_path(
        text in prop_oneof![any::<String>(), "[a-zA-Z0-9_./%~-]{0,66}", "[a-z0-9][a-z0-9_-]{0,62}"],
    ) {
        let pattern = text.len() <= 63
            && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && text.chars().all(|it| matches!(it, 'a'..='z' | '0'..='9' | '_' | '-'));
        let is_one = pattern && !RESERVED.contains(&&*text);
        prop_assert_eq!(Name::parse(&text).is_ok(), is_one);
        if let Ok(name) = Name::parse(&text) {
            // Whatever folder it is joined to, it stays right below it.
            let path = std::path::Path::new("/folder").join(format!("{name}.txt"));
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/folder")));
            prop_assert_eq!(path.components().count(), 3);
        }
    }
}
