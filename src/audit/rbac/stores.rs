//! The same for stores: each sink says what its places need, each store puts that into the words of its own system.

use super::leaving;
use crate::schedule::Plan;
use crate::sink::kinds::Ask;

/// What the login of that store has to be allowed: a Vault policy in HCL, an IAM policy, …. `engine` is the version of
/// Vault's KV mounts, 1 or 2. `account` narrows the rights to it; any account where it is not known. None where there
/// is no such store.
pub fn policy(plan: &Plan, store: &str, engine: u8, account: Option<&str>) -> Option<String> {
    let spec = plan.stores.get(store)?;
    let (_, settings) = spec.kind_of()?;
    let places = plan.targets.iter().flat_map(|target| leaving(target)).filter(|(place, _)| place.sink.store() == Some(store));
    let rights = places.flat_map(|(place, leaves)| place.sink.kind_of().rights(&Ask { store: spec, leaves, engine, account }));
    Some(settings.policy(rights.collect(), account))
}

/// The stores of that system, by name.
pub fn of_system<'a>(plan: &'a Plan, system: &str) -> Vec<&'a str> {
    plan.stores.iter().filter(|(_, spec)| spec.system() == Some(system)).map(|(name, _)| name.as_str()).collect()
}
