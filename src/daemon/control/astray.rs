//! Orders that came to the wrong member of a fleet: the answer says who serves the target, and nothing is done here.

use std::collections::BTreeMap;

use http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Ask, respond};
use crate::daemon::ask::{Elsewhere, Selector};

/// Names that one sentence has.
const NAMED: usize = 5;

/// Which of the targets meant another member serves; `None` where the loop is gone.
pub(super) async fn of(meant: Selector, asks: &mpsc::Sender<Ask>) -> Option<Vec<Elsewhere>> {
    let (reply, answer) = oneshot::channel();
    asks.send(Ask::Elsewhere(meant, reply)).await.ok()?;
    answer.await.ok()
}

/// The answer to an order of which nothing can be done here.
pub(super) fn refusal(found: &[Elsewhere]) -> Answer {
    let body = serde_json::json!({ "error": said(found), "elsewhere": found });
    respond(StatusCode::MISDIRECTED_REQUEST, body.to_string().into_bytes())
}

/// Who serves them, and what to do.
pub fn said(found: &[Elsewhere]) -> String {
    let mut by: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for Elsewhere { target, member } in found {
        by.entry(member.as_deref()).or_default().push(target);
    }
    let one = |(member, targets): (&Option<&str>, &Vec<&str>)| {
        let (more, is) = (targets.len().saturating_sub(NAMED), if targets.len() == 1 { "is" } else { "are" });
        let mut names = targets[..targets.len().min(NAMED)].join(", ");
        if more > 0 {
            names += &format!(" and {more} more");
        }
        match member {
            Some(member) => {
                format!("{names} {is} served by member {member} of the fleet: ask there, on the host or in the Pod of that name")
            }
            None => format!("{names} {is} not served here, and by whom is not known: `tokenferry status --fleet` says why"),
        }
    };
    by.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_named_with_what_it_serves_and_a_long_list_is_counted() {
        let at = |target: &str, member: Option<&str>| Elsewhere { target: target.into(), member: member.map(Into::into) };
        assert_eq!(
            said(&[at("ci", Some("node-b"))]),
            "ci is served by member node-b of the fleet: ask there, on the host or in the Pod of that name"
        );
        let many = ["a", "b", "c", "d", "e", "f", "g"].map(|name| at(name, Some("x"))).into_iter();
        let found: Vec<Elsewhere> = many.chain([at("z", None)]).collect();
        assert_eq!(
            said(&found),
            "z is not served here, and by whom is not known: `tokenferry status --fleet` says why; \
             a, b, c, d, e and 2 more are served by member x of the fleet: ask there, on the host or in the Pod of that name"
        );
    }
}
