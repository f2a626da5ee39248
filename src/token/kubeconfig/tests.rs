use proptest::prelude::*;

use super::*;

const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";

fn entries() -> Entries {
    Entries {
        cluster: "prod".into(),
        server: "https://api.example.com:6443".into(),
        ca: Some(b"-----BEGIN CERTIFICATE-----\n".to_vec()),
        namespace: "cicd".into(),
        user: "ci".into(),
        context: "ci".into(),
        token: Zeroizing::new(JWT.into()),
    }
}

fn merged(text: &str) -> Result<String, String> {
    match entries().merged(text.as_bytes()) {
        Ok(bytes) => Ok(String::from_utf8(bytes.to_vec()).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

/// Everything that stood there before still stands there, in order, but for the values that are ours.
fn keeps_all_lines(before: &str, after: &str) {
    let mut lines = after.lines();
    for line in before.lines() {
        assert!(lines.any(|found| found == line), "lost `{line}`:\n{after}");
    }
}

const FOREIGN: &str = "# mine, by hand
apiVersion: v1
kind: Config
preferences: {colors: true}   # yes
clusters:
# the big one
- cluster:
    server: https://other:6443   # do not touch
    certificate-authority-data: LS0t
  name: other

contexts:
  - name: other
    context:
      cluster: other
      user: \"o t h e r\"
# which one
current-context: other
users:
- name: 'o t h e r'
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: aws
      args: [eks, get-token]
      interactiveMode: Never
extensions: [] # the end
# really
";

#[test]
fn a_file_of_its_own_is_a_whole_kubeconfig() {
    let whole = entries().whole();
    let expected = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"prod\"\n  cluster:\n    server: \"https://api.example.com:6443\"\n    \
         certificate-authority-data: \"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==\"\ncontexts:\n- name: \"ci\"\n  context:\n    cluster: \"prod\"\n    \
         namespace: \"cicd\"\n    user: \"ci\"\nusers:\n- name: \"ci\"\n  user:\n    token: \"{JWT}\"\ncurrent-context: \"ci\"\n"
    );
    assert_eq!(*whole, expected);
    assert_eq!(tokens(&whole).iter().map(|token| token.as_str()).collect::<Vec<_>>(), [JWT]);
}

#[test]
fn our_entries_are_added_and_everything_else_stays_byte_for_byte() {
    let after = merged(FOREIGN).unwrap();
    keeps_all_lines(FOREIGN, &after);
    assert!(after.contains("  name: other\n- name: \"prod\"\n  cluster:\n"), "{after}");
    assert!(after.contains("\n  - name: \"ci\"\n    context:\n      cluster: \"prod\"\n"), "{after}");
    assert!(after.contains("\n# which one\ncurrent-context: other\n"), "the current context is not ours to choose:\n{after}");
    assert_eq!(after.len() - FOREIGN.len(), after.matches('\n').count().abs_diff(FOREIGN.matches('\n').count()) + added(FOREIGN, &after));
}

/// Bytes, ends of lines apart, that lines put in have.
fn added(before: &str, after: &str) -> usize {
    let mut old = before.lines().peekable();
    after.lines().filter(|line| if old.peek() == Some(line) { old.next().is_none() } else { true }).map(str::len).sum()
}

#[test]
fn a_second_merge_of_the_same_changes_nothing_and_of_a_new_token_only_the_token() {
    let once = merged(FOREIGN).unwrap();
    assert_eq!(merged(&once).unwrap(), once);
    let newer = Entries { token: Zeroizing::new(format!("{JWT}2")), ..entries() };
    let again = String::from_utf8(newer.merged(once.as_bytes()).unwrap().to_vec()).unwrap();
    assert_eq!(again, once.replace(&format!("\"{JWT}\""), &format!("\"{JWT}2\"")));
}

#[test]
fn an_entry_of_ours_keeps_what_somebody_added_to_it() {
    let text = "kind: Config\nclusters:\n- {name: prod, cluster: {server: \"https://old\", proxy-url: http://p}} # flow\ncontexts:\n- context:\n    # mine\n    user: ci\n    extensions: [x]\n  name: ci\ncurrent-context: \"\"\nusers:\n- name: ci\n  user: {}\n";
    let after = merged(text).unwrap();
    assert!(after.contains("- {name: prod, cluster: {\"certificate-authority-data\": \"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==\", server: \"https://api.example.com:6443\", proxy-url: http://p}} # flow\n"), "{after}");
    assert!(after.contains("    # mine\n") && after.contains("    extensions: [x]\n") && after.contains("    user: ci\n"), "{after}");
    assert!(after.contains(&format!("  user: {{\"token\": \"{JWT}\"}}\n")) && after.contains("current-context: \"ci\"\n"), "{after}");
}

#[test]
fn kubeconfigs_of_every_style_are_merged_into() {
    for text in [
        "",
        "# only a comment",
        "apiVersion: v1\nkind: Config\n",
        "apiVersion: v1\nkind: Config",
        "apiVersion: v1\nclusters: null\ncontexts: []\nusers: ~\ncurrent-context:\nkind: Config\npreferences: {}\n",
        "clusters:\ncontexts:\nusers:\n",
        "apiVersion: v1\r\nkind: Config\r\nusers:\r\n- name: x\r\n  user:\r\n    token: t\r\n",
        "{\"apiVersion\": \"v1\", \"kind\": \"Config\", \"users\": [{\"name\": \"x\", \"user\": {\"token\": \"t\"}}], \"contexts\": [ ]}",
        "---\napiVersion: v1\nusers:\n  -\n    name: x\n    user:\n      client-key-data: |\n        a\n        # no comment\n...\n",
        "{}",
        "  apiVersion: v1\n  users:\n  - name: \"x\"\n    user: {token: t}\n",
        "users:\n- name: ä\n  user:\n    token: >-\n      folded\n      text\n# end\n",
    ] {
        let after = merged(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        let read = tokens(&after);
        assert!(read.iter().any(|token| token.as_str() == JWT), "{after}");
        assert_eq!(merged(&after).as_deref(), Ok(&*after), "{text}");
        assert_eq!(after.matches("\r\n").count(), if text.contains('\r') { after.matches('\n').count() } else { 0 }, "{after}");
    }
}

#[test]
fn what_cannot_be_merged_into_is_said_and_never_quoted() {
    for (text, said) in [
        ("a: [s3cret\n", "its YAML is broken"),
        ("a: s3cret: b\n", "its YAML is broken at line 1"),
        ("- s3cret\n", "no kubeconfig"),
        ("kind: Secret\ndata: s3cret\n", "no kubeconfig"),
        ("a: 1\n---\nb: s3cret\n", "its YAML is broken"),
        ("users: &u [{name: x, user: {token: s3cret}}]\nmine: *u\nclusters: s3cret\n", "clusters"),
        ("users:\n- {name: ci, user: *nowhere}\n", "its YAML is broken"),
        ("x: &x {token: s3cret}\nusers:\n- {name: ci, user: *x}\n", "`ci` under `users`"),
        ("users:\n- {name: ci, login: s3cret}\n", "no `user`"),
        ("clusters:\n- {name: prod, cluster: {insecure-skip-tls-verify: true}}\n", "insecure-skip-tls-verify"),
        ("users:\n- {name: ci, user: {token: {s3cret: 1}}}\n", "`ci` under `users`"),
    ] {
        let error = merged(text).expect_err(text);
        assert!(error.contains(said) && !error.contains("s3cret"), "{error}");
    }
    assert!(entries().merged(b"\xff").unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn the_current_users_token_comes_first() {
    let text = "current-context: two\ncontexts: [{name: two, context: {user: b}}]\nusers: [{name: a, user: {token: t-a}}, {name: b, user: {token: t-b}}, {name: c}]\n";
    assert_eq!(tokens(text).iter().map(|token| token.as_str()).collect::<Vec<_>>(), ["t-b", "t-a"]);
    assert!(tokens("users: [").is_empty() && tokens("x").is_empty());
}

proptest! {
    #[test]
    fn whatever_stands_there_a_merge_loses_nothing_or_says_why(
        comments in proptest::collection::vec("[a-z: {\\[]{0,12}", 6), indent in 0usize..3, current: bool, blank: bool, end: bool,
    ) {
        let pad = " ".repeat(indent);
        let mut text = format!(
            "# {c0}\nclusters: # {c1}\n{pad}- name: x\n{pad}  cluster: {{server: s}} # {c2}\n{c3}users:\n{pad}# {c4}\n{pad}- name: x\n{pad}  user:\n{pad}    token: t # {c5}",
            c0 = comments[0], c1 = comments[1], c2 = comments[2], c3 = if blank { format!("\n# {}\n\n", comments[3]) } else { String::new() },
            c4 = comments[4], c5 = comments[5],
        );
        if current { text.push_str("\ncurrent-context: x") }
        if end { text.push_str("\n\n# the end\n") }
        let after = merged(&text).map_err(TestCaseError::fail)?;
        let mut lines = after.lines();
        for line in text.lines() {
            prop_assert!(lines.any(|found| found == line), "lost `{line}`:\n{after}");
        }
        prop_assert!(tokens(&after).iter().any(|token| token.as_str() == JWT));
    }

    #[test]
    fn no_text_breaks_the_editor(text in "[-:{}\\[\\]&*#|>'\"~ \r\n\tun:sercltx0-9ä]{0,80}") {
        let _ = merged(&text);
    }

    #[test]
    fn no_kubeconfig_with_bytes_exchanged_breaks_the_editor(at in 0usize..600, with in "[-:{}\\[\\]&*#|>'\" \n]{0,3}", length in 0usize..8) {
        let mut text = FOREIGN.to_owned();
        let at = at.min(text.len());
        text.replace_range(at..(at + length).min(text.len()), &with);
        if let Ok(after) = merged(&text) {
            prop_assert!(tokens(&after).iter().any(|token| token.as_str() == JWT), "{after}");
        }
    }
}
