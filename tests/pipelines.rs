//! The lines of examples/ci run as a CI system runs them, against a real API server, with the real kubectl.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::shipped::{bare, root};
use crate::support::daemon::{Done, Host, PROGRAM, finish};
use crate::support::servers::cluster;

const AUDIENCE: &str = "https://kubernetes.example.com";

fn example(name: &str) -> String {
    std::fs::read_to_string(root().join("examples/ci").join(name)).unwrap()
}

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&example(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A checkout with what the page says belongs into it, and an account that plays the job.
struct Project {
    host: Host,
    account: String,
    object: String,
}

impl Project {
    fn new(name: &str) -> Self {
        let servers = cluster();
        let kube = servers.kube();
        let host = Host::new("targets: []");
        std::fs::create_dir(host.path("ci")).unwrap();
        let kubeconfig = example("kubeconfig").replace("https://kubernetes.example.com:6443", &kube.server);
        host.write("ci/kubeconfig", &kubeconfig);
        std::fs::copy(&kube.ca, host.path("ci/ca.crt")).unwrap();
        let object = format!("deployed-by-{name}-{}", std::process::id());
        host.write("deploy.yaml", &format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {object}}}, data: {{by: {name}}}}}\n"));
        let account = format!("job-{name}-{}", std::process::id());
        servers.kubectl(&["create", "serviceaccount", &account, "-n", "cicd"]);
        servers.kubectl(&["apply", "-f", &root().join("examples/ci/rbac.yaml").display().to_string()]);
        // The server of the tests trusts no CI system: an account stands for the job, with the rights of the example.
        let subject = format!("--serviceaccount=cicd:{account}");
        servers.kubectl(&["create", "rolebinding", &account, "-n", "cicd", "--role=ci-job", &subject]);
        let (role, deployer) = (format!("{object}-role"), "--serviceaccount=cicd:cicd-deployer");
        servers.kubectl(&["create", "role", &role, "-n", "cicd", "--verb=get,create,patch", "--resource=configmaps"]);
        servers.kubectl(&["create", "rolebinding", &role, "-n", "cicd", &format!("--role={role}"), deployer]);
        Self { host, account, object }
    }

    fn identity(&self) -> String {
        cluster().kubectl(&["create", "token", &self.account, "-n", "cicd"]).trim().to_owned()
    }

    /// Runs lines of a job in the checkout.
    fn run(&self, shell: &[&str], script: &str, variables: &[(&str, &str)]) -> Done {
        let path = format!(
            "{}:{}:{}",
            Path::new(PROGRAM).parent().unwrap().display(),
            cluster().kube().kubectl.parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let file = self.host.write("script", script);
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
        assert_eq!(left.len(), 2, "more than kubeconfig and ca.crt is left: {left:?}");
    }
}

#[test]
fn the_job_for_gitlab_deploys_with_a_token_of_its_own() {
    let (project, file) = (Project::new("gitlab"), yaml("gitlab-ci.yml"));
    let job = &file["deploy"];
    let lines = |key: &str| {
        let list = job[key].as_array().unwrap_or_else(|| panic!("no {key}"));
        list.iter().map(|line| line.as_str().expect("a line of shell").to_owned()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(job["id_tokens"]["KUBE_ID_TOKEN"]["aud"], AUDIENCE);
    let token = project.identity();
    let variables = [("KUBE_ID_TOKEN", token.as_str())];
    // As the runner does: one shell for the script, another one for what comes after it.
    let done = project.run(&["bash"], &format!("set -eo pipefail\n{}", lines("script")), &variables);
    let after = project.run(&["bash"], &format!("set -eo pipefail\n{}", lines("after_script")), &variables);
    assert_eq!(after.code, Some(0), "{after:?}");
    project.assert_deployed(&done, &token);
}

/// Plays the runner's token endpoint: one request with the right header and audience gets the token.
fn token_endpoint(token: &str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token?api-version=2", listener.local_addr().unwrap());
    let body = serde_json::json!({"count": 1, "value": token}).to_string();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        head.join("\n")
    });
    (url, served)
}

#[test]
fn the_workflow_for_github_deploys_with_a_token_of_its_own() {
    let (project, file) = (Project::new("github"), yaml("github-actions.yml"));
    assert_eq!(file["permissions"]["id-token"], "write");
    let steps = file["jobs"]["deploy"]["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["run"].is_string()).expect("a step that runs something");
    assert_eq!(step["shell"], "bash");
    let token = project.identity();
    let (url, served) = token_endpoint(&token);
    let variables = [("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-run")];
    let shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail"];
    let done = project.run(&shell, step["run"].as_str().unwrap(), &variables);
    let asked = served.join().unwrap();
    assert!(asked.starts_with(&format!("GET /token?api-version=2&audience={AUDIENCE} ")), "{asked}");
    assert!(asked.lines().any(|line| line == "Authorization: Bearer of-the-run"), "{asked}");
    project.assert_deployed(&done, &token);
}

#[test]
fn a_job_that_may_not_is_told_and_fails() {
    let project = Project::new("refused");
    let script = yaml("gitlab-ci.yml")["deploy"]["script"][1].as_str().unwrap().replace("cicd/cicd-deployer", "cicd/builder");
    project.host.write("ci/id-token", &project.identity());
    let done = project.run(&["bash"], &script, &[]);
    assert_eq!(done.code, Some(125), "{done:?}");
    assert!(done.stderr.contains("grant `create` on `serviceaccounts/token` with resourceNames [builder]"), "{done:?}");
}
