//! What is made in the cluster, and taken away there.

use super::{Fate, Stop, Tell, Wanted, refused};
use crate::cluster::object::{Found, MARK, Object};
use crate::cluster::{Cluster, Trouble};

/// Resources that a schedule may have needed once and needs no more.
const RIGHTS: [(&str, &str); 3] = [("RoleBinding", "rolebindings"), ("Role", "roles"), ("ClusterRoleBinding", "clusterrolebindings")];

impl Wanted {
    pub(super) async fn apply(&self, person: &Cluster, dry: bool, tell: Tell<'_>) -> Result<(), Stop> {
        let owner = self.owner();
        let mut new_namespace = false;
        for object in self.objects() {
            let is_namespace = object.resource == "namespaces";
            let found = match person.find(&object).await {
                Ok(found) => found,
                // Who works in one namespace only need not see what stands around it.
                Err(refusal) if is_namespace && refusal.trouble == Trouble::Forbidden => {
                    tell(&object.shown(), &Fate::Kept("it may not be looked at, and is taken for there".into()));
                    continue;
                }
                Err(refusal) => return Err(refused(&refusal, "get", &object)),
            };
            if is_namespace && found.is_some() {
                tell(&object.shown(), &Fate::Unchanged);
                continue;
            }
            if let Some(found) = &found {
                ours(found, &object, &owner)?;
            }
            let fate = match &found {
                Some(found) if found.has(&object, &owner) => Fate::Unchanged,
                Some(_) => Fate::Changed,
                None => Fate::Made,
            };
            // What is to stand in a namespace that a dry run does not make cannot be tried.
            let tried = !(dry && new_namespace && object.namespace.as_ref() == Some(&self.ask.namespace));
            if fate != Fate::Unchanged && tried {
                person.apply(&object, &owner, found.as_ref(), dry).await.map_err(|refusal| refused(&refusal, "patch", &object))?;
            }
            new_namespace |= is_namespace;
            tell(&object.shown(), &fate);
        }
        self.forget(person, dry, tell).await
    }

    /// Rights that an earlier schedule needed and this one does not.
    async fn forget(&self, person: &Cluster, dry: bool, tell: Tell<'_>) -> Result<(), Stop> {
        let wanted = self.objects();
        for object in self.earlier(person).await? {
            if !wanted.iter().any(|w| w.path() == object.0.path()) {
                self.take(person, &object.0, &object.1, dry).await?;
                tell(&object.0.shown(), &Fate::Removed);
            }
        }
        Ok(())
    }

    /// Every Role and binding of this daemon in the whole cluster; those of the schedule alone where the person may
    /// not list all.
    async fn earlier(&self, person: &Cluster) -> Result<Vec<(Object, Found)>, Stop> {
        let owner = self.owner();
        let mut all = Vec::new();
        for (kind, resource) in RIGHTS {
            match person.marked(resource).await {
                Ok(found) => all.extend(found.into_iter().filter(|f| f.owner() == Some(&owner)).map(|found| {
                    let (namespace, name) = found.called();
                    (Object::rbac(kind, resource, namespace, name, serde_json::json!({})), found)
                })),
                Err(refusal) if refusal.trouble == Trouble::Forbidden => {
                    for object in self.objects().into_iter().filter(|object| object.resource == resource) {
                        let found = person.find(&object).await.map_err(|refusal| refused(&refusal, "get", &object))?;
                        all.extend(found.filter(|found| found.is_ours(&owner)).map(|found| (object, found)));
                    }
                }
                Err(refusal) => return Err(Stop::Failed(format!("{resource}: {}", refusal.message))),
            }
        }
        Ok(all)
    }

    pub(super) async fn remove(&self, person: &Cluster, dry: bool, tell: Tell<'_>) -> Result<(), Stop> {
        for (object, found) in self.earlier(person).await? {
            self.take(person, &object, &found, dry).await?;
            tell(&object.shown(), &Fate::Removed);
        }
        let account = Object::account(&self.ask.namespace, &self.ask.service_account);
        let found = person.find(&account).await.map_err(|refusal| refused(&refusal, "get", &account))?;
        let fate = match &found {
            None => Fate::Missing,
            Some(found) if !found.is_ours(&self.owner()) => Fate::Kept("it is not ours".into()),
            Some(found) => {
                self.take(person, &account, found, dry).await?;
                Fate::Removed
            }
        };
        tell(&account.shown(), &fate);
        let namespace = Object::namespace(&self.ask.namespace);
        let fate = self.namespace_fate(person, &namespace, dry).await?;
        tell(&namespace.shown(), &fate);
        Ok(())
    }

    /// A namespace takes all that stands in it with it: only an empty one of ours goes.
    async fn namespace_fate(&self, person: &Cluster, namespace: &Object, dry: bool) -> Result<Fate, Stop> {
        let found = match person.find(namespace).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Fate::Missing),
            Err(refusal) if refusal.trouble == Trouble::Forbidden => return Ok(Fate::Kept("it may not be looked at".into())),
            Err(refusal) => return Err(refused(&refusal, "get", namespace)),
        };
        if !found.is_ours(&self.owner()) {
            return Ok(Fate::Kept("it was there before".into()));
        }
        let account = format!("serviceaccounts {}", self.ask.service_account);
        match person.anything_in(&self.ask.namespace).await {
            // In a dry run our own account stands there still.
            Ok(Some(other)) if !(dry && other == account) => return Ok(Fate::Kept(format!("there is more in it: {other}"))),
            Err(refusal) => return Ok(Fate::Kept(format!("nobody knows what is in it: {}", refusal.message))),
            Ok(_) => {}
        }
        self.take(person, namespace, &found, dry).await?;
        Ok(Fate::Removed)
    }

    async fn take(&self, person: &Cluster, object: &Object, found: &Found, dry: bool) -> Result<(), Stop> {
        if dry {
            return Ok(());
        }
        person.remove(object, found).await.map_err(|refusal| refused(&refusal, "delete", object))
    }
}

/// Refuses what somebody else made under our name.
fn ours(found: &Found, object: &Object, owner: &str) -> Result<(), Stop> {
    if found.is_ours(owner) {
        return Ok(());
    }
    let shown = object.shown();
    if found.is_marked() {
        return Err(Stop::Failed(format!(
            "{shown} is there for another daemon, whose account is {}: name another account under `own`",
            found.owner().unwrap_or("unknown")
        )));
    }
    let within = object.namespace.as_ref().map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
    Err(Stop::Failed(format!(
        "{shown} is there and not ours: it lacks the label {}={}. Name another account under `own`, delete it, or hand it over: \
         kubectl label{within} {} {} {}={}",
        MARK.0, MARK.1, object.resource, object.name, MARK.0, MARK.1
    )))
}
