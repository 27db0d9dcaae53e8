use super::*;

fn posts_of(text: &str) -> Vec<(usize, InboxPost)> {
    Posts::of(text.as_bytes()).collect::<io::Result<_>>().expect("it is in memory")
}

/// What is posted of a text: lines by their offset, an operation with `*` before it.
#[track_caller]
fn check(text: &str, expected: &[(usize, &str)]) {
    let posts = posts_of(text).into_iter().map(|(offset, post)| match post {
        InboxPost::Messages(lines) => (offset, String::from_utf8(lines).expect("UTF-8")),
        InboxPost::Operation(line, _) => {
            (offset, format!("*{}", String::from_utf8(line).expect("UTF-8")))
        }
    });
    let expected: Vec<_> = expected.iter().map(|(at, text)| (*at, (*text).to_owned())).collect();
    assert_eq!(posts.collect::<Vec<_>>(), expected);
}

#[test]
fn the_posts_of_an_inbox_have_whole_messages() {
    check("", &[]);
    check("1\n2\n", &[(0, "1\n2\n")]);
    // The last line may have no end, and white space around a message is not a part of it.
    check(" 1 \r\n2", &[(0, "1\n2\n")]);
    check("no json\n\n3\n", &[(9, "3\n")]);
    // One that means nothing takes no other line with it, so each operation is a post of its own.
    check(
        "1\n{\"$op\":\"pin\",\"id\":1}\n2\n",
        &[(0, "1\n"), (2, "*{\"$op\":\"pin\",\"id\":1}\n"), (23, "2\n")],
    );
    check("{\"$op\":\"typing\"}\n{\"$op\":\"no\"}\n4\n", &[(30, "4\n")]);
}

#[test]
fn a_long_inbox_makes_several_posts() {
    let line = format!("\"{}\"\n", "x".repeat(POST_BYTES / 2));
    let posts = posts_of(&line.repeat(5));
    let offsets: Vec<usize> = posts.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [0, 2 * line.len(), 4 * line.len()]);
}
