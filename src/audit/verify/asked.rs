//! What the API server says when it is asked.

use super::{Check, Verdict, check};
use crate::cluster::Proven;
use crate::cluster::review::Reviewed;

/// Answers of the API server, as far as it was asked.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// SelfSubjectReview with the token itself.
    pub review: Option<Proven>,
    /// TokenReview with the caller's own credential, or why it could not be asked.
    pub token_review: Option<Result<Reviewed, String>>,
}

/// A check for each answer. What could not be asked is unknown, which is not good.
pub fn of_asked(asked: &Asked, subject: &str) -> Vec<Check> {
    let unknown = |name, detail: &str| Check { check: name, verdict: Verdict::Unknown, detail: detail.to_owned() };
    let review = asked.review.as_ref().map(|proven| match proven {
        Proven::Online => check("review", true, format!("the API server takes it for {subject}")),
        Proven::Refused(why) => check("review", false, why.clone()),
        Proven::Signed | Proven::Unserved(_) => unknown("review", "it was not asked"),
        Proven::NotOffered(why) | Proven::Unknown(why) => unknown("review", why),
    });
    let token_review = asked.token_review.as_ref().map(|answer| match answer {
        Ok(Reviewed::Accepted { user, .. }) if user != subject => check("tokenReview", false, format!("accepted, but as {user}")),
        Ok(Reviewed::Accepted { user, audiences }) if audiences.is_empty() => check("tokenReview", true, format!("accepted as {user}")),
        Ok(Reviewed::Accepted { user, audiences }) => {
            check("tokenReview", true, format!("accepted as {user} for {}", audiences.join(", ")))
        }
        Ok(Reviewed::Refused(why)) => check("tokenReview", false, why.clone()),
        Err(why) => unknown("tokenReview", why),
    });
    review.into_iter().chain(token_review).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "system:serviceaccount:ci:bot";

    fn verdict(asked: Asked) -> Vec<(&'static str, Verdict)> {
        of_asked(&asked, SUBJECT).into_iter().map(|check| (check.check, check.verdict)).collect()
    }

    #[test]
    fn each_answer_is_a_check_and_silence_is_not_good() {
        let review = |proven| verdict(Asked { review: Some(proven), token_review: None });
        assert_eq!(review(Proven::Online), [("review", Verdict::Good)]);
        assert_eq!(review(Proven::Refused("401".into())), [("review", Verdict::Bad)]);
        assert_eq!(review(Proven::Unknown("no answer".into())), [("review", Verdict::Unknown)]);
        assert_eq!(review(Proven::NotOffered("404".into())), [("review", Verdict::Unknown)]);
        let token_review = |answer| verdict(Asked { review: None, token_review: Some(answer) });
        let accepted = |user: &str| Ok(Reviewed::Accepted { user: user.into(), audiences: vec!["a".into()] });
        assert_eq!(token_review(accepted(SUBJECT)), [("tokenReview", Verdict::Good)]);
        assert_eq!(token_review(accepted("somebody else")), [("tokenReview", Verdict::Bad)]);
        assert_eq!(token_review(Ok(Reviewed::Refused("invalid".into()))), [("tokenReview", Verdict::Bad)]);
        assert_eq!(token_review(Err("403".into())), [("tokenReview", Verdict::Unknown)]);
        assert_eq!(verdict(Asked::default()), []);
    }
}
