use proptest::prelude::*;

use super::*;
use crate::testing::tries;

fn placed(begun: u64, written: &str) -> Result<Vec<Placed<'_>>, Glued> {
    place(begun, written.as_bytes()).map(Iterator::collect)
}

#[test]
fn each_line_is_placed_as_the_table_says() {
    use Placed::{Blank, Foreign, Ours};
    assert_eq!(placed(0, "1\n2\n"), Ok(vec![Ours(b"1\n"), Ours(b"2\n")]));
    assert_eq!(placed(0, "\n1\n2\n"), Ok(vec![Blank, Ours(b"1\n"), Ours(b"2\n")]));
    assert_eq!(placed(7, "\n1\n2\n"), Ok(vec![Foreign, Ours(b"1\n"), Ours(b"2\n")]));
    assert_eq!(placed(7, "1\n2\n"), Err(Glued));
}

proptest! {
    #![proptest_config(tries(500))]

    /// The test knows which program wrote each byte of the file.
    #[test]
    fn lines_are_placed_as_they_stand_in_the_file(
        before in "[x \n]{0,6}",
        protection in "\n?",
        messages in prop::collection::vec("[0-9]{1,3}\n", 1..5),
        behind in "[x \n]{0,6}",
    ) {
        let written = protection + &messages.concat();
        let file = before.clone() + &written + &behind;
        let whole = before.rfind('\n').map_or(0, |at| at + 1);
        let end = before.len() + written.len();
        let stands = file[whole..end].split_inclusive('\n');
        match placed((before.len() - whole) as u64, &written) {
            Ok(placed) => {
                prop_assert_eq!(placed.len(), stands.clone().count());
                for (placed, line) in placed.iter().zip(stands) {
                    let is_right = match placed {
                        Placed::Foreign => line.contains(['x', ' ']),
                        Placed::Blank => line == "\n",
                        Placed::Ours(ours) => line.as_bytes() == *ours,
                    };
                    prop_assert!(is_right, "{:?} is {:?}", line, placed);
                }
            }
            Err(Glued) => {
                let line = stands.into_iter().next().expect("a line");
                prop_assert!(line.contains(['x', ' ']) && line.ends_with(&messages[0]));
            }
        }
    }
}
