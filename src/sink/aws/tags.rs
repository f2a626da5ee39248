//! What AWS is told beside a secret: tags, which say that it is ours, and staging labels of our own, which keep the
//! versions that `keepVersions` keeps (AWS deletes versions without a label by and by).
//!
//! A secret is tagged before its first token is written, or with it where it is created; a tag that is out of date
//! (the expiry) is set after the token, by the next put where a crash came in between.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::error::SdkError;
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::types::Tag;

use super::AwsSpec;
use super::client::Client;
use super::refusal::{self, Verdict};
use crate::sink::manners::{self, is_mark, retirable};
use crate::sink::{Context, FailureKind};

/// Most characters of a tag's value.
const LONGEST: usize = 256;
/// Prefix of our staging labels; the token's `iat` follows.
const LABEL: &str = "TOKENFERRY_";
/// Most of them: a secret has 20 labels in all, of which AWS and [`super::fence`] have some.
const MOST: usize = 15;

/// What AWS says of a secret beside its value.
#[derive(Default)]
pub(super) struct Described {
    pub tags: BTreeMap<String, String>,
    /// Staging labels, with the version that has each.
    labels: BTreeMap<String, String>,
}

impl Described {
    /// The version that has that staging label.
    pub fn version_at(&self, stage: &str) -> Option<&str> {
        self.labels.get(stage).map(String::as_str)
    }
}

/// What we say in the tags of a secret. AWS takes letters, digits, spaces and `_.:/=+-@`.
pub(super) fn marks(context: &Context<'_>) -> BTreeMap<String, String> {
    let taken = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    manners::marks(context, |text| Some(text.chars().map(|c| if taken(c) { c } else { '_' }).take(LONGEST).collect()))
}

/// The staging label of a version that is to be kept.
pub(super) fn label(context: &Context<'_>) -> String {
    format!("{LABEL}{}", context.issued_at)
}

/// Reads it; `None` where there is no secret.
pub(super) async fn describe(client: &Client, spec: &AwsSpec) -> Result<Option<Described>, Verdict> {
    let found = match client.describe_secret().secret_id(&spec.secret_id).send().await {
        Ok(found) => found,
        Err(SdkError::ServiceError(refused)) if refused.err().is_resource_not_found_exception() => return Ok(None),
        Err(error) => {
            return Err(refusal::of(&error, &format!("cannot look at `{}`", spec.secret_id), "secretsmanager:DescribeSecret"));
        }
    };
    let DescribeSecretOutput { tags, version_ids_to_stages, .. } = found;
    let tags = tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())));
    let stages = version_ids_to_stages.unwrap_or_default().into_iter();
    let labels = stages.flat_map(|(version, stages)| stages.into_iter().map(move |stage| (stage, version.clone())));
    Ok(Some(Described { tags: tags.collect(), labels: labels.collect() }))
}

/// As the SDK takes them.
pub(super) fn tags(marks: &BTreeMap<String, String>) -> Vec<Tag> {
    marks.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// Sets our tags.
pub(super) async fn write(client: &Client, spec: &AwsSpec, marks: &BTreeMap<String, String>) -> Result<(), Verdict> {
    let tagged = client.tag_resource().secret_id(&spec.secret_id).set_tags(Some(tags(marks))).send().await;
    let doing = || format!("cannot tag `{}`", spec.secret_id);
    tagged.map(drop).map_err(|error| refusal::of(&error, &doing(), "secretsmanager:TagResource"))
}

/// Takes our tags off.
pub(super) async fn erase(client: &Client, spec: &AwsSpec, found: &Described) -> Result<(), Verdict> {
    let keys: Vec<String> = found.tags.keys().filter(|key| is_mark(key)).cloned().collect();
    if keys.is_empty() {
        return Ok(());
    }
    let untagged = client.untag_resource().secret_id(&spec.secret_id).set_tag_keys(Some(keys)).send().await;
    let doing = || format!("cannot take our tags off `{}`", spec.secret_id);
    untagged.map(drop).map_err(|error| refusal::of(&error, &doing(), "secretsmanager:UntagResource"))
}

/// Takes our labels off the versions that `keepVersions` does not keep, once what replaced them is as old as the
/// overlap. This is done at each delivery and by the times of our tokens, so that nothing need be remembered between.
/// `before` is what AWS said before the put: what has to be kept keeps its label.
pub(super) async fn retire(client: &Client, spec: &AwsSpec, context: &Context<'_>, before: Option<&Described>) {
    let Some(keep) = spec.keep_versions else { return };
    if let Err(verdict) = take_off(client, spec, keep, context, before).await {
        // The token stands there: what is only untidy does not make its delivery fail.
        tracing::warn!(
            target_name = context.target,
            place = spec.secret_id,
            error = verdict.why,
            "old versions stay until the next delivery"
        );
    }
}

async fn take_off(client: &Client, spec: &AwsSpec, keep: u32, context: &Context<'_>, before: Option<&Described>) -> Result<(), Verdict> {
    let Some(mut found) = describe(client, spec).await? else { return Ok(()) };
    // Not every server leaves a version its labels when another one becomes the current one.
    for (label, version) in before.iter().flat_map(|before| &before.labels).filter(|(label, _)| number(label).is_some()) {
        if !found.labels.contains_key(label) {
            add_stage(client, spec, label, version).await?;
            found.labels.insert(label.clone(), version.clone());
        }
    }
    for old in unkept(&found, usize::try_from(keep).unwrap_or(MOST), context) {
        remove_stage(client, spec, &old, &found.labels[&old]).await?;
    }
    Ok(())
}

fn unkept(found: &Described, keep: usize, context: &Context<'_>) -> Vec<String> {
    let labels: Vec<(i64, String)> = found.labels.keys().filter_map(|label| Some((number(label)?, label.clone()))).collect();
    let overlap = i64::try_from(context.manners.overlap.as_secs()).unwrap_or(i64::MAX);
    // AWS itself deletes no version within a day, so one too many may lose its label early.
    let mut old = retirable(&labels, keep, overlap);
    old.extend(retirable(&labels, MOST, 0));
    old.sort();
    old.dedup();
    old
}

/// Gives a version a staging label.
pub(super) async fn add_stage(client: &Client, spec: &AwsSpec, stage: &str, version: &str) -> Result<(), Verdict> {
    let update = client.update_secret_version_stage().secret_id(&spec.secret_id);
    let done = update.version_stage(stage).move_to_version_id(version).send().await;
    let doing = || format!("cannot give a version of `{}` the label {stage}", spec.secret_id);
    done.map(drop).map_err(|error| refusal::of(&error, &doing(), "secretsmanager:UpdateSecretVersionStage"))
}

/// Takes a staging label off a version.
pub(super) async fn remove_stage(client: &Client, spec: &AwsSpec, stage: &str, version: &str) -> Result<(), Verdict> {
    let update = client.update_secret_version_stage().secret_id(&spec.secret_id);
    let done = update.version_stage(stage).remove_from_version_id(version).send().await;
    let doing = || format!("cannot take the label {stage} off a version of `{}`", spec.secret_id);
    done.map(drop).map_err(|error| refusal::of(&error, &doing(), "secretsmanager:UpdateSecretVersionStage"))
}

fn number(label: &str) -> Option<i64> {
    label.strip_prefix(LABEL)?.parse().ok()
}

/// The refusal of a secret that somebody else made.
pub(super) fn not_ours(spec: &AwsSpec, context: &Context<'_>) -> Verdict {
    let what = spec.key.as_ref().map_or_else(|| "it".to_owned(), |key| format!("its field `{key}`"));
    let why = format!(
        "`{}` is there and not ours: it lacks the tag {}={} and {what} holds no token of target {}. Nothing was overwritten: \
         write `adopt: true` beside its `secretId` to take {what} over, or name another secret",
        spec.secret_id,
        manners::MARK.0,
        manners::MARK.1,
        context.target
    );
    Verdict::new(FailureKind::Refused, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_beyond_what_aws_allows_go_even_within_the_overlap() {
        let labels = (100..130).map(|at| (format!("{LABEL}{at}"), "v".to_owned())).collect();
        let found = Described { labels, ..Described::default() };
        let context = Context {
            target: "ci",
            issue: "j",
            issued_at: 129,
            expires_at: 0,
            generation: 1,
            timeout: std::time::Duration::ZERO,
            manners: manners::Manners::default(),
        };
        let gone = unkept(&found, 2, &context);
        assert_eq!((gone.len(), gone[0].as_str(), gone[14].as_str()), (15, "TOKENFERRY_100", "TOKENFERRY_114"));
        assert_eq!(number("TOKENFERRY_SUPERSEDED"), None, "the label of the fence is none of these");
    }

    #[test]
    fn a_tag_has_only_characters_that_aws_takes() {
        let manners = manners::Manners { owner: Some("päyments;\n<a>"), ..manners::Manners::default() };
        let context =
            Context { target: "ci", issue: "j", issued_at: 0, expires_at: 0, generation: 1, timeout: std::time::Duration::ZERO, manners };
        assert_eq!(marks(&context)["tokenferry/owner"], "päyments___a_");
    }
}
