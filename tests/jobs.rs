//! A CI job logs in to a real API server with the identity that its CI system gives it, and nothing is stored.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Done, Host, finish};
use crate::support::issuer::{AUDIENCE, Endpoint, System, answer, issuers, who};
use crate::support::servers::cluster;

fn host() -> Host {
    issuers();
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
    std::fs::create_dir(host.path("run")).unwrap();
    host
}

/// `tokenferry COMMAND … --server … --ca …` with these variables and none of a kubeconfig.
fn job(host: &Host, command: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
    let kube = cluster().kube();
    let ca = kube.ca.display().to_string();
    let mut built: Command = host.command(&[&[command, "cicd/cicd-deployer", "--server", &kube.server, "--ca", &ca], arguments].concat());
    for name in ["KUBECONFIG", "KUBE_ID_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"] {
        built.env_remove(name);
    }
    built.env("XDG_RUNTIME_DIR", host.path("run")).env("HOME", "/nonexistent").envs(variables.iter().copied());
    let done = finish(built, Duration::from_secs(90));
    for (_, secret) in variables.iter().filter(|(name, _)| name.ends_with("TOKEN")) {
        let secret = secret.rsplit('.').next().unwrap();
        assert!(secret.is_empty() || !format!("{}{}", done.stdout, done.stderr).contains(secret), "a secret was shown: {done:?}");
    }
    done
}

fn exec(host: &Host, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
    let arguments = if arguments.contains(&"--") { arguments.to_vec() } else { [arguments, &["--", "true"]].concat() };
    job(host, "exec", &arguments, variables)
}

#[test]
fn a_command_of_a_gitlab_job_has_its_own_token_and_not_what_got_it() {
    let host = host();
    let token = issuers().token(System::GitLab, json!({}));
    let kubectl = cluster().kube().kubectl.display().to_string();
    let script = format!(
        "'{kubectl}' auth whoami -o 'jsonpath={{.status.userInfo.username}}'; echo; env | grep -cE 'KUBE_ID_TOKEN=|eyJ[A-Za-z0-9]{{9}}'; \
         tr '\\0' '\\n' </proc/$PPID/cmdline | grep -cE 'eyJ[A-Za-z0-9]{{9}}'; cat \"$TOKENFERRY_TOKEN_FILE\" >\"$0\""
    );
    let copy = host.path("copy").display().to_string();
    let arguments = ["--oidc", "gitlab", "--audience", AUDIENCE, "--with-kubeconfig", "-vv", "--", "sh", "-c", &script, &copy];
    let done = exec(&host, &arguments, &[("KUBE_ID_TOKEN", &token)]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "system:serviceaccount:cicd:cicd-deployer\n0\n0\n"), "{done:?}");
    assert_eq!(who(&host.read("copy")).as_deref(), Some("system:serviceaccount:cicd:cicd-deployer"));
    // Under another name, and one that is asked for beside it is not taken away.
    let named = ["--oidc", "gitlab:OTHER_ID", "--env", "KUBE_ID_TOKEN", "--", "sh", "-c", "test -n \"$KUBE_ID_TOKEN\" -a -z \"$OTHER_ID\""];
    assert_eq!(exec(&host, &named, &[("OTHER_ID", &token)]).code, Some(0));
}

#[test]
fn a_command_of_a_github_job_does_not_see_what_more_tokens_are_asked_with() {
    let host = host();
    let endpoint = Endpoint::giving(&issuers().token(System::GitHub, json!({})));
    let variables = [("ACTIONS_ID_TOKEN_REQUEST_URL", endpoint.url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer-of-this-run")];
    let script = [
        "--oidc",
        "github",
        "--oidc-audience",
        AUDIENCE,
        "--",
        "sh",
        "-c",
        "test -s \"$TOKENFERRY_TOKEN_FILE\" && env | grep -c ACTIONS_ID",
    ];
    let done = exec(&host, &script, &variables);
    assert_eq!(done.stdout, "0\n", "{done:?}");
}

#[test]
fn mint_takes_the_same_flags_and_a_token_in_a_file() {
    let host = host();
    let file = host.write("job-token", &(issuers().token(System::GitLab, json!({})) + "\n")).display().to_string();
    let from = format!("file:{file}");
    let done = job(&host, "mint", &["--oidc", &from, "--duration", "10m"], &[]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    assert_eq!(who(&done.stdout).as_deref(), Some("system:serviceaccount:cicd:cicd-deployer"));
    // The audience of the minted token is another matter than that of the job's.
    let done =
        job(&host, "mint", &["--oidc", &from, "--oidc-audience", AUDIENCE, "--audience", "https://vault.example.com", "-o", "json"], &[]);
    let minted: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    assert_eq!(minted["spec"]["audiences"], json!(["https://vault.example.com"]));
    // Rights that the job lacks have an exit code of their own, and exec has one for every failure of ours.
    let file = host.write("stranger", &issuers().token(System::GitLab, json!({"project_path": "acme/other"}))).display().to_string();
    let done = job(&host, "mint", &["--oidc", &format!("file:{file}")], &[]);
    assert_eq!(done.code, Some(4), "{done:?}");
    assert_eq!(exec(&host, &["--oidc", &format!("file:{file}")], &[]).code, Some(125));
}

#[test]
fn a_token_that_the_api_server_refuses_is_described() {
    let host = host();
    let now = jiff::Timestamp::now().as_second();
    let refused = |token: &str, flags: &[&str]| {
        let done = exec(&host, &[&["--oidc", "gitlab"], flags].concat(), &[("KUBE_ID_TOKEN", token)]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(125), ""), "{done:?}");
        done.stderr
    };
    let other = issuers().token(System::GitLab, json!({"aud": "https://vault.example.com"}));
    let told = refused(&other, &[]);
    assert!(
        told.contains("401: the API server refuses the job's token (issuer ") && told.contains("audience https://vault.example.com,"),
        "{told}"
    );
    let told = refused(&other, &["--oidc-audience", AUDIENCE]);
    let wanted =
        format!("for https://vault.example.com, and not for {AUDIENCE}: write `id_tokens: {{KUBE_ID_TOKEN: {{aud: {AUDIENCE}}}}}`");
    assert!(told.contains(&wanted), "{told}");
    let told = refused(&issuers().token(System::GitLab, json!({"iat": now - 900, "nbf": now - 900, "exp": now - 300})), &[]);
    assert!(told.contains("refuses the job's token, which ended at 20") && told.contains("`timeout`"), "{told}");
    let told = refused(&issuers().token(System::GitLab, json!({"iss": "https://gitlab.elsewhere.example"})), &[]);
    assert!(told.contains("issuer https://gitlab.elsewhere.example,") && told.contains("AuthenticationConfiguration"), "{told}");
    let told = refused("no-token-at-all", &[]);
    assert!(told.contains("the variable KUBE_ID_TOKEN is no identity token: it is not three parts"), "{told}");
}

#[test]
fn an_issuer_that_is_away_or_signs_with_unknown_keys_is_told_from_nothing_else_by_the_api_server() {
    let host = host();
    let run = |token: &str| exec(&host, &["--oidc", "gitlab"], &[("KUBE_ID_TOKEN", token)]);
    // The API server keeps the keys that it has read: known ones are good while their issuer is away.
    issuers().go_away(true);
    let (known, unknown) = (run(&issuers().token(System::GitLab, json!({}))), run(&issuers().forged(System::GitLab)));
    issuers().go_away(false);
    assert_eq!(known.code, Some(0), "{known:?}");
    assert_eq!(unknown.code, Some(125), "{unknown:?}");
    assert!(unknown.stderr.contains("see its log for whether it reaches the issuer"), "{unknown:?}");
}

#[test]
fn what_github_gives_in_place_of_a_token_is_told_with_the_way_out() {
    let host = host();
    let run = |url: &str| {
        let variables = [("ACTIONS_ID_TOKEN_REQUEST_URL", url), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer-of-this-run")];
        let done = exec(&host, &["--oidc", "github", "--audience", AUDIENCE], &variables);
        assert_eq!((done.code, done.stdout.as_str()), (Some(125), ""), "{done:?}");
        done.stderr
    };
    let nothing = exec(&host, &["--oidc", "github", "--audience", AUDIENCE], &[]);
    assert_eq!(nothing.code, Some(125), "{nothing:?}");
    assert!(nothing.stderr.contains("permissions: {id-token: write}"), "{nothing:?}");
    let nothing = exec(&host, &["--oidc", "gitlab", "--oidc-audience", AUDIENCE], &[("KUBE_ID_TOKEN", "")]);
    assert_eq!(nothing.code, Some(125), "{nothing:?}");
    assert!(nothing.stderr.contains(&format!("`id_tokens: {{KUBE_ID_TOKEN: {{aud: {AUDIENCE}}}}}`")), "{nothing:?}");
    let floods = "x".repeat(1 << 20);
    for (status, body, asked, words) in [
        (403, String::new(), 1, "answers 403: it refuses ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        (302, String::new(), 1, "answers 302"),
        (503, String::new(), 3, "answers 503, several times"),
        (200, "<html>".to_owned(), 1, "no `value` in it"),
        (200, floods, 1, "an answer without end"),
        (200, answer("bearer-in-disguise"), 1, "what GitHub gave is no identity token"),
        (200, answer(&issuers().token(System::GitHub, json!({"aud": "sigstore"}))), 1, "the job's token is for sigstore, and not for"),
    ] {
        let endpoint = Endpoint::new(vec![(status, body)]);
        let told = run(&endpoint.url);
        assert!(told.contains(words) && !told.contains("disguise"), "{status}: {told}");
        // Twice where a killed run of another test left a marker that is looked for first.
        let count = endpoint.asked().len();
        assert!(count == asked || count == 2 * asked, "{status}: {count}");
    }
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = run(&format!("http://{gone}/token?x=1"));
    assert!(told.contains("GitHub gave this job no identity token: 127.0.0.1 does not answer"), "{told}");
}

#[test]
fn a_stumbling_github_and_a_token_that_is_over_are_asked_anew() {
    let host = host();
    let (now, good) = (jiff::Timestamp::now().as_second(), issuers().token(System::GitHub, json!({})));
    let over = issuers().token(System::GitHub, json!({"iat": now - 900, "nbf": now - 900, "exp": now - 300}));
    for first in [(502, String::new()), (200, answer(&over))] {
        let endpoint = Endpoint::new(vec![first, (200, answer(&good))]);
        let variables = [("ACTIONS_ID_TOKEN_REQUEST_URL", endpoint.url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer-of-this-run")];
        let done = exec(&host, &["--oidc", "github", "--audience", AUDIENCE], &variables);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(endpoint.asked().len() >= 2);
    }
}

#[test]
fn flags_that_do_not_go_together_are_bad_usage() {
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
    for (flags, words) in [
        (vec!["a/b", "--server", "https://k"], "--oidc"),
        (vec!["a/b", "--oidc", "gitlab"], "--server"),
        (vec!["a/b", "--server", "http://k", "--oidc", "gitlab"], "over TLS alone"),
        (vec!["a/b", "--server", "https://k", "--oidc", "circle"], "write github, gitlab, gitlab:VARIABLE or file:PATH"),
        (vec!["a/b", "--server", "https://k", "--oidc", "github"], "--oidc github needs --audience"),
        (vec!["a/b", "--server", "https://k", "--oidc", "gitlab", "--audience", "a", "--audience", "b"], "--oidc-audience"),
        (vec!["a/b", "--server", "https://k", "--oidc", "gitlab", "--kubeconfig", "x"], "--kubeconfig"),
        (vec!["b", "--server", "https://k", "--oidc", "gitlab"], "NAMESPACE/b"),
    ] {
        for command in ["mint", "exec"] {
            let tail: &[&str] = if command == "exec" { &["--", "true"] } else { &[] };
            let done = host.run(&[&[command], &flags[..], tail].concat());
            assert_eq!(done.code, Some(2), "{command} {flags:?}: {done:?}");
            assert!(done.stderr.contains(words), "{command} {flags:?}: {done:?}");
        }
    }
    let target = host.run(&["exec", "--target", "x", "--server", "https://k", "--oidc", "gitlab", "--", "true"]);
    assert_eq!(target.code, Some(2), "{target:?}");
}

#[test]
fn a_server_that_the_ca_does_not_vouch_for_gets_no_token() {
    let host = host();
    let other = crate::support::faults::certificates().ca.display().to_string();
    let file = host.write("job-token", &issuers().token(System::GitLab, json!({}))).display().to_string();
    let run = |ca: &str| {
        host.run(&["mint", "cicd/cicd-deployer", "--server", &cluster().kube().server, "--ca", ca, "--oidc", &format!("file:{file}")])
    };
    let done = run(&other);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
    assert!(done.stderr.contains("certificate"), "{done:?}");
    let done = run("/nonexistent/ca.crt");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("/nonexistent/ca.crt"), "{done:?}");
}
