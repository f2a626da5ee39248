//! How far a rollout is, judged as `kubectl rollout status` judges it.

use super::workload::Found;

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Every Pod is new and available.
    Done,
    /// Not yet, and why.
    Under(String),
    /// The cluster itself has given it up.
    Stalled(String),
}

impl Found {
    fn unseen(&self) -> Option<Progress> {
        let unseen = self.status.observed_generation < self.metadata.generation;
        unseen.then(|| Progress::Under("its controller has not seen the change yet".into()))
    }

    pub fn deployment(&self) -> Progress {
        if let Some(unseen) = self.unseen() {
            return unseen;
        }
        let (status, wanted) = (&self.status, self.spec.replicas.unwrap_or(1));
        let stalled = status.conditions.iter().find(|c| c.kind == "Progressing" && c.reason == "ProgressDeadlineExceeded");
        if let Some(condition) = stalled.filter(|c| c.status != "True") {
            return Progress::Stalled(format!(
                "{} of {wanted} Pods are new, {} available ({})",
                status.updated_replicas, status.available_replicas, condition.message
            ));
        }
        if status.updated_replicas < wanted {
            return Progress::Under(format!("{} of {wanted} Pods are new", status.updated_replicas));
        }
        if status.replicas > status.updated_replicas {
            return Progress::Under(format!("{} old Pods are left", status.replicas - status.updated_replicas));
        }
        if status.available_replicas < status.updated_replicas {
            return Progress::Under(format!("{} of {wanted} new Pods are available", status.available_replicas));
        }
        Progress::Done
    }

    pub fn stateful_set(&self) -> Progress {
        if let Some(unseen) = self.unseen() {
            return unseen;
        }
        let (status, wanted) = (&self.status, self.spec.replicas.unwrap_or(1));
        if status.ready_replicas < wanted {
            return Progress::Under(format!("{} of {wanted} Pods are ready", status.ready_replicas));
        }
        let kept = self.partition();
        if kept > 0 {
            // Pods below the partition stay old on purpose.
            let new = (wanted - kept).max(0);
            if status.updated_replicas < new {
                return Progress::Under(format!("{} of {new} Pods are new", status.updated_replicas));
            }
            return Progress::Done;
        }
        if status.update_revision != status.current_revision {
            return Progress::Under(format!("{} of {wanted} Pods are new", status.updated_replicas));
        }
        Progress::Done
    }

    pub fn daemon_set(&self) -> Progress {
        if let Some(unseen) = self.unseen() {
            return unseen;
        }
        let (status, wanted) = (&self.status, self.status.desired_number_scheduled);
        if status.updated_number_scheduled < wanted {
            return Progress::Under(format!("{} of {wanted} Pods are new", status.updated_number_scheduled));
        }
        if status.number_available < wanted {
            return Progress::Under(format!("{} of {wanted} new Pods are available", status.number_available));
        }
        Progress::Done
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(spec: Value, status: Value) -> Found {
        let mut spec = spec;
        spec["template"] = json!({});
        serde_json::from_value(json!({"metadata": {"resourceVersion": "1", "generation": 2}, "spec": spec, "status": status})).unwrap()
    }

    fn under(progress: &Progress) -> bool {
        matches!(progress, Progress::Under(_))
    }

    #[test]
    fn a_deployment_is_done_when_all_pods_are_new_and_available_and_no_old_one_is_left() {
        let status = |updated: i64, replicas: i64, available: i64| json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": replicas, "availableReplicas": available});
        let of = |status| found(json!({"replicas": 3}), status).deployment();
        assert!(under(&of(json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}))));
        assert!(under(&of(status(2, 3, 3))));
        assert!(under(&of(status(3, 4, 3))));
        assert!(under(&of(status(3, 3, 2))));
        assert_eq!(of(status(3, 3, 3)), Progress::Done);
        assert_eq!(found(json!({"replicas": 0}), json!({"observedGeneration": 2})).deployment(), Progress::Done);
    }

    #[test]
    fn a_deployment_past_its_progress_deadline_stalls() {
        let condition = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]);
        let stalled = found(json!({"replicas": 1}), json!({"observedGeneration": 2, "conditions": condition})).deployment();
        assert!(matches!(stalled, Progress::Stalled(why) if why.contains("timed out")));
    }

    #[test]
    fn a_stateful_set_is_done_when_it_is_ready_at_the_new_revision() {
        let of = |spec: Value, ready: i64, updated: i64, current: &str| {
            let status = json!({"observedGeneration": 2, "readyReplicas": ready, "updatedReplicas": updated, "currentRevision": current, "updateRevision": "b"});
            found(spec, status).stateful_set()
        };
        assert!(under(&of(json!({"replicas": 2}), 2, 1, "a")));
        assert!(under(&of(json!({"replicas": 2}), 1, 2, "b")));
        assert_eq!(of(json!({"replicas": 2}), 2, 2, "b"), Progress::Done);
        let partition = json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        assert!(under(&of(partition.clone(), 3, 0, "a")));
        assert_eq!(of(partition, 3, 1, "a"), Progress::Done);
    }

    #[test]
    fn a_daemon_set_is_done_when_every_node_has_a_new_available_pod() {
        let of = |updated: i64, available: i64| {
            let status = json!({"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": available});
            found(json!({}), status).daemon_set()
        };
        assert!(under(&of(1, 2)) && under(&of(2, 1)));
        assert_eq!(of(2, 2), Progress::Done);
    }
}
