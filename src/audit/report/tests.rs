use jiff::Timestamp;

use super::course::Course;
use super::*;
use crate::record::{Actor, Line, Options, Outcome, Reason, SinkLine, open};
use crate::schedule::plan::Compliance;

const HOUR: i64 = 3600;
const PERIOD: Period = Span { from: Timestamp::constant(1_000 * HOUR, 0), until: Timestamp::constant(1_100 * HOUR, 0) };

fn at(hour: i64) -> Timestamp {
    Timestamp::from_second(hour * HOUR).unwrap()
}

/// A line of the target `one` about a token of ten hours.
fn line(kind: Kind, hour: i64, jti: &str) -> Line {
    Line {
        target: Some("one".into()),
        cluster: Some("prod".into()),
        service_account: Some("ci/one".into()),
        labels: [("owner".to_owned(), "payments".to_owned())].into(),
        reason: Some(Reason::Lifetime),
        jti: Some(jti.into()),
        requested: Some(36_000),
        granted: Some(36_000),
        issued_at: Some(at(hour)),
        expires_at: Some(at(hour + 10)),
        sinks: vec![SinkLine { attempts: 1, ..SinkLine::new("file", "/run/one", Outcome::Written) }],
        ..Line::new(kind, at(hour))
    }
}

fn course(lines: &[Line]) -> Course {
    let mut course = Course::new("one", 0, PARTS);
    for line in lines {
        course.take(line, &PERIOD);
    }
    course.end(&PERIOD);
    course
}

#[test]
fn ages_lives_and_rotations_of_the_period_are_told_and_no_others() {
    let mut long_ago = line(Kind::Rotated, 900, "x");
    long_ago.granted = Some(999_999);
    let found = course(&[long_ago, line(Kind::Rotated, 995, "a"), line(Kind::Rotated, 1_003, "b"), line(Kind::Rotated, 1_094, "c")]);
    // Eight hours of `a`, then `b` until its successor, which came 91 hours later.
    assert_eq!(found.longest_age, Some(91 * 3600));
    assert_eq!((found.longest_life, found.rotations, found.missed), (Some(36_000), 2, 1));
    assert_eq!(found.without_token, 81 * 3600);
    assert_eq!(found.without, [Span { from: at(1_013), until: at(1_094) }]);
    assert_eq!((found.receivers[0].received, found.jti.as_deref()), (2, Some("c")));
}

#[test]
fn a_token_of_the_time_before_counts_from_the_periods_beginning() {
    let found = course(&[line(Kind::Rotated, 999, "a"), line(Kind::Rotated, 1_006, "b")]);
    assert_eq!((found.longest_age, found.rotations), (Some(94 * 3600), 1));
    let gone = course(&[line(Kind::Rotated, 900, "a")]);
    // It ended long before, and nobody ever replaced it.
    assert_eq!(gone.without_token, 100 * 3600);
    // The first of sixty parts is 6,000 s long.
    assert_eq!(gone.ages[0], Some(100 * 3600 + 6_000));
}

#[test]
fn a_refused_token_is_no_valid_one_and_a_refusal_of_another_says_nothing() {
    let refused = course(&[line(Kind::Rotated, 1_000, "a"), line(Kind::Rejected, 1_002, "a"), line(Kind::Rotated, 1_003, "b")]);
    assert_eq!(refused.without[0], Span { from: at(1_002), until: at(1_003) });
    let other = course(&[line(Kind::Rotated, 1_000, "a"), line(Kind::Rejected, 1_002, "z"), line(Kind::Rotated, 1_003, "b")]);
    assert_eq!(other.without.first().map(|span| span.from), Some(at(1_013)), "only `b` outlived its end");
}

#[test]
fn failures_are_grouped_by_their_cause_and_owed_places_wait() {
    let mut failed = line(Kind::Failed, 1_001, "b");
    failed.sinks[0].outcome = Outcome::Owed;
    failed.sinks[0].error = Some("the disk is full".into());
    let mut again = failed.clone();
    again.time = at(1_002);
    let found = course(&[line(Kind::Rotated, 1_000, "a"), failed, again, line(Kind::Paid, 1_004, "b")]);
    assert_eq!(found.causes, [Cause { error: "the disk is full".into(), count: 2, span: Span { from: at(1_001), until: at(1_002) } }]);
    assert_eq!((found.failures, found.receivers[0].owed), (2, 3 * 3600));
}

#[test]
fn a_target_that_never_had_a_token_kept_nothing() {
    let mut failed = line(Kind::Failed, 1_001, "b");
    failed.sinks.clear();
    let judged = judge::judge(course(&[failed.clone()]), Compliance { max_age: Some(3600), max_lifetime: None });
    assert_eq!((judged.verdict, judged.why), (Verdict::Broken, vec!["it never had a token".to_owned()]));
    let had_one = judge::judge(course(&[line(Kind::Rotated, 1_099, "a"), failed]), Compliance::default());
    assert_eq!(had_one.verdict, Verdict::NoLimits);
}

#[test]
fn shortened_lives_are_counted() {
    let mut short = line(Kind::Rotated, 1_001, "a");
    short.requested = Some(48 * 3600);
    let found = course(&[short]);
    assert_eq!((found.shortened, found.least_given), (1, Some(36_000)));
}

fn folder(lines: Vec<Line>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let writer = open(&folder.path().join("records"), Options { keep: 400 * 86_400, max_size: 1 << 20 }).unwrap().writer;
        writer.append(lines).await;
        writer.close().await;
    });
    folder
}

fn question<'a>(targets: &'a [String]) -> Question<'a> {
    Question { period: PERIOD, now: at(1_200), targets, group_by: "owner", plan: None }
}

fn by_hand() -> Line {
    let actor = Actor { uid: 0, user: Some("root".into()), says: None, command: "rotate one".into() };
    Line { actor: Some(actor), ..line(Kind::Rotated, 1_050, "b") }
}

#[test]
fn a_report_tells_of_the_daemon_its_records_and_of_who_did_what() {
    let crash = [Line::new(Kind::Started, at(1_001)), line(Kind::Rotated, 1_001, "a"), Line::new(Kind::Started, at(1_010))];
    let rest = [by_hand(), Line::new(Kind::Stopped, at(1_060)), Line::new(Kind::Started, at(1_062)), line(Kind::Rotated, 1_063, "c")];
    let folder = folder(crash.into_iter().chain(rest).collect());
    let made = report(&[folder.path().join("records")], &question(&[]));
    let spans: Vec<_> = made.down.iter().map(|down| (down.span.from, down.span.until, down.stopped)).collect();
    assert_eq!(spans, [(at(1_001), at(1_010), false), (at(1_060), at(1_062), true)]);
    assert_eq!(made.steps.iter().map(|step| step.actor.command.as_str()).collect::<Vec<_>>(), ["rotate one"]);
    assert!(made.sources[0].sound && made.sources[0].head.is_some());
    assert_eq!((made.total.targets, made.groups[0].label.as_deref()), (1, Some("payments")));
    assert_eq!(made.rotations.iter().sum::<u64>(), 3);
    let none = report(&[folder.path().join("records")], &question(&["other*".to_owned()]));
    assert_eq!(none.targets, []);
}

#[test]
fn records_with_a_hole_give_a_partial_report_that_says_so() {
    let folder = folder((0..20).map(|n| line(Kind::Rotated, 1_000 + n, &format!("t{n}"))).collect());
    let records = folder.path().join("records");
    let file =
        std::fs::read_dir(&records).unwrap().flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "jsonl")).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("\"t7\"")).collect();
    std::fs::write(&file, kept.join("\n") + "\n").unwrap();
    let made = report(&[records, "/nonexistent".into()], &question(&[]));
    assert!(!made.is_clean() && !made.sources[0].sound, "{:?}", made.sources);
    assert!(made.missing.iter().any(|line| line.contains("missing before it")), "{:?}", made.missing);
    assert!(made.missing.iter().any(|line| line.contains("/nonexistent")), "{:?}", made.missing);
    assert_eq!(made.total.rotations, 19, "the rest is told all the same");
}

#[test]
fn the_page_takes_every_report_and_quotes_what_others_wrote() {
    let mut hostile = by_hand();
    hostile.actor.as_mut().unwrap().command = "<script>alert(1)</script>".into();
    hostile.labels.insert("owner".into(), "a\"><b>".into());
    let mut failed = line(Kind::Failed, 1_070, "c");
    failed.error = Some("<img src=x>".into());
    let folder = folder(vec![Line::new(Kind::Started, at(1_001)), hostile, failed, Line::new(Kind::Stopped, at(1_080))]);
    let made = report(&[folder.path().join("records")], &question(&[]));
    let page = page::page(&made, None);
    assert!(!page.contains("<script>") && !page.contains("<b>\"") && !page.contains("<img"), "{page}");
    assert!(page.contains("&lt;script&gt;") && page.contains("<rect"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "it needs nothing from elsewhere");
    let empty = page::page(&report(&[], &question(&[])), Some(&crate::cluster::view::View::default()));
    assert!(empty.ends_with("</html>\n"));
}
