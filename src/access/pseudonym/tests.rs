use super::*;

#[test]
fn a_pseudonym_is_the_name_and_twelve_letters_of_the_hash() {
    // printf 'txtcord pseudonym\\0correct horse' | sha256sum | xxd -r -p | base32
    let ann = of("ann", b"correct horse").expect("a pseudonym");
    assert_eq!(&*ann.sender, "ann~ra5k4rs4tily");
    assert_eq!(ann.person(), "~ra5k4rs4tily");
    assert_eq!(of("Ann É", b"correct horse").expect("a pseudonym").person(), ann.person());
    assert_ne!(of("ann", b"correct horsf").expect("a pseudonym").person(), ann.person());
}

#[test]
fn keys_and_names_have_limits_and_no_marks_that_deceive() {
    #[track_caller]
    fn check(name: &str, key: &[u8], expected: Option<&str>) {
        let refusal = of(name, key).err();
        match (&refusal, expected) {
            (None, None) => {}
            (Some(refusal), Some(words)) => {
                assert_eq!(refusal.status, 400);
                assert!(refusal.sentence.contains(words), "{}", refusal.sentence);
            }
            _ => panic!("{name:?} with {} bytes: {refusal:?}", key.len()),
        }
    }
    let key = b"12345678";
    check("ann", key, None);
    check("ann", &key[..7], Some("8 to 256 bytes"));
    check("ann", &[0xff; 256], None);
    check("ann", &[b'k'; 257], Some("8 to 256 bytes"));
    check("", key, Some("1 to 64 bytes"));
    check(&"n".repeat(64), key, None);
    check(&"n".repeat(65), key, Some("1 to 64 bytes"));
    check(&"é".repeat(33), key, Some("1 to 64 bytes"));
    check("ann of the hill \u{1f600} \"x\"", key, None);
    check("ann~k3v9q2m7x4ab", key, Some("~"));
    for mark in "\0\n\r\t\u{7f}\u{85}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars() {
        check(&format!("a{mark}b"), key, Some("cannot have the character"));
    }
}
