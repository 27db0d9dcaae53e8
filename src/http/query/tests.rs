use super::*;

#[test]
fn names_and_values_are_decoded() {
    #[track_caller]
    fn check(query: &str, expected: &[(&str, &str)]) {
        let found: Vec<_> = parameters(query)
            .map(|parameter| (parameter.name.clone(), parameter.text().expect("UTF-8")))
            .collect();
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, expected, "{query}");
        // As everybody else decodes it.
        let model: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let model: Vec<_> = model.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(model, expected, "{query}");
    }
    check("", &[]);
    check("a=1&b=2&a=3", &[("a", "1"), ("b", "2"), ("a", "3")]);
    check("a+b=c+d%2Be", &[("a b", "c d+e")]);
    check("%61s=%C3%A9%26", &[("as", "é&")]);
    check("&&a&=&b=&=c&a=b=c", &[("a", ""), ("", ""), ("b", ""), ("", "c"), ("a", "b=c")]);
    check("a=%&b=%4&c=%zz&d=100%25", &[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "100%")]);
    check("a=é", &[("a", "é")]);
}

#[test]
fn a_text_that_is_not_utf_8_is_refused() {
    #[track_caller]
    fn check(value: &str) {
        let refusal = speaker(&format!("as={value}")).expect_err("it is no text");
        assert_eq!(refusal.status, 400, "{value}");
        assert!(refusal.sentence.starts_with("as= is not UTF-8;"), "{}", refusal.sentence);
    }
    check("%ff");
    check("ann%C3");
    check("%C3+%A9");
    // A surrogate, and a character spelled with more bytes than it needs.
    check("%ED%A0%80");
    check("%C0%AF");
    // Nobody reads a parameter that nobody knows.
    assert_eq!(speaker("%ff=%ff&as=ann").expect("a name").as_deref(), Some("ann"));
}

#[test]
fn a_time_is_so_long_ago_or_in_rfc_3339_or_in_unix_seconds() {
    /// It is this time of the clock, in Unix milliseconds: `2026-11-23T14:02:15.123Z`.
    const NOW: u64 = 1_795_442_535_123;
    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(time(text, Duration::from_millis(NOW)), expected, "{text:?}");
    }
    check("10m", Some(NOW - 600_000));
    check("1h 30m", Some(NOW - 5_400_000));
    check("1000years", Some(0));
    for text in [
        "2026-11-23T14:02:15.123Z",
        "2026-11-23T14:02:15.123z",
        "2026-11-23T15:02:15.123+01:00",
        "2026-11-23T15:02:15.123 01:00",
        "2026-11-23T08:32:15.123-05:30",
        "2026-11-24T00:02:15.123+10:00",
        // RFC 3339 section 5.6: the letters may be small.
        "2026-11-23t14:02:15.123z",
        "2026-11-23t15:02:15.123+01:00",
    ] {
        check(text, Some(NOW));
    }
    check("2026-11-23T14:02:15Z", Some(NOW - 123));
    check("1795442535", Some(NOW - 123));
    check("0", Some(0));
    // What is before all messages.
    check("1969-12-31T23:59:59Z", Some(0));
    check("0000-02-29T00:00:00Z", Some(0));
    check("1970-01-01T00:30:00+01:00", Some(0));
    check("1969-12-31T23:59:59-00:01", Some(59_000));
    check("253402300799", Some(253_402_300_799_000));
    // Milliseconds, which would be a time in the far future.
    check("1795442535123", None);
    for text in [
        "",
        " ",
        "-1",
        "1.5",
        "m",
        "10 parsecs",
        "2026-11-23",
        "2026-11-23T14:02:15",
        "2026-13-23T14:02:15Z",
        "2026-11-23T14:02:15+1:00",
        "2026-11-23T14:02:15+24:00",
        "2026-11-23T14:02:15+01:60",
        "2026-11-23T14:02:15+0a:00",
        "2026-11-23T14:02:15é01:00",
        "2026-11-23T14:02:15Zé",
        "2026-11-23T14:02:15.Z",
        "2026-11-23T14:02:15.+01:00",
        "2026-11-23T14:02:15.",
        "2026-11-23tt14:02:15Z",
        "1969-02-29T00:00:00Z",
        "196é-12-31T23:59:59Z",
        "+969-12-31T23:59:59Z",
        "99999999999999999999999",
    ] {
        check(text, None);
    }
}
