use std::io::Write as _;

use super::*;
use crate::testing::Dir;

#[test]
fn the_hash_is_the_one_that_everybody_can_compute() {
    let mut chain = Chain::default();
    assert_eq!(chain.as_str(), "");
    chain.extend(b"{\"user\":\"ann\"}\n");
    // printf '{"user":"ann"}\n' | sha1sum | cut -c1-16
    assert_eq!(chain.as_str(), "1b82fc18f7b0dc42");
    chain.extend(b"2\n");
    // printf 'FIRST2\n' | sha1sum | cut -c1-16
    assert_eq!(chain.as_str(), "1c7880f433417550");
}

#[test]
fn a_walk_stops_after_any_line_and_knows_where_it_is() {
    let dir = Dir::new();
    let path = dir.file();
    let mut file = File::create_new(&path).expect("the folder is empty");
    let reading = File::open(&path).expect("it was made");
    let long = "x".repeat(3 * BLOCK);
    let text = format!("1\n{long}\n\n4\ntorn");
    file.write_all(text.as_bytes()).expect("the disk has room");
    let whole: Vec<&str> = text.split_inclusive('\n').collect();
    for id in 0..=5 {
        let mut walk = Walk::of(&reading);
        walk.go_to(id, text.len() as u64).expect("it can be read");
        let before: String = whole[..4.min(id as usize)].concat();
        let mut chain = Chain::default();
        chain.extend(before.as_bytes());
        assert_eq!((walk.at.lines, walk.at.offset), (id.min(4), before.len() as u64), "{id}");
        assert_eq!(walk.at.chain, chain, "{id}");
    }
}
