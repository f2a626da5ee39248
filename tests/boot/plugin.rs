//! A credential plugin in the manner of the clouds' own programs: a script that is slow at first, keeps what it got in
//! its home, and is run by the daemon inside the unit.

use super::system;
use crate::shipped::root;
use crate::support::servers::{cluster, kubeconfig};
use crate::support::until;

/// Asks somebody (who takes his time) once, answers from its cache afterwards, and tries what it has no business to.
const PLUGIN: &str = r#"#!/bin/sh
set -eu
cache=$HOME/.cache/cloud
mkdir -p "$cache"
echo "$HOME" >>"$cache/calls"
if [ ! -s "$cache/token" ]; then
  sleep 3
  umask 077
  cat /etc/tokenferry/cloud-token >"$cache/token.new"
  mv "$cache/token.new" "$cache/token"
fi
if (echo x >/srv/open/plugin) 2>/dev/null; then echo reached >>"$cache/calls"; fi
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s","expirationTimestamp":"%s"}}\n' \
  "$(cat "$cache/token")" "$(date -u -d '+65 seconds' +%FT%TZ)"
"#;

#[test]
fn a_plugin_of_a_cloud_mints_from_its_home_and_lives_inside_the_same_walls() {
    let Some(system) = system() else { return };
    let servers = cluster();
    let kube = servers.kube();
    servers.kubectl(&["apply", "-f", &root().join("examples/rbac.yaml").display().to_string()]);
    let token = servers.kubectl(&["create", "token", "tokenferry", "--namespace", "tokenferry"]);
    system.write("/usr/local/bin/cloud-token", PLUGIN);
    system.write("/etc/tokenferry/cloud-token", token.trim());
    system.write("/etc/tokenferry/ca.crt", &std::fs::read_to_string(&kube.ca).unwrap());
    let user = serde_json::json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "/usr/local/bin/cloud-token", "interactiveMode": "Never",
    }});
    system.write("/etc/tokenferry/prod.kubeconfig", &kubeconfig(&kube.server, "/etc/tokenferry/ca.crt".as_ref(), user));
    system.done(&[
        "sh",
        "-c",
        "chmod 755 /usr/local/bin/cloud-token; chgrp tokenferry /etc/tokenferry/cloud-token; chmod 640 /etc/tokenferry/cloud-token",
    ]);
    system.write(
        "/etc/tokenferry/schedule.yaml",
        "version: 1\nclusters: {prod: {kubeconfig: prod.kubeconfig}}\ntargets: [{name: a, cluster: prod, serviceAccount: cicd/cicd-deployer, duration: 10m, deliver: [{file: {path: /run/tokenferry/a}}]}]\n",
    );
    // The shipped drop-in for plugins; and the walls alone hold the plugin, for ProtectSystem= would do it too.
    system.write(
        "/etc/systemd/system/tokenferry.service.d/plugins.conf",
        &std::fs::read_to_string(root().join("systemd/drop-ins/plugins.conf")).unwrap(),
    );
    system.drop_in("open", "ProtectSystem=no");
    system.done(&["install", "-d", "-o", "tokenferry", "/srv/open"]);
    system.done(&["systemctl", "start", "tokenferry"]);
    until("it is fresh", 60, || system.status()["targets"][0]["state"] == "fresh");
    system.done(&["tokenferry", "rotate", "a"]);
    let calls = system.done(&["cat", "/var/lib/tokenferry/home/.cache/cloud/calls"]);
    assert!(calls.lines().all(|line| line == "/var/lib/tokenferry/home"), "{calls}");
    assert!(!system.run(&["test", "-e", "/srv/open/plugin"]).status.success());
    // No token of the plugin's is anywhere in what the daemon says.
    assert!(!system.journal(&["-I", "-o", "json"]).contains(token.trim().rsplit('.').next().unwrap()));
}
