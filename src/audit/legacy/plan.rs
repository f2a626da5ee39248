//! What is to be done about each find, in which order, with the command for each step. Pure.

use serde::Serialize;

use super::stage::{self, Stage};
use super::{Bound, Find, Kind, Whereabouts};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `callers`, `replace`, `detach`, `disable`, `observe`, `restore`, `delete`, `end`.
    pub step: &'static str,
    /// What and why.
    pub what: String,
    /// What does it.
    pub command: Option<String>,
    /// Whether it is done already.
    pub done: bool,
}

fn todo(step: &'static str, what: impl Into<String>, command: Option<String>) -> Step {
    Step { step, what: what.into(), command, done: false }
}

/// The steps for one find. `observe`: days as a person writes them, such as `7d`.
pub fn steps(find: &Find, stage: Stage, observe: &str) -> Vec<Step> {
    if find.account_is == Whereabouts::Gone || find.account_is == Whereabouts::Another {
        return vec![elsewhere(find)];
    }
    let mut steps = vec![callers(find, stage), replace(find)];
    match find.kind {
        Kind::TokenSecret => {
            steps.extend(detach(find));
            steps.extend(ending(find, stage, observe));
        }
        Kind::Copy => steps.push(copied(find)),
        Kind::Endless | Kind::Long => steps.push(bound(find)),
    }
    steps
}

/// A token that this cluster does not accept.
fn elsewhere(find: &Find) -> Step {
    let account = find.account.as_ref().map(ToString::to_string).unwrap_or_default();
    let what = match (find.kind, find.account_is) {
        (Kind::TokenSecret, _) => format!("the account {account} that it was made for is gone, so the token is refused: delete the Secret"),
        (_, Whereabouts::Another) => format!(
            "the account {account} has another UID here: the token is of another cluster (look there), or of an account that was made anew and is refused"
        ),
        _ => format!("there is no account {account} here: the token is of another cluster (look there), or is refused"),
    };
    todo("end", what, None)
}

fn callers(find: &Find, stage: Stage) -> Step {
    let place = format!("{}/{}", find.namespace, find.secret);
    if !find.uses.is_empty() {
        let outside = find.uses.iter().filter(|one| one.pod.is_none()).count();
        let what = format!("{} callers in the audit log, {outside} of them from outside the cluster's pods", find.uses.len());
        return Step { done: true, ..todo("callers", what, None) };
    }
    let last = match (&find.last_used, &find.used_before, find.kind) {
        (_, _, Kind::Endless | Kind::Long) => "the cluster notes no use of such a token".to_owned(),
        (_, _, Kind::Copy) => "see the Secret that it was copied from".to_owned(),
        (Some(day), ..) => format!("last used on {day}"),
        (None, Some(day), _) => format!("last used on {day}, before it was disabled"),
        (None, None, _) => "no use was noted".to_owned(),
    };
    let command = format!("tokenferry legacy plan {place} --audit-log /var/log/kubernetes/audit.log");
    let done = matches!(stage, Stage::Quiet { .. });
    Step { done, ..todo("callers", format!("find out who uses it, and from where: {last}"), Some(command)) }
}

fn replace(find: &Find) -> Step {
    let place = format!("{}/{}", find.namespace, find.secret);
    let inside: Vec<String> = find.live().map(ToString::to_string).collect();
    let what = match find.kind {
        Kind::TokenSecret if inside.is_empty() => "give whoever uses it outside the cluster a token that is kept fresh".to_owned(),
        Kind::TokenSecret => "give whoever uses it a token that is kept fresh; a pod needs none of ours: the kubelet keeps one fresh in a projected volume (serviceAccountToken)".to_owned(),
        _ => "let a target keep this Secret fresh, in its place and format".to_owned(),
    };
    todo("replace", what, Some(format!("tokenferry legacy migrate {place} --write targets.d/{}.yaml", find.secret)))
}

fn detach(find: &Find) -> Option<Step> {
    let names: Vec<String> = find.live().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| todo("detach", format!("take it out of {}", names.join(", ")), None))
}

fn ending(find: &Find, stage: Stage, observe: &str) -> Vec<Step> {
    let place = format!("{}/{}", find.namespace, find.secret);
    let disabled = stage != Stage::Live;
    let since = match stage {
        Stage::Observed { since, .. } | Stage::Missed { since } | Stage::Quiet { since } => format!(", since {since}"),
        _ => String::new(),
    };
    let mut steps = vec![Step {
        done: disabled,
        ..todo(
            "disable",
            format!("mark it invalid{since}: the API server refuses it within 10 s; reversible"),
            (!disabled).then(|| format!("tokenferry legacy disable {place} --apply")),
        )
    }];
    let watch = match stage {
        Stage::Quiet { .. } => Step { done: true, ..todo("observe", format!("nobody used it for {observe} or longer"), None) },
        Stage::Observed { until, .. } => todo("observe", format!("watch until {until} whether anybody misses it"), None),
        Stage::Missed { .. } => todo(
            "observe",
            "somebody used it after it was disabled: replace his, or take it back; disable it again to count anew",
            Some(format!("tokenferry legacy restore {place} --apply")),
        ),
        _ => todo(
            "observe",
            format!("watch for {observe} whether anybody misses it; the way back is one command"),
            Some(format!("tokenferry legacy restore {place} --apply")),
        ),
    };
    steps.push(watch);
    let command = format!("tokenferry legacy delete {place} --backup {}.age --backup-recipient age1… --apply", find.secret);
    steps.push(todo(
        "delete",
        "delete it; the encrypted backup brings it back: tokenferry legacy restore FILE --identity KEY --apply",
        Some(command),
    ));
    if find.auto_generated {
        steps.push(Step {
            done: true,
            ..todo("end", "the cluster made it itself and ends it itself, once it was unused for a year and marked for another", None)
        });
    }
    steps
}

fn copied(find: &Find) -> Step {
    let Some(of) = &find.copy_of else { return todo("end", "it ends with the Secret that it was copied from", None) };
    todo(
        "end",
        format!("it ends with the Secret {of}, and this copy is then of no use: delete it, unless a target took it over"),
        Some(format!("tokenferry legacy plan {of}")),
    )
}

fn bound(find: &Find) -> Step {
    let until = find.expires_at.map_or_else(|| "never by itself".to_owned(), |end| format!("at {end}"));
    let account = find.account.as_ref().map(ToString::to_string).unwrap_or_default();
    match &find.bound_to {
        Some(Bound { kind, name }) => {
            let namespace = find.account.as_ref().map(|account| account.namespace.clone()).unwrap_or_default();
            let within = if *kind == "node" { String::new() } else { format!(" -n {namespace}") };
            todo(
                "end",
                format!("it ends with the {kind} {name} that it is bound to, and else {until}"),
                Some(format!("kubectl delete {kind} {name}{within}")),
            )
        }
        None => todo(
            "end",
            format!(
                "it is bound to nothing: it ends {until}, or when the account {account} is deleted (made anew, it has another UID), which ends all its tokens"
            ),
            None,
        ),
    }
}

/// Stage and steps of every find, for machines.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned<'f> {
    /// What it is about.
    #[serde(flatten)]
    pub find: &'f Find,
    /// How far it is.
    #[serde(flatten)]
    pub stage: Stage,
    /// What keeps it from being deleted now.
    pub against_deleting: Vec<String>,
    /// What is to be done.
    pub steps: Vec<Step>,
}

/// Plans one find.
pub fn planned<'f>(find: &'f Find, now: jiff::Timestamp, observe: (i64, &str)) -> Planned<'f> {
    let at = stage::stage(find, now, observe.0);
    let against_deleting = if find.kind == Kind::TokenSecret { stage::against_deleting(find, at, false) } else { Vec::new() };
    Planned { find, stage: at, against_deleting, steps: steps(find, at, observe.1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::legacy::{How, Name, Reference};

    fn find(kind: Kind) -> Find {
        let account = Some(Name { namespace: "ci".into(), name: "bot".into() });
        Find { account, account_is: Whereabouts::Here, ..Find::at("ci", "old", kind) }
    }

    fn open(find: &Find) -> Vec<&'static str> {
        let now = "2026-12-01T00:00:00Z".parse().unwrap();
        planned(find, now, (86_400, "1d")).steps.iter().filter(|step| !step.done).map(|step| step.step).collect()
    }

    #[test]
    fn a_live_token_is_replaced_detached_disabled_observed_and_deleted_in_that_order() {
        let reference = Reference { kind: "Pod".into(), name: "p".into(), how: How::Volume, count: 1, past: false };
        let live = Find { references: vec![reference], ..find(Kind::TokenSecret) };
        assert_eq!(open(&live), ["callers", "replace", "detach", "disable", "observe", "delete"]);
        let disabled =
            |at: &str| Find { invalid_since: Some(at[..10].to_owned()), disabled_at: Some(at.parse().unwrap()), ..find(Kind::TokenSecret) };
        assert_eq!(open(&disabled("2026-11-30T12:00:00Z")), ["callers", "replace", "observe", "delete"]);
        assert_eq!(open(&disabled("2026-11-29T12:00:00Z")), ["replace", "delete"]);
    }

    #[test]
    fn other_finds_say_what_ends_them() {
        let copy = Find { copy_of: Some(Name { namespace: "apps".into(), name: "src".into() }), ..find(Kind::Copy) };
        let end = |find: &Find| steps(find, Stage::Elsewhere, "7d").pop().unwrap();
        assert!(end(&copy).what.contains("Secret apps/src"), "{:?}", end(&copy));
        let year = Find { expires_at: Some("2027-01-01T00:00:00Z".parse().unwrap()), ..find(Kind::Long) };
        assert!(end(&year).what.contains("2027-01-01") && end(&year).what.contains("ci/bot"), "{:?}", end(&year));
        let bound = Find { bound_to: Some(Bound { kind: "secret", name: "marker".into() }), ..year };
        assert_eq!(end(&bound).command.as_deref(), Some("kubectl delete secret marker -n ci"));
        let away = Find { account_is: Whereabouts::Another, ..find(Kind::Long) };
        assert_eq!(open(&away), ["end"]);
        assert!(steps(&away, Stage::Elsewhere, "7d")[0].what.contains("another cluster"));
    }
}
