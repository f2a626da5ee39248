//! The lines of examples/ci run as a CI system runs them, against a real API server that trusts a CI system of the tests
//! as the page says, with the real kubectl and the rights of the example alone.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::shipped::{bare, root};
use crate::support::daemon::{Done, Host, PROGRAM, finish};
use crate::support::issuer::{AUDIENCE, Endpoint, System, issuers};
use crate::support::servers::cluster;

fn example(name: &str) -> String {
    std::fs::read_to_string(root().join("examples/ci").join(name)).unwrap()
}

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&example(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A checkout with what the page says belongs into it.
struct Project {
    host: Host,
    object: String,
}

impl Project {
    fn new(name: &str) -> Self {
        let servers = cluster();
        let host = Host::new("targets: []");
        std::fs::create_dir(host.path("ci")).unwrap();
        std::fs::copy(&servers.kube().ca, host.path("ci/ca.crt")).unwrap();
        let object = format!("deployed-by-{name}-{}", std::process::id());
        host.write("deploy.yaml", &format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {object}}}, data: {{by: {name}}}}}\n"));
        issuers();
        let (role, deployer) = (format!("{object}-role"), "--serviceaccount=cicd:cicd-deployer");
        servers.kubectl(&["create", "role", &role, "-n", "cicd", "--verb=get,create,patch", "--resource=configmaps"]);
        servers.kubectl(&["create", "rolebinding", &role, "-n", "cicd", &format!("--role={role}"), deployer]);
        Self { host, object }
    }

    /// Runs lines of a job in the checkout.
    fn run(&self, shell: &[&str], script: &str, variables: &[(&str, &str)]) -> Done {
        let path = format!(
            "{}:{}:{}",
            Path::new(PROGRAM).parent().unwrap().display(),
            cluster().kube().kubectl.parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let file = self.host.write("script", &script.replace("https://kubernetes.example.com:6443", &cluster().kube().server));
        let mut command = Command::new(shell[0]);
        bare(command.args(&shell[1..]).arg(file)).env("PATH", path).env_remove("KUBECONFIG").current_dir(self.host.path("."));
        command.env("XDG_RUNTIME_DIR", self.host.path("ci")).env("HOME", self.host.path(".")).envs(variables.iter().copied());
        finish(command, Duration::from_secs(120))
    }

    fn assert_deployed(&self, done: &Done, token: &str) {
        assert_eq!(done.code, Some(0), "{done:?}");
        let found = cluster().kubectl(&["get", "configmap", &self.object, "-n", "cicd", "-o", "json", "--show-managed-fields"]);
        assert!(found.contains(&format!("\"{}\"", self.object)), "{found}");
        assert!(done.stderr.contains("the token of cicd/cicd-deployer is removed here"), "{done:?}");
        let all = format!("{}{}", done.stdout, done.stderr);
        assert!(!all.contains(token.rsplit('.').next().unwrap()) && !all.contains("eyJ"), "a token was shown: {all}");
        let left: Vec<_> = std::fs::read_dir(self.host.path("ci")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["ca.crt"], "more than the CA is left");
    }
}

fn gitlab() -> (Value, String) {
    let file = yaml("gitlab-ci.yml");
    let lines = file["deploy"]["script"].as_array().expect("a script");
    let lines: Vec<&str> = lines.iter().map(|line| line.as_str().expect("a line of shell")).collect();
    // As the runner does.
    let script = format!("set -eo pipefail\n{}", lines.join("\n"));
    (file["deploy"].clone(), script)
}

#[test]
fn the_job_for_gitlab_deploys_as_itself_and_no_secret_is_stored_for_it() {
    let (project, (job, script)) = (Project::new("gitlab"), gitlab());
    assert_eq!(job["id_tokens"]["KUBE_ID_TOKEN"]["aud"], AUDIENCE);
    let token = issuers().token(System::GitLab, json!({}));
    let done = project.run(&["bash"], &script, &[("KUBE_ID_TOKEN", token.as_str())]);
    project.assert_deployed(&done, &token);
}

#[test]
fn the_workflow_for_github_deploys_as_itself_and_no_secret_is_stored_for_it() {
    let (project, file) = (Project::new("github"), yaml("github-actions.yml"));
    assert_eq!(file["permissions"]["id-token"], "write");
    let steps = file["jobs"]["deploy"]["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["run"].is_string()).expect("a step that runs something");
    assert_eq!(step["shell"], "bash");
    let token = issuers().token(System::GitHub, json!({}));
    let endpoint = Endpoint::giving(&token);
    let variables = [("ACTIONS_ID_TOKEN_REQUEST_URL", endpoint.url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-run")];
    let shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail"];
    let done = project.run(&shell, step["run"].as_str().unwrap(), &variables);
    let asked = endpoint.asked().first().expect("it asks for its token").clone();
    assert!(asked.starts_with("GET /token?api-version=2.0&audience=https%3A%2F%2Fkubernetes.example.com "), "{asked}");
    assert!(asked.lines().any(|line| line.eq_ignore_ascii_case("authorization: Bearer of-the-run")), "{asked}");
    project.assert_deployed(&done, &token);
}

#[test]
fn a_job_of_another_project_or_branch_is_told_and_fails() {
    let (project, (_, script)) = (Project::new("refused"), gitlab());
    let run = |changes: Value| {
        let token = issuers().token(System::GitLab, changes);
        let done = project.run(&["bash"], &script, &[("KUBE_ID_TOKEN", token.as_str())]);
        assert_eq!(done.code, Some(125), "{done:?}");
        done.stderr
    };
    let told = run(json!({"project_path": "acme/other"}));
    assert!(told.contains("grant `create` on `serviceaccounts/token` with resourceNames [cicd-deployer]"), "{told}");
    let told = run(json!({"ref_protected": "false"}));
    assert!(told.contains("401: the API server refuses the job's token (issuer ") && told.contains("claimValidationRules"), "{told}");
}
