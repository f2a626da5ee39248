//! The daemon's own credentials: where they stand, what is said when one is about to die, and the way back.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::status::TargetStatus;
use super::step::Standing;
use crate::schedule::{Plan, own};

/// The folder that a records folder stands in: the state of one daemon.
pub fn state(records: &Path) -> &Path {
    records.parent().unwrap_or(records)
}

/// The plan as this host serves it, with the daemon's own credentials among its targets.
pub fn join(plan: Plan, records: &Path) -> Plan {
    own::join(super::fleet::here(plan), state(records))
}

/// Makes the private folder of these credentials, where the plan has any.
pub fn prepare(plan: &Plan, records: &Path) {
    if !plan.targets.iter().any(|target| own::cluster_of(&target.name).is_some()) {
        return;
    }
    let folder = state(records).join("own");
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            tracing::warn!(%error, folder = %folder.display(), "the folder of the daemon's own credentials cannot be made");
        }
        _ => {}
    }
}

/// The command that renews a cluster's credential with a person's own rights, on this host and schedule.
pub fn command(cluster: &str, schedule: &Path) -> String {
    let folder = Path::new("/etc/tokenferry");
    let instance = schedule.strip_prefix(folder).ok().and_then(|name| name.to_str()?.strip_suffix(".yaml")).filter(|n| !n.contains('/'));
    match instance {
        Some("schedule") => format!("tokenferry bootstrap {cluster}"),
        Some(instance) => format!("tokenferry bootstrap {cluster} --instance {instance}"),
        None => format!("tokenferry bootstrap {cluster} --schedule {}", schedule.display()),
    }
}

/// Whether that failure says that a credential is missing or dead: it names the way back.
pub fn is_refused(error: &str) -> bool {
    error.contains("tokenferry bootstrap")
}

/// What a person has to know of the credential now, and do.
pub fn note(row: &TargetStatus, schedule: &Path) -> Option<String> {
    let cluster = own::cluster_of(&row.name)?;
    let when = row.expires_at.map(|at| at.to_string()).unwrap_or_default();
    let refused = row.last_error.as_deref().is_some_and(is_refused);
    let what = match row.state {
        Standing::Expired => format!("it ended at {when}"),
        Standing::Rejected => "the API server refuses it".to_owned(),
        Standing::AtRisk => format!("it was not renewed for half of its life and ends at {when}"),
        _ if refused => "it is missing, or the API server refuses it".to_owned(),
        _ => return None,
    };
    Some(format!("the daemon's own credential for cluster {cluster}: {what}; renew it with `{}`", command(cluster, schedule)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_what_is_not_the_default() {
        let shown = |schedule: &str| command("prod", Path::new(schedule));
        assert_eq!(shown("/etc/tokenferry/schedule.yaml"), "tokenferry bootstrap prod");
        assert_eq!(shown("/etc/tokenferry/two.yaml"), "tokenferry bootstrap prod --instance two");
        assert_eq!(shown("/home/me/s.yaml"), "tokenferry bootstrap prod --schedule /home/me/s.yaml");
    }

    fn row(name: &str, state: Standing, last_error: Option<&str>) -> TargetStatus {
        TargetStatus {
            name: name.into(),
            labels: std::collections::BTreeMap::new(),
            cluster: "prod".into(),
            service_account: "tokenferry/tokenferry".into(),
            state,
            generation: 1,
            jti: None,
            issued_at: None,
            expires_at: Some(jiff::Timestamp::from_second(1_000_000).unwrap()),
            proven_at: None,
            next_rotation: None,
            last_rotation: None,
            last_error: last_error.map(Into::into),
            failures: 0,
            owner: None,
            sinks: Vec::new(),
            hooks: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_credential_that_is_about_to_die_or_has_died_is_told_with_the_way_back_and_no_other_target_is() {
        let schedule = Path::new("/etc/tokenferry/schedule.yaml");
        for (state, words) in [
            (Standing::AtRisk, "not renewed for half of its life and ends at 1970-01-12T13:46:40Z"),
            (Standing::Expired, "it ended at 1970-01-12T13:46:40Z"),
            (Standing::Rejected, "the API server refuses it"),
        ] {
            let said = note(&row("own/prod", state, None), schedule).unwrap();
            assert!(said.contains(words) && said.ends_with("renew it with `tokenferry bootstrap prod`"), "{said}");
            assert_eq!(note(&row("ci", state, None), schedule), None);
        }
        assert_eq!(note(&row("own/prod", Standing::Fresh, None), schedule), None);
        assert_eq!(note(&row("own/prod", Standing::Retrying, Some("503: the API server cannot serve now")), schedule), None);
    }
}
