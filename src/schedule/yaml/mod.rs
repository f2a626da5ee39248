//! The YAML of a schedule as a tree in which every key and value knows its line and column. Targets are
//! handed out one at a time, so that a file with 100,000 of them stays cheap.

mod access;
mod located;
mod node;
mod parse;
mod pieces;
mod read;
mod reader;
mod text;
mod words;

pub use node::{At, Key, Kind, Node, START, Step, Value};
pub use parse::{head, piece, targets};
pub use pieces::{Piece, pieces};
pub use read::{Finding, Marks, read};
pub use reader::SPLIT;
pub use text::{Broken, MAX_BYTES, is_empty, not_utf8, position};
pub use words::closest;

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        head(text).unwrap().0
    }

    fn kind(text: &str) -> (String, Kind) {
        match &tree(&format!("a: {text}\n")).get("a").unwrap().value {
            Value::Scalar { text, kind } => (text.to_string(), *kind),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let root = tree("# first\na:\n  b: [x, {c: y}]\n");
        let (key, a) = &root.entries()[0];
        assert_eq!(key.at, At { line: 2, column: 1 });
        assert_eq!(a.get("b").unwrap().at, At { line: 3, column: 6 });
        let Value::List(list) = &a.get("b").unwrap().value else { panic!() };
        assert_eq!((list[0].at, list[1].get("c").unwrap().at), (At { line: 3, column: 7 }, At { line: 3, column: 14 }));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(tree("äöü: {é: x}\n").get("äöü").unwrap().get("é").unwrap().at, At { line: 1, column: 10 });
    }

    #[test]
    fn numbers_keep_how_they_were_written_and_quoted_ones_are_text() {
        for (text, wanted, number) in [
            ("640", "640", true),
            ("0640", "0640", true),
            ("0o640", "0o640", true),
            ("1_000", "1_000", true),
            ("1.50", "1.50", true),
            ("-3", "-3", true),
            ("\"0640\"", "0640", false),
            ("'640'", "640", false),
            ("|\n  640", "640", false),
            ("22:00", "22:00", false),
            ("80%", "80%", false),
            ("!!str 640", "640", false),
        ] {
            let (read, kind) = kind(text);
            assert_eq!((read.trim(), kind == Kind::Number), (wanted, number), "{text}");
        }
        assert_eq!(kind("true").1, Kind::Bool);
        assert_eq!(kind("yes").1, Kind::Text);
    }

    #[test]
    fn an_alias_stands_where_it_is_used_and_means_what_it_repeats() {
        let root = tree("a: &m 0640\nb: &t \"0640\"\nc: [*m, *t]\n");
        let Value::List(list) = &root.get("c").unwrap().value else { panic!() };
        assert!(matches!(&list[0].value, Value::Scalar { kind: Kind::Number, .. }));
        assert!(matches!(&list[1].value, Value::Scalar { kind: Kind::Text, .. }));
        assert_eq!(list[1].at, At { line: 3, column: 9 });
    }

    #[test]
    fn merge_keys_fill_in_what_is_left_out() {
        let root = tree("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n");
        let used = root.get("use").unwrap();
        let read = |key| if let Value::Scalar { text, .. } = &used.get(key).unwrap().value { text.to_string() } else { String::new() };
        assert_eq!((read("x"), read("y"), used.entries().len()), ("1".into(), "3".into(), 2));
    }

    #[test]
    fn targets_come_one_at_a_time_and_are_not_in_the_head() {
        let text = "targets: [a, b]\nversion: 1\n";
        let (root, given) = head(text).unwrap();
        assert!(given && !root.has("targets") && root.has("version"));
        let mut seen = Vec::new();
        targets(text, false, |node| seen.push(node.at.column)).unwrap();
        assert_eq!(seen, [11, 14]);
        targets("- a\n- b\n", true, |node| seen.push(node.at.line)).unwrap();
        assert_eq!(seen, [11, 14, 1, 2]);
    }

    #[test]
    fn a_head_before_its_targets_is_found_without_parsing_them() {
        for text in [
            "version: 1\ntargets:\n- a\n",
            "version: 1\ndefaults: {x: 1}\ntargets: # all\n\n# one\n  - a: |\n      targets:\n  -\n    b: c\n",
        ] {
            assert!(parse::before_targets(text).is_some(), "{text}");
        }
        for text in [
            "targets:\n- a\n",
            "version: 1\ntargets:\n- a\nclusters: {}\n",
            "version: 1\ntargets: [a]\n",
            "version: 1\ntargets:\n  a: b\n",
            "version: 1\ntargets:\n- a\n---\n- b\n",
            "version: 1\ntargets:\n",
            "x: {a: 'b\ntargets:\n- c'}\n",
            "\"targets\": [a]\ntargets:\n- b\n",
        ] {
            assert!(parse::before_targets(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_no_text_says_so() {
        assert!(head("").unwrap_err().message.contains("empty"));
        assert!(head("\u{feff}\n---\n# x\n").unwrap_err().message.contains("empty"));
        let binary = head("version: 1\nx: \u{0}\u{1}\n").unwrap_err();
        assert_eq!((binary.at, binary.message.contains("no text")), (At { line: 2, column: 4 }, true));
        let latin1 = not_utf8(b"version: 1\nx: caf\xe9\n");
        assert_eq!((latin1.at, latin1.message.contains("UTF-8")), (At { line: 2, column: 7 }, true));
        assert!(head(&"#".repeat(MAX_BYTES + 1)).unwrap_err().message.contains("64 MiB"));
    }

    #[test]
    fn bombs_and_towers_are_refused_in_time() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let last = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [&*last; 10].join(", "));
        }
        for text in [
            bomb,
            format!("a: {}", "[".repeat(100_000)),
            format!("a: {}1{}", "[".repeat(60), "]".repeat(60)),
            "a: &a [*a]\n".into(),
            "a: &a {<<: *a}\n".into(),
        ] {
            assert!(head(&text).is_err(), "{}", &text[..20.min(text.len())]);
        }
        let block: String = (0..60).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(head(&block).is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_head_is_the_same_whether_or_not_its_targets_are_parsed(
            before in "(version: 1\n|[a-c]: [x0-9]\n|[a-c]:\n  [xy]: [\\[\\]{}'\"x]{0,3}\n|# [a-z:]{0,5}\n|targets: ?\n|\n){0,6}",
            targets in "targets:( |# x)?\n(- [a-z:\\[' ]{0,8}\n|  [a-z:'\"]{0,8}\n|- [ab]: 1\n|  - [xy]\n|#[a-z]{0,3}\n|\n|[a-c]: [0-9]\n|---\n){0,8}"
        ) {
            let text = before + &targets;
            let (short, whole) = (parse::before_targets(&text), parse::whole_head(&text));
            if let (Some((short, true)), Ok((whole, given))) = (short, whole) {
                let shown = |entries: Vec<(Key, Node)>| {
                    entries.into_iter().map(|(key, node)| format!("{key:?} {:?}", node.value)).collect::<Vec<_>>()
                };
                proptest::prop_assert!(given);
                proptest::prop_assert_eq!(shown(short), shown(whole));
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[-:{}\\[\\]&*#|>'\"!%@`,? \n\ta-c0-9<~]{0,60}") {
            let _ = head(&text);
            let _ = targets(&text, true, |_| {});
        }
    }
}
