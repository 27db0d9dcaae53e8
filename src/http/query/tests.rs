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
