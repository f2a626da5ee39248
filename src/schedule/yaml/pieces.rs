//! A long list of targets, cut where one of them begins, so that its parts are parsed side by side.

use super::parse::before_targets;
use super::text::{has_byte, looks_like_text};

/// A part of a list, and how many lines stand above it in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Whole elements, each with its dash.
    pub text: &'a str,
    /// Lines above it.
    pub above: usize,
}

/// Cuts the targets of a text, or with `whole` the list that it is, into pieces of that many bytes or up to four times as
/// many. Where it is cut depends on what stands there, so that a change leaves most other pieces as they were. `None` where
/// it is not plain to see that each means by itself what it means in its place. Pieces that can all be read mean what the
/// whole means; where one cannot, the whole has to be read.
pub fn pieces(text: &str, whole: bool, bytes: usize) -> Option<Vec<Piece<'_>>> {
    // 0xc2, 0xe2 and 0xef begin those beyond ASCII.
    let suspect = |byte: u8| matches!(byte, b'\t' | b'\r' | 0xc2 | 0xe2 | 0xef);
    let is_strange = || has_byte(text, suspect) && text.contains(['\t', '\r', '\u{feff}', '\u{85}', '\u{2028}', '\u{2029}']);
    if text.len() < 2 * bytes || is_strange() {
        return None;
    }
    let start = if whole {
        // What is no text is told of by who reads all of it; of a schedule itself that was asked before.
        looks_like_text(text).ok()?;
        0
    } else {
        before_targets(text)?;
        let key = text.find("\ntargets:")? + 1;
        key + text[key..].find('\n')? + 1
    };
    let list = &text[start..];
    let may_repeat = has_byte(list, |byte| matches!(byte, b'&' | b'*'));
    let mut cuts = Vec::with_capacity(list.len() / bytes + 2);
    let (mut number, mut at, mut margin) = (text[..start].matches('\n').count(), 0, None);
    for line in list.split_inclusive('\n') {
        let inner = line.trim_start_matches(' ');
        let blank = matches!(inner.bytes().next(), None | Some(b'\n' | b'#'));
        // What is named here and repeated there belongs together.
        if may_repeat && !blank && names_or_repeats(inner) {
            return None;
        }
        let indent = line.len() - inner.len();
        let begins = inner.trim_end() == "-" || inner.starts_with("- ");
        match margin {
            _ if blank => {}
            None if begins => {
                margin = Some(indent);
                cuts.push((start + at, number));
            }
            Some(margin) if begins && indent == margin => {
                let long = cuts.last().map_or(0, |(last, _)| start + at - last);
                if long >= 4 * bytes || (long >= bytes && is_a_cut(line)) {
                    cuts.push((start + at, number));
                }
            }
            Some(margin) if indent > margin => {}
            _ => return None,
        }
        at += line.len();
        number += 1;
    }
    if cuts.is_empty() {
        return None;
    }
    let ends = cuts.iter().skip(1).map(|(next, _)| *next).chain(std::iter::once(text.len()));
    Some(cuts.iter().zip(ends).map(|(&(from, above), to)| Piece { text: &text[from..to], above }).collect())
}

/// One line in 128, by what it says (FNV-1a).
fn is_a_cut(line: &str) -> bool {
    let hash = line.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32).is_multiple_of(128)
}

/// Whether an anchor or an alias may stand in this line.
fn names_or_repeats(line: &str) -> bool {
    let bytes = line.as_bytes();
    let opens = |at: usize| at == 0 || matches!(bytes[at - 1], b' ' | b'[' | b'{' | b',' | b':' | b'-' | b'?');
    bytes.iter().enumerate().any(|(at, byte)| matches!(byte, b'&' | b'*') && opens(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Node, targets};
    use super::*;

    fn read(text: &str, whole: bool) -> Option<Vec<String>> {
        let mut seen = Vec::new();
        targets(text, whole, |node| seen.push(shown(&node))).ok().map(|()| seen)
    }

    /// The parser says of an empty block text that it begins where the next thing does, and at a piece's end is none.
    fn shown(node: &Node) -> String {
        let told = format!("{node:?}");
        let spans = told.split(", span: (").map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
        let plain = spans.collect::<String>();
        let parts = plain.split("Node { at: ").map(|part| match part.split_once(", value: ") {
            Some((_, value)) if value.starts_with("Scalar { text: \"\"") => value,
            _ => part,
        });
        parts.collect::<Vec<_>>().join("Node ")
    }

    fn in_pieces(text: &str, whole: bool) -> Option<Option<Vec<String>>> {
        let mut seen = Vec::new();
        for piece in pieces(text, whole, 2)? {
            if super::super::piece(piece, |node| seen.push(shown(&node))).is_err() {
                return Some(None);
            }
        }
        Some(Some(seen))
    }

    #[test]
    fn a_plain_list_is_cut_and_every_part_of_it_knows_its_line() {
        for (text, whole) in [
            ("version: 1\ntargets: # all\n\n# one\n- a: x\n  b:\n  - y\n-\n  a: |\n    - z\n    # no comment\n  # comment\n- 'q'\n", false),
            ("version: 1\ntargets:\n  - a: 1\n    b: 2\n  - {a: [b, c],\n     d: 'e\n     f'}\n  - 0640\n", false),
            ("- a: xxxxxxxx\n- b: yyyyyyyy\n- c: \"*.example\"\n", true),
        ] {
            let cut = in_pieces(text, whole).unwrap_or_else(|| panic!("not cut: {text}"));
            assert!(pieces(text, whole, 2).unwrap().len() > 1, "{text}");
            assert_eq!(cut, read(text, whole), "{text}");
            assert!(cut.is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_not_plain_to_see_is_not_cut() {
        for text in [
            "version: 1\ntargets:\n- &a {x: 1}\n- *a\n- yyyyyyyyyyy\n",
            "version: 1\ntargets:\n- a: 1\n  b: 2\nclusters: {}\n- c: 3\n",
            "version: 1\ntargets:\n  - a: 1\n  - b: 2\n - c: 3\n",
            "version: 1\ntargets: [aaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbbbbbbbb]\n",
            "version: 1\ntargets:\n-\ta: 1\n- b: 222222222222222\n",
        ] {
            assert_eq!(pieces(text, false, 2), None, "{text}");
        }
        assert_eq!(pieces("- a: xxxxxxxx\n- b: \u{0}yyyyyyyy\n- c: z\n", true, 2), None);
    }

    #[test]
    fn a_target_that_comes_or_goes_leaves_most_pieces_as_they_were() {
        let list = |numbers: &mut dyn Iterator<Item = u32>| {
            numbers.map(|n| format!("- {{name: t{n}, serviceAccount: a/b{n}}}\n")).collect::<String>()
        };
        let texts = |text: &str| pieces(text, true, 4_000).unwrap().iter().map(|piece| piece.text.to_owned()).collect::<Vec<_>>();
        let before = texts(&list(&mut (0..20_000)));
        for changed in [list(&mut (0..20_000).filter(|n| *n != 7_000)), list(&mut (0..20_000).chain([20_000])), list(&mut (1..20_000))] {
            let after = texts(&changed);
            let kept = after.iter().filter(|piece| before.contains(piece)).count();
            assert!(before.len() > 60 && kept + 8 > before.len(), "{kept} of {}", before.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn pieces_that_can_all_be_read_mean_what_the_whole_means(
            before in "(version: 1\n|[a-c]: [x0-9]\n|# [a-z:]{0,5}\n){0,3}",
            list in "(- [a-z:\\[\\]{}' \"|>]{0,8}\n|  [a-z:'\"\\[\\]{}]{0,8}\n|- [ab]: 1\n|  - [xy]\n| - [xy]\n|#[a-z]{0,3}\n|\n|---\n|    - [a-z'\"|]{0,3}\n|-\n|- - [ab'\"]\n){0,12}",
            whole in proptest::bool::ANY
        ) {
            let text = if whole { list } else { format!("{before}v: 1\ntargets:\n{list}") };
            if let Some(Some(cut)) = in_pieces(&text, whole) {
                prop_assert_eq!(Some(cut), read(&text, whole));
            }
        }
    }
}
