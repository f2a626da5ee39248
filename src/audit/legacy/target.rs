//! The target that replaces a find, as the schedule has it: a list that stands under `targets`, or in a file that
//! `include` names. Pure.

use super::{Find, Form, Kind, Whereabouts};

/// The target that replaces the find, with what there is to do about it in comments. `cluster`: its name in the
/// schedule.
pub fn target(find: &Find, cluster: &str) -> Option<String> {
    let account = find.account.as_ref()?;
    let name = name(&find.namespace, &find.secret, find.key.as_deref());
    let mut text = format!("# Replaces {}.\n", find.place());
    for line in notes(find) {
        text.push_str(&format!("#   {line}\n"));
    }
    text.push_str(&format!("- name: {}\n  cluster: {}\n  serviceAccount: {account}\n", quoted(&name), quoted(cluster)));
    text.push_str("  duration: 1h\n  rotate: {at: 80%}\n");
    if !find.audiences.is_empty() {
        let audiences: Vec<String> = find.audiences.iter().map(|audience| quoted(audience)).collect();
        text.push_str(&format!("  audiences: [{}]\n", audiences.join(", ")));
    }
    text.push_str("  deliver:\n");
    text.push_str(&deliver(find, &name));
    Some(text)
}

/// Where the fresh token goes: back to the same place where that is a Secret of its own, else to a file of this host.
fn deliver(find: &Find, name: &str) -> String {
    let format = match find.form {
        Form::Raw => Some(""),
        Form::Kubeconfig => Some(", format: kubeconfig"),
        Form::DockerConfigJson | Form::Base64 | Form::Text => None,
    };
    match (find.kind, &find.key, format) {
        (Kind::TokenSecret, ..) | (_, None, _) | (_, _, None) => format!("    - file: {{path: /run/tokenferry/{name}/token}}\n"),
        (_, Some(key), Some(format)) => format!(
            "    - kubernetesSecret: {{namespace: {}, name: {}, key: {}, adopt: true{format}}}\n",
            quoted(&find.namespace),
            quoted(&find.secret),
            quoted(key)
        ),
    }
}

fn notes(find: &Find) -> Vec<String> {
    let mut notes = Vec::new();
    match find.account_is {
        Whereabouts::Here => {}
        Whereabouts::Unknown => notes.push("Whether its account is in this cluster could not be asked.".to_owned()),
        Whereabouts::Gone | Whereabouts::Another => {
            notes.push("Its account is not in this cluster, or was made anew: name the cluster that the token is for.".to_owned());
        }
    }
    match find.kind {
        Kind::TokenSecret => {
            notes.push("Instead of the file, or beside it: vault, awsSecretsManager, command (see examples/).".to_owned());
            for reference in find.live() {
                notes.push(format!("{reference} needs no target: mount a projected volume with a serviceAccountToken source."));
            }
        }
        _ if matches!(find.form, Form::Raw | Form::Kubeconfig) => {
            notes.push("`adopt: true` takes the Secret over as it stands; its other keys stay.".to_owned());
        }
        _ => notes.push(format!(
            "The token stands inside another text ({}): write it with `format` (dockerConfigJson, argoCdCluster, template) into a kubernetesSecret.",
            find.key.as_deref().unwrap_or("?")
        )),
    }
    let outside = find.uses.iter().filter(|one| one.pod.is_none()).take(5);
    notes.extend(outside.map(|one| format!("Used from {} by {}.", one.addresses.join(", "), plain(&one.user_agent))));
    notes
}

/// A name that a target may have: lower-case letters, digits, dots and dashes.
fn name(namespace: &str, secret: &str, key: Option<&str>) -> String {
    let key = key.filter(|key| *key != "token").map(|key| format!("-{key}")).unwrap_or_default();
    let text = format!("{namespace}-{secret}{key}").to_ascii_lowercase();
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' }).collect()
}

/// A JSON text is a scalar of YAML too; what needs no quotes has none.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if plain && !matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n") {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// A stranger's text in a comment: one line, nothing that a terminal obeys.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::legacy::Name;

    fn find(kind: Kind, key: Option<&str>, form: Form) -> Find {
        let account = Some(Name { namespace: "ci".into(), name: "bot".into() });
        Find { account, account_is: Whereabouts::Here, key: key.map(str::to_owned), form, ..Find::at("ci", "old.token", kind) }
    }

    #[test]
    fn a_token_secret_becomes_a_target_with_a_file_and_a_secret_is_kept_in_its_place() {
        let text = target(&find(Kind::TokenSecret, None, Form::Raw), "prod").unwrap();
        assert!(text.contains("- name: \"ci-old.token\"\n  cluster: prod\n  serviceAccount: ci/bot\n"), "{text}");
        assert!(text.contains("    - file: {path: /run/tokenferry/ci-old.token/token}\n"), "{text}");
        let text = target(&find(Kind::Long, Some("config"), Form::Kubeconfig), "prod").unwrap();
        assert!(text.contains("name: \"old.token\", key: config, adopt: true, format: kubeconfig}"), "{text}");
        assert!(text.contains("name: \"ci-old.token-config\""), "{text}");
        let text = target(&find(Kind::Copy, Some("x"), Form::Text), "prod").unwrap();
        assert!(text.contains("- file:") && text.contains("inside another text (x)"), "{text}");
        assert_eq!(target(&Find::at("a", "b", Kind::TokenSecret), "prod"), None, "no account, no target");
    }

    #[test]
    fn audiences_are_kept() {
        let find = Find { audiences: vec!["https://vault.example.com".into()], ..find(Kind::Long, Some("token"), Form::Raw) };
        assert!(target(&find, "prod").unwrap().contains("  audiences: [\"https://vault.example.com\"]\n"));
    }

    proptest! {
        #[test]
        fn whatever_a_key_and_an_agent_are_called_the_text_stays_one_target(key in "[-._a-zA-Z0-9]{1,20}", agent in "\\PC{0,20}\n?[a-z]{0,3}") {
            let one = crate::audit::legacy::Use {
                addresses: vec!["192.0.2.1".into()], user_agent: agent, first: jiff::Timestamp::UNIX_EPOCH,
                last: jiff::Timestamp::UNIX_EPOCH, count: 1, refused_since: 0, pod: None, certain: true,
            };
            let find = Find { uses: vec![one], ..find(Kind::Long, Some(&key), Form::Raw) };
            let text = target(&find, "prod").unwrap();
            let read: Vec<serde_json::Value> = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(read[0]["deliver"][0]["kubernetesSecret"]["key"].as_str(), Some(key.as_str()));
        }
    }
}
