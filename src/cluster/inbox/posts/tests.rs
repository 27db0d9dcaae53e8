use super::*;

fn groups_of(text: &str, tail: Tail) -> Vec<Group> {
    let mut groups = Groups::of(text.as_bytes(), 0, tail);
    std::iter::from_fn(|| groups.next(None).expect("it is in memory")).collect()
}

/// What a group posts, with its offset, and `*` before an operation.
fn told(group: &Group) -> Option<(u64, String)> {
    let (mark, text) = match group.post.as_ref()? {
        InboxPost::Messages(lines) => ("", lines),
        InboxPost::Operation(line, _) => ("*", line),
    };
    Some((group.begin, mark.to_owned() + &String::from_utf8_lossy(text)))
}

/// What is posted of a text, and what of it cannot be.
#[track_caller]
fn check(text: &str, tail: Tail, posted: &[(u64, &str)], unposted: &str) {
    let groups = groups_of(text, tail);
    let found: Vec<_> = groups.iter().filter_map(told).collect();
    let posted: Vec<_> = posted.iter().map(|(at, text)| (*at, (*text).to_owned())).collect();
    assert_eq!(found, posted);
    let found: Vec<u8> = groups.iter().flat_map(|group| group.unposted.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&found), unposted);
}

#[test]
fn the_posts_of_an_inbox_have_whole_messages() {
    check("", Tail::Waits, &[], "");
    check("1\n2\n", Tail::Waits, &[(0, "1\n2\n")], "");
    // White space around a message is not a part of it.
    check(" 1 \r\n2\n", Tail::Waits, &[(0, "1\n2\n")], "");
    check("no json\n\n3\n", Tail::Waits, &[(9, "3\n")], "no json\n");
    // One that means nothing takes no other line with it, so each operation is a post of its own.
    check(
        "1\n{\"$op\":\"pin\",\"id\":1}\n2\n",
        Tail::Waits,
        &[(0, "1\n"), (2, "*{\"$op\":\"pin\",\"id\":1}\n"), (23, "2\n")],
        "",
    );
    let no_post = "{\"$op\":\"typing\"}\n{\"$op\":\"no\"}\n";
    check(&format!("{no_post}4\n"), Tail::Waits, &[(30, "4\n")], no_post);
}

#[test]
fn a_line_without_its_end_waits_for_it_as_long_as_it_may_come() {
    check("1\n2", Tail::Waits, &[(0, "1\n")], "");
    check("1\n2", Tail::Ends, &[(0, "1\n2\n")], "");
    check("1\n{\"a", Tail::Ends, &[(0, "1\n")], "{\"a");
}

#[test]
fn a_long_inbox_makes_several_posts() {
    let line = format!("\"{}\"\n", "x".repeat(POST_BYTES / 2));
    let groups = groups_of(&line.repeat(5), Tail::Waits);
    let offsets: Vec<u64> = groups.iter().map(|group| group.begin).collect();
    let len = line.len() as u64;
    assert_eq!(offsets, [0, 2 * len, 4 * len]);
}

/// A crash may come after a post was sent, and the file may have grown since.
#[test]
fn what_was_sent_is_one_post_again_whatever_came_after_it() {
    let mut groups = Groups::of(&b"1\n2\n3\n4\n"[..], 0, Tail::Waits);
    let mut next = |end| groups.next(end).expect("it is in memory").as_ref().and_then(told);
    assert_eq!(next(Some(4)), Some((0, "1\n2\n".to_owned())));
    assert_eq!(next(None), Some((4, "3\n4\n".to_owned())));
    assert_eq!(next(None), None);
}
