//! The least rights as objects to be applied one by one.

use serde_json::json;

use super::Needs;
use crate::cluster::object::Object;

/// The group of Roles and bindings.
const GROUP: &str = "rbac.authorization.k8s.io";

impl Needs {
    /// Roles, bindings, and bindings of ClusterRoles that come with Kubernetes, for that ServiceAccount.
    pub fn objects(&self, name: &str, namespace: &str, account: &str) -> Vec<Object> {
        let subject = json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
        let mut objects = Vec::new();
        for (namespace, rules) in &self.rules {
            let mut granted = Vec::new();
            for ((group, resource, verbs), names) in rules {
                let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
                if !names.contains(&None) {
                    rule["resourceNames"] = names.iter().flatten().cloned().collect();
                }
                granted.push(rule);
            }
            objects.push(Object::rbac("Role", "roles", Some(namespace), name, json!({"rules": granted})));
            let role = json!({"apiGroup": GROUP, "kind": "Role", "name": name});
            objects.push(Object::rbac("RoleBinding", "rolebindings", Some(namespace), name, json!({"roleRef": role, "subjects": subject})));
        }
        for role in &self.cluster_roles {
            let whole = format!("{name}-{}", role.rsplit(':').next().unwrap_or(role));
            let role = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
            let fields = json!({"roleRef": role, "subjects": subject});
            objects.push(Object::rbac("ClusterRoleBinding", "clusterrolebindings", None, &whole, fields));
        }
        objects
    }
}
