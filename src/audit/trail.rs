//! The API server's audit log, as its log backend writes it: one JSON line for each event (`audit.k8s.io/v1`).
//!
//! Logs are large, cut and rotated: one line is in memory at a time, and whatever is no event is passed over, counted
//! and named by its line. Where such a line stands between two events there is a hole of so long: what is not found in
//! it may still have been.

mod coverage;
mod event;
mod survey;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

pub use coverage::Coverage;
pub use event::{Event, Object, Stage, User};
pub use survey::{Flaw, Lines, Survey};

/// Longest line that is read, in bytes. Events at level `Metadata` have about one kilobyte; at `RequestResponse` those
/// of large lists have more than this, and are passed over by name.
const LONGEST: u64 = 8 << 20;

/// Why a log cannot be read at all, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file system or the stream.
    #[error("{name}: {source}")]
    Broken {
        /// Which log.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// Rotated with `--audit-log-compress`, or packed by somebody else.
    #[error("{0} is compressed; unpack it on the way: zcat {0} | tokenferry … --audit-log -")]
    Packed(String),
}

/// The events of one log, oldest first as they stand there.
pub struct Trail<R> {
    input: R,
    name: String,
    text: Vec<u8>,
    survey: Survey,
    ended: bool,
}

/// Opens a log: a file, a pipe, or standard input where the path is `-`.
///
/// # Errors
/// [`Unreadable`] where it cannot be opened or is compressed.
pub fn open(path: &Path) -> Result<Trail<Box<dyn BufRead>>, Unreadable> {
    let (name, input): (String, Box<dyn BufRead>) = if path == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = path.display().to_string();
        let file = File::open(path).and_then(|file| {
            // A folder opens, and fails at its first byte with a text that tells nothing.
            if file.metadata()?.is_dir() { Err(io::Error::other("is a folder; name the log in it")) } else { Ok(file) }
        });
        let file = file.map_err(|source| Unreadable::Broken { name: name.clone(), source })?;
        (name, Box::new(BufReader::with_capacity(64 << 10, file)))
    };
    Trail::new(name, input)
}

impl<R: BufRead> Trail<R> {
    /// Reads a log from a stream.
    ///
    /// # Errors
    /// [`Unreadable`] where its first bytes cannot be read, or are those of a compressed file.
    pub fn new(name: impl Into<String>, mut input: R) -> Result<Self, Unreadable> {
        let name = name.into();
        let begin = input.fill_buf().map_err(|source| Unreadable::Broken { name: name.clone(), source })?;
        if [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd]].iter().any(|magic| begin.starts_with(magic)) {
            return Err(Unreadable::Packed(name));
        }
        Ok(Self { input, survey: Survey::of(name.clone()), name, text: Vec::new(), ended: false })
    }

    /// What was read so far: how many events of which time, and every line that is none.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// As [`survey`](Self::survey), when the log has been read.
    pub fn into_survey(self) -> Survey {
        self.survey
    }

    /// Puts the next line into `text`, its newline taken off. None at the end.
    fn line(&mut self) -> io::Result<Option<Found>> {
        self.text.clear();
        let read = (&mut self.input).take(LONGEST + 1).read_until(b'\n', &mut self.text)? as u64;
        if read == 0 {
            return Ok(None);
        }
        if self.text.last() == Some(&b'\n') {
            self.text.pop();
            return Ok(Some(Found::Whole));
        }
        if read <= LONGEST {
            return Ok(Some(Found::Last));
        }
        self.text.clear();
        self.skip_to_newline()?;
        Ok(Some(Found::TooLong))
    }

    fn skip_to_newline(&mut self) -> io::Result<()> {
        loop {
            let part = self.input.fill_buf()?;
            if part.is_empty() {
                return Ok(());
            }
            match part.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    self.input.consume(at + 1);
                    return Ok(());
                }
                None => {
                    let all = part.len();
                    self.input.consume(all);
                }
            }
        }
    }
}

/// What stands at the reader's place.
enum Found {
    Whole,
    /// The last one, without a newline: whole all the same, or cut.
    Last,
    TooLong,
}

impl<R: BufRead> Iterator for Trail<R> {
    type Item = Result<Event, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let found = match self.line() {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.ended = true;
                    break;
                }
                Err(source) => {
                    self.ended = true;
                    return Some(Err(Unreadable::Broken { name: self.name.clone(), source }));
                }
            };
            self.survey.lines += 1;
            let read = match found {
                Found::TooLong => Err(Flaw::TooLong),
                Found::Whole | Found::Last if self.text.trim_ascii().is_empty() => continue,
                Found::Whole | Found::Last => event::read(&self.text),
            };
            match read {
                Ok(event) => {
                    self.survey.saw(event.at);
                    return Some(Ok(event));
                }
                Err(flaw) => self.survey.passed_over(flaw),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(second: u64, more: &str) -> String {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a{second}","stage":"ResponseComplete","requestURI":"/x","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"2026-01-01T00:00:{second:02}.000000Z","stageTimestamp":"2026-01-01T00:00:{second:02}.500000Z"{more}}}"#
        )
    }

    fn read(text: &[u8]) -> (Vec<Event>, Survey) {
        let mut trail = Trail::new("log", text).unwrap_or_else(|why| panic!("{why}"));
        let events: Vec<Event> = trail.by_ref().map(|event| event.unwrap()).collect();
        (events, trail.into_survey())
    }

    #[test]
    fn a_token_request_tells_who_asked_for_whom_from_where_and_what_was_issued() {
        let line = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"c8d5","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/cicd/serviceaccounts/builder/token","verb":"create","user":{"username":"system:serviceaccount:ops:ferry","uid":"1","groups":["system:serviceaccounts"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=own"]}},"sourceIPs":["192.0.2.7","192.0.2.8"],"userAgent":"kubectl/v1.36.4","objectRef":{"resource":"serviceaccounts","namespace":"cicd","name":"builder","apiVersion":"v1","subresource":"token"},"responseStatus":{"metadata":{},"code":201},"requestObject":{"spec":{"deep":[[[{"a":1}]]]}},"requestReceivedTimestamp":"2026-11-29T23:35:34.720124Z","stageTimestamp":"2026-11-29T23:35:34.836177Z","annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=a156","authorization.k8s.io/reason":""}}"#;
        let (events, survey) = read(line.as_bytes());
        let event = &events[0];
        assert!(event.is_token_request() && event.stage == Stage::ResponseComplete);
        assert_eq!((event.verb.as_str(), event.audit_id.as_str(), event.code), ("create", "c8d5", Some(201)));
        assert_eq!((event.issued(), event.user.token()), (Some("a156"), Some("own")));
        assert_eq!((event.user.name.as_str(), event.user_agent.as_deref()), ("system:serviceaccount:ops:ferry", Some("kubectl/v1.36.4")));
        assert_eq!(event.source_ips, ["192.0.2.7", "192.0.2.8"]);
        let object = event.object.as_ref().unwrap();
        assert_eq!((object.path(), object.namespace.as_str(), object.name.as_str()), ("serviceaccounts/token".into(), "cicd", "builder"));
        assert_eq!(
            (event.received.to_string(), event.at.to_string()),
            ("2026-11-29T23:35:34.720124Z".into(), "2026-11-29T23:35:34.836177Z".into())
        );
        assert_eq!((survey.events, survey.first, survey.last), (1, Some(event.at), Some(event.at)));
        assert!(survey.is_whole());
    }

    #[test]
    fn a_client_certificate_is_no_token_and_a_legacy_token_is_named_by_its_annotation() {
        let more = r#","sourceIPs":null,"annotations":{"authentication.k8s.io/legacy-token":"system:serviceaccount:a:b"}"#;
        let text = event(1, more)
            .replace(r#"{"username":"u"}"#, r#"{"username":"u","extra":{"authentication.kubernetes.io/credential-id":["X509SHA256=2c"]}}"#);
        let (events, _) = read(text.as_bytes());
        assert_eq!(
            (events[0].user.token(), events[0].annotation("authentication.k8s.io/legacy-token")),
            (None, Some("system:serviceaccount:a:b"))
        );
        assert!(events[0].source_ips.is_empty() && !events[0].is_token_request() && events[0].issued().is_none());
    }

    #[test]
    fn what_is_no_event_is_counted_and_named_by_its_line_and_the_rest_is_read() {
        let other = event(4, "").replace("\"Metadata\"", "\"None\"");
        let old = event(5, "").replace("audit.k8s.io/v1", "audit.k8s.io/v1beta1");
        let whole = event(6, "");
        let lines = [&event(1, ""), &whole[..whole.len() / 2], "", "no JSON", "{\"kind\":\"Pod\"}", "[]", &other, &old, &event(7, "")];
        let (events, survey) = read(format!("{}\n", lines.join("\n")).as_bytes());
        assert_eq!(events.iter().map(|e| e.audit_id.as_str()).collect::<Vec<_>>(), ["a1", "a7"]);
        assert_eq!((survey.lines, survey.events), (9, 2));
        let named: Vec<(Flaw, u64, Vec<u64>)> =
            survey.flaws.iter().map(|(flaw, lines)| (*flaw, lines.count, lines.numbers.clone())).collect();
        assert_eq!(
            named,
            [
                (Flaw::Cut, 1, vec![2]),
                (Flaw::NotJson, 1, vec![4]),
                (Flaw::NotAnEvent, 2, vec![5, 6]),
                (Flaw::OtherVersion, 1, vec![8]),
                (Flaw::OtherLevel, 1, vec![7]),
            ]
        );
        let said = survey.said().join("; ");
        assert!(said.contains("line 2 is cut in the middle") && said.contains("lines 5 and 6 are no events"), "{said}");
        assert_eq!(survey.holes.len(), 1, "from the event before to the event after");
        let coverage = Coverage::of(&[survey]);
        let covers = |text: &str| coverage.covers(text.parse().unwrap(), text.parse().unwrap());
        assert!(coverage.covers(events[0].at, events[0].at) && coverage.covers(events[1].at, events[1].at));
        assert!(!covers("2026-01-01T00:00:04Z"), "in the hole");
        assert!(!covers("2026-01-01T00:00:00Z") && !covers("2026-01-01T00:01:00Z"));
    }

    #[test]
    fn a_log_cut_in_its_last_line_ends_with_the_event_before_and_one_without_a_last_newline_is_whole() {
        let text = format!("{}\n{}", event(1, ""), event(2, ""));
        let (events, survey) = read(&text.as_bytes()[..text.len() - 40]);
        assert_eq!((events.len(), survey.flaws[&Flaw::Cut].numbers.as_slice()), (1, &[2][..]));
        assert_eq!((survey.holes.len(), survey.last), (0, Some(events[0].at)));
        let (events, survey) = read(text.as_bytes());
        assert!(events.len() == 2 && survey.is_whole());
    }

    #[test]
    fn a_line_without_end_is_passed_over_in_bounded_memory() {
        let endless = io::repeat(b'x').take(LONGEST * 3);
        let text = format!("{}\n", event(1, ""));
        let after = format!("\n{}\n", event(9, ""));
        let stream = BufReader::new(text.as_bytes().chain(endless).chain(after.as_bytes()));
        let mut trail = Trail::new("log", stream).unwrap();
        assert_eq!(trail.by_ref().filter_map(Result::ok).count(), 2);
        assert_eq!(trail.survey().flaws[&Flaw::TooLong].numbers, [2]);
        assert!(trail.text.capacity() as u64 <= LONGEST * 2 + 2, "{}", trail.text.capacity());
    }

    #[test]
    fn a_thousand_bad_lines_are_counted_and_the_first_of_them_named() {
        let (_, survey) = read("x\n".repeat(1000).as_bytes());
        let lines = &survey.flaws[&Flaw::NotJson];
        assert_eq!((lines.count, lines.numbers.len()), (1000, survey::NAMED));
        assert!(survey.said()[0].contains("and 990 more"), "{:?}", survey.said());
        assert_eq!((survey.holes.len(), Coverage::of(&[survey]).span()), (0, None));
    }

    #[test]
    fn a_compressed_log_and_a_folder_are_told_with_the_way_out() {
        let Err(why) = Trail::new("log.gz", &[0x1f, 0x8b, 8][..]) else { panic!("read as text") };
        assert!(why.to_string().contains("zcat log.gz |"), "{why}");
        let folder = tempfile::tempdir().unwrap();
        let Err(why) = open(folder.path()) else { panic!("read as a log") };
        assert!(why.to_string().contains("is a folder"), "{why}");
        let Err(why) = open(Path::new("/nonexistent/audit.log")) else { panic!("read as a log") };
        assert!(why.to_string().contains("/nonexistent/audit.log"), "{why}");
    }

    proptest! {
        #[test]
        fn no_line_is_lost_without_a_word(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
            let text = event(1, "");
            let text = [&text.as_bytes()[..cut.min(text.len())], b"\n", &bytes, b"\n", event(2, "").as_bytes()].concat();
            let Ok(mut trail) = Trail::new("log", &text[..]) else { return Ok(()) };
            let events = trail.by_ref().filter_map(Result::ok).count() as u64;
            let survey = trail.into_survey();
            let blank = text.split(|b| *b == b'\n').filter(|line| line.trim_ascii().is_empty()).count() as u64;
            let flawed: u64 = survey.flaws.values().map(|lines| lines.count).sum();
            prop_assert_eq!(events, survey.events);
            prop_assert_eq!(survey.events + flawed + blank, text.split(|b| *b == b'\n').count() as u64);
        }
    }
}
