//! A secret in Key Vault: read, compared, written, read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use azure_core::http::RequestContent;
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_secrets::ResourceExt;
use azure_security_keyvault_secrets::models::{
    Secret, SecretAttributes, SecretClientUpdateSecretPropertiesOptions, SecretProperties, SetSecretParameters,
    UpdateSecretPropertiesParameters,
};
use futures_util::TryStreamExt;
use zeroize::Zeroizing;

use super::AzureSpec;
use super::client::Wire;
use super::earlier::{self, Version};
use super::refusal::{self, Verdict};
use crate::sink::manners::{self, MARK};
use crate::sink::{Context, FailureKind, Ours, Put, Removal};

/// Characters that a tag may have.
const LONGEST: usize = 256;

/// A secret, where it stands.
pub(super) struct Place<'a> {
    pub wire: Arc<Wire>,
    pub spec: &'a AzureSpec,
}

/// The version in use.
pub(super) struct Current {
    /// `None`: it was disabled.
    pub text: Option<Zeroizing<String>>,
    version: Version,
    tags: BTreeMap<String, String>,
    /// `exp`, seconds since 1970.
    ends: Option<i64>,
}

impl Place<'_> {
    /// Sets the secret where it differs.
    pub async fn set(&self, text: &str, context: &Context<'_>) -> Result<Put, Verdict> {
        let marks = manners::marks(context, |text| Some(text.chars().take(LONGEST).collect()));
        let Some(current) = self.read().await? else { return self.write(text, marks, context).await };
        if !self.is_free(&current, context.manners.ours) {
            return Err(self.not_ours(context));
        }
        if let Some(why) = current.text.as_deref().and_then(|held| context.superseded(held)) {
            return Err(Verdict::new(FailureKind::Superseded, why));
        }
        let mut tags = manners::with_marks(&current.tags, &marks);
        if current.text.as_deref().is_some_and(|held| held == text) {
            // Whose the earlier ones are stays said.
            tags.extend(current.tags.get_key_value(earlier::TAG).map(|(key, value)| (key.clone(), value.clone())));
            self.mend(&current, tags, context).await?;
            return Ok(Put::Unchanged);
        }
        let stay = self.retire(&current, context).await;
        tags.extend(earlier::written(&stay).map(|said| (earlier::TAG.to_owned(), said)));
        self.write(text, tags, context).await
    }

    /// Reads what a put would read, and says what was found.
    pub async fn probe(&self, context: &Context<'_>) -> Result<String, Verdict> {
        let there = match self.read().await? {
            None => "is not there yet",
            Some(current) if self.is_free(&current, context.manners.ours) => "is there and ours",
            Some(_) => return Err(self.not_ours(context)),
        };
        Ok(format!("`{}` {there}; whether it may be written Key Vault does not say before", self.spec.name))
    }

    /// Deletes the secret where it is ours, with all its versions. Its name is free again when the vault's days of grace
    /// are over.
    pub async fn remove(&self, ours: Ours<'_>) -> Result<Removal, Verdict> {
        let Some(current) = self.read().await? else { return Ok(Removal::Nothing) };
        let is_ours = match &current.text {
            Some(text) => ours.is(text),
            None => manners::marked(&current.tags),
        };
        if !is_ours {
            return Ok(Removal::Left);
        }
        match self.wire.client.delete_secret(&self.spec.name, None).await {
            Ok(_) => Ok(Removal::Gone),
            Err(error) if refusal::is_missing(&error) => Ok(Removal::Gone),
            Err(error) => Err(self.refused(&error, "delete", "Microsoft.KeyVault/vaults/secrets/delete")),
        }
    }

    /// The version in use; `None` where there is no such secret.
    pub async fn read(&self) -> Result<Option<Current>, Verdict> {
        let found = match self.wire.client.get_secret(&self.spec.name, None).await {
            Ok(found) => found,
            Err(error) if refusal::is_missing(&error) => return Ok(None),
            Err(error) if refusal::is_disabled(&error) => return self.newest().await.map(Some),
            Err(error) => return Err(self.refused(&error, "read", "Microsoft.KeyVault/vaults/secrets/getSecret/action")),
        };
        let Secret { attributes, id, tags, value, .. } = found.into_model().map_err(|error| self.refused(&error, "read", ""))?;
        let mut properties = SecretProperties::default();
        (properties.attributes, properties.id, properties.tags) = (attributes, id, tags);
        let current = described(properties).zip(value).ok_or_else(|| self.not_azure())?;
        Ok(Some(Current { text: Some(Zeroizing::new(current.1)), ..current.0 }))
    }

    /// The version made last, where the one in use cannot be read: disabled.
    async fn newest(&self) -> Result<Current, Verdict> {
        let refused = |error| self.refused(&error, "look at", "Microsoft.KeyVault/vaults/secrets/readMetadata/action");
        let listed = self.wire.client.list_secret_properties_versions(&self.spec.name, None).map_err(refused)?;
        let versions: Vec<SecretProperties> = listed.try_collect().await.map_err(refused)?;
        versions.into_iter().filter_map(described).max_by_key(|current| current.version.made).ok_or_else(|| self.not_azure())
    }

    /// Sets tags and end anew where they are others: a crash cannot come between them and the token, but people can.
    async fn mend(&self, current: &Current, tags: BTreeMap<String, String>, context: &Context<'_>) -> Result<(), Verdict> {
        if tags == current.tags && current.ends == Some(context.expires_at) {
            return Ok(());
        }
        let secret_attributes = Some(enabled_until(context.expires_at));
        let change = UpdateSecretPropertiesParameters { tags: Some(tags.into_iter().collect()), secret_attributes, ..Default::default() };
        self.update(&current.version.id, change).await
    }

    /// Disables what was replaced as long ago as the overlap, and says which versions before the next one stay enabled.
    /// Only those of ours are ever named.
    async fn retire(&self, current: &Current, context: &Context<'_>) -> Vec<Version> {
        if !manners::marked(&current.tags) {
            return Vec::new();
        }
        let mut versions = current.tags.get(earlier::TAG).map(|tag| earlier::parsed(tag)).unwrap_or_default();
        versions.push(current.version.clone());
        let keep = usize::try_from(self.spec.keep_versions.unwrap_or(1)).unwrap_or(usize::MAX);
        let overlap = i64::try_from(context.manners.overlap.as_secs()).unwrap_or(i64::MAX);
        let (gone, mut stay) = earlier::sorted_out(versions, context.issued_at, keep, overlap);
        for version in gone {
            let secret_attributes = Some(SecretAttributes { enabled: Some(false), ..Default::default() });
            let change = UpdateSecretPropertiesParameters { secret_attributes, ..Default::default() };
            if let Err(verdict) = self.update(&version.id, change).await {
                // The token matters more than what is only untidy.
                tracing::warn!(
                    target_name = context.target,
                    place = self.spec.name,
                    error = verdict.why,
                    "an old version stays until the next delivery"
                );
                stay.insert(0, version);
            }
        }
        stay.drain(..stay.len().saturating_sub(earlier::MOST));
        stay
    }

    async fn update(&self, version: &str, change: UpdateSecretPropertiesParameters) -> Result<(), Verdict> {
        let refused = |error| self.refused(&error, "change a version of", "Microsoft.KeyVault/vaults/secrets/update/action");
        let body: RequestContent<_> = change.try_into().map_err(refused)?;
        let options = SecretClientUpdateSecretPropertiesOptions { secret_version: Some(version.to_owned()), ..Default::default() };
        self.wire.client.update_secret_properties(&self.spec.name, body, Some(options)).await.map(drop).map_err(refused)
    }

    /// Makes a version, and reads it back as the one in use.
    async fn write(&self, text: &str, tags: BTreeMap<String, String>, context: &Context<'_>) -> Result<Put, Verdict> {
        let refused = |error| self.refused(&error, "write", "Microsoft.KeyVault/vaults/secrets/setSecret/action");
        let (value, tags) = (Some(text.to_owned()), Some(tags.into_iter().collect()));
        let whole = SetSecretParameters { value, tags, secret_attributes: Some(enabled_until(context.expires_at)), ..Default::default() };
        let body: RequestContent<_> = whole.try_into().map_err(refused)?;
        let wrote = self.wire.client.set_secret(&self.spec.name, body, None).await.map_err(refused)?;
        let wrote = wrote.into_model().map_err(refused)?.resource_id().ok().and_then(|id| id.version).ok_or_else(|| self.not_azure())?;
        let (kind, why) = match self.read().await? {
            Some(current) if current.text.as_deref().is_some_and(|held| held == text) => return Ok(Put::Written),
            Some(current) if current.version.id != wrote => (FailureKind::Conflict, "was written, and somebody else made another"),
            Some(_) => (FailureKind::BadAnswer, "was acknowledged, and holds something else"),
            None => (FailureKind::Conflict, "was written, and somebody else deleted the secret"),
        };
        Err(Verdict::new(kind, format!("a version of `{}` {why}", self.spec.name)))
    }

    /// Whether it is ours, or may be taken.
    fn is_free(&self, current: &Current, ours: Ours<'_>) -> bool {
        manners::marked(&current.tags) || self.spec.adopt || current.text.as_deref().is_some_and(|text| ours.is(text))
    }

    fn refused(&self, error: &azure_core::Error, verb: &str, right: &str) -> Verdict {
        refusal::of(error, &format!("cannot {verb} `{}`", self.spec.name), &self.spec.name, right)
    }

    fn not_azure(&self) -> Verdict {
        Verdict::new(FailureKind::BadAnswer, format!("cannot read `{}`: {}", self.spec.name, refusal::NOT_AZURE))
    }

    fn not_ours(&self, context: &Context<'_>) -> Verdict {
        let why = format!(
            "`{}` is there and not ours: it lacks the tag {}={} and holds no token of target {}. Nothing was overwritten: \
             write `adopt: true` beside its `name` to take it over, or name another secret",
            self.spec.name, MARK.0, MARK.1, context.target
        );
        Verdict::new(FailureKind::Refused, why)
    }
}

fn enabled_until(end: i64) -> SecretAttributes {
    SecretAttributes { enabled: Some(true), expires: OffsetDateTime::from_unix_timestamp(end).ok(), ..Default::default() }
}

/// What is said of a version; `None` where that is not what Key Vault says of one.
fn described(properties: SecretProperties) -> Option<Current> {
    let id = properties.resource_id().ok()?.version?;
    let attributes = properties.attributes?;
    let version = Version { id, made: attributes.created?.unix_timestamp() };
    let ends = attributes.expires.map(OffsetDateTime::unix_timestamp);
    Some(Current { text: None, version, tags: properties.tags.unwrap_or_default().into_iter().collect(), ends })
}
